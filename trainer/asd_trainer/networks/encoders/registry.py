"""The encoders by the names that a recipe uses, and how each is built; what the files of released ones say of theirs is `released`'s.

Owns the table. Figures of published models are of 10 s of sound, from the papers and repositories of their authors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from asd_daemon.errors import StageError
from asd_trainer.networks.eat import SIZES, EatSize
from asd_trainer.networks.encoders.beats import Beats, BeatsSize
from asd_trainer.networks.encoders.eat_tokens import EatTokens
from asd_trainer.networks.encoders.interface import EncoderShape, TokenEncoder
from asd_trainer.networks.encoders.mobilenet import MobileNet, MobileNetSize
from asd_trainer.networks.encoders.onnx_graph import OnnxEncoder, OnnxSize
from asd_trainer.networks.encoders.patch_transformer import PatchTransformer, PatchTransformerSize
from asd_trainer.recipe.encoder import EAT


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder that has a name."""

    shape: EncoderShape
    published_parameters_m: float | None = None
    """Millions, with the classifier that is left out here."""
    published_gmac: float | None = None
    """Of 10 s of sound."""


def _ced(dim: int, heads: int) -> EncoderShape:
    return EncoderShape("ced", asdict(PatchTransformerSize(dim, 12, heads)))


def _dasheng(dim: int, depth: int, heads: int) -> EncoderShape:
    size = PatchTransformerSize(dim, depth, heads, patch_bands=64, patch_frames=4, time_patches=252)
    return EncoderShape("dasheng", asdict(size))


def _mobile(width: float) -> EncoderShape:
    return EncoderShape("efficientat", asdict(MobileNetSize(width)))


NAMED: dict[str, NamedEncoder] = {
    "ced-tiny": NamedEncoder(_ced(192, 3), 5.5, 1.33),
    "ced-mini": NamedEncoder(_ced(256, 4), 9.6),
    "ced-small": NamedEncoder(_ced(384, 6), 22),
    "ced-base": NamedEncoder(_ced(768, 12), 86, 21.1),
    "beats": NamedEncoder(EncoderShape("beats", asdict(BeatsSize())), 90, 45.0),
    "mn04_as": NamedEncoder(_mobile(0.4), 0.983, 0.11),
    "mn10_as": NamedEncoder(_mobile(1.0), 4.88, 0.54),
    "dasheng-base": NamedEncoder(_dasheng(768, 12, 12), 86),
}
"""Every encoder but EAT, whose size is a key of its own."""

_FAMILIES: dict[str, Callable[[dict[str, Any]], TokenEncoder]] = {
    EAT: lambda size: EatTokens(EatSize(**size)),
    "ced": lambda size: PatchTransformer("ced", PatchTransformerSize(**size)),
    "dasheng": lambda size: PatchTransformer("dasheng", PatchTransformerSize(**size)),
    "beats": lambda size: Beats(BeatsSize(**size)),
    "efficientat": lambda size: MobileNet(MobileNetSize(**size)),
    "onnx": lambda size: OnnxEncoder(
        OnnxSize(**{**size, **{key: tuple(size[key]) for key in ("input_axes", "tokens")}})
    ),
}


def named_shape(name: str, eat_size: str) -> EncoderShape:
    """The shape that a recipe's `encoder.name` and, of EAT, `encoder.size` ask for.

    Raises:
        StageError: there is no encoder of that name.
    """
    if name == EAT:
        return EncoderShape(EAT, asdict(SIZES[eat_size]))
    if name not in NAMED:
        raise StageError(f"encoder.name: {name!r} is none of {', '.join((EAT, *NAMED))}")
    return NAMED[name].shape


def build_encoder(shape: EncoderShape) -> TokenEncoder:
    """An encoder of a shape, its weights not yet drawn.

    Raises:
        StageError: no such family, or numbers that fit no encoder of it.
    """
    if shape.family not in _FAMILIES:
        raise StageError(f"encoder family {shape.family!r} is none of {', '.join(_FAMILIES)}")
    try:
        return _FAMILIES[shape.family](shape.size)
    except (TypeError, ValueError, KeyError) as e:
        raise StageError(f"an encoder of family {shape.family} can't have the size {shape.size}: {e}") from e


def token_shape(shape: EncoderShape, chosen: Sequence[int] = ()) -> tuple[int, int]:
    """F and C of the tokens of an encoder's chosen layers; found on shapes alone.

    Raises:
        StageError: as `build_encoder`.
        RuntimeError: the layers' grids do not fit on each other.
    """
    with torch.device("meta"):
        encoder = build_encoder(shape)
    return encoder.eval().token_shape(chosen)
