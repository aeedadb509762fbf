"""Files of released weights → encoders: the names that weights bear there, and the check that they are whole.

Owns what differs from family to family. Where files come from and how they are read without running code is `weights` and `torch_file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asd_daemon.errors import StageError
from asd_trainer.networks.encoders.beats import BeatsSize
from asd_trainer.networks.encoders.eat_tokens import EatTokens
from asd_trainer.networks.encoders.interface import EncoderShape, TokenEncoder
from asd_trainer.networks.encoders.registry import build_encoder
from asd_trainer.networks.torch_file import StoredTensor, TorchFile
from asd_trainer.networks.weights import (
    Download,
    checked,
    download_from_hub,
    file_digest,
    listed,
    load_weights,
    located,
    named_safetensors,
)
from asd_trainer.recipe.encoder import EAT


@dataclass(frozen=True)
class Names:
    """How a family's files name weights."""

    prefixes: tuple[str, ...]
    """Taken off, one after the other, where they lead."""
    renamed: Mapping[str, str]
    """Beginnings that are called otherwise here."""
    left_out: re.Pattern[str]
    """Of no use here: front ends follow from formulas, heads and decoders belong to other tasks."""


_TRANSFORMER = Names(
    ("model.", "encoder."),
    {"init_bn.1.": "init_bn."},
    re.compile(r"front_end\.|outputlayer\.|decoder\.|mask_token|head\."),
)
NAMES: dict[str, Names] = {
    "ced": _TRANSFORMER,
    "dasheng": _TRANSFORMER,
    "beats": Names(
        (), {}, re.compile(r"predictor\.|encoder\.layers\.(?!0\.)\d+\.self_attn\.relative_attention_bias\.")
    ),
    "efficientat": Names(("model.", "net."), {}, re.compile(r"classifier\.|mel\.")),
}
_FIXED = {
    "beats": {
        "relative_position_embedding": True,
        "gru_rel_pos": True,
        "layer_norm_first": False,
        "activation_fn": "gelu",
    }
}
"""Of a checkpoint's `cfg`: what this program's encoder of the family is."""


@dataclass(frozen=True)
class ReleasedEncoder:
    """An encoder with the weights of a file."""

    encoder: TokenEncoder
    file: Path
    digest: str
    """sha256 of the file."""


def load_encoder(source: str, shape: EncoderShape, download: Download = download_from_hub) -> ReleasedEncoder:
    """An encoder with weights from a file, or from Hugging Face as `owner/name` or `owner/name@revision`.

    Args:
        source: a .pt, .pth or .safetensors file, a folder with one, or a repository.
        shape: what is expected; of BEATs the file's own `cfg` counts, as there is one name for all of them.
        download: fetches a file of a repository.

    Raises:
        StageError: nothing there, broken, incomplete or of another architecture; names file, key and shapes.
    """
    if shape.family == EAT:
        return _load_eat(source, shape, download)
    path = located(source, download)
    tensors, config = _read(path, shape.family)
    if shape.family == "beats":
        tensors = _without_weight_norm(path, tensors)
        shape = EncoderShape("beats", _beats_size(path, config, shape.size))
    if shape.family == "efficientat":
        shape = EncoderShape(shape.family, {**shape.size, "excited": _excited(tensors)})
    try:
        encoder = build_encoder(shape)
    except StageError as e:
        raise StageError(f"{path}: {e}") from e
    state = encoder.state_dict()
    foreign = sorted(set(tensors) - set(state))
    if foreign:
        raise StageError(
            f"{path}: {listed(foreign)}: {shape.family} {_in_words(shape)} has no such weights; is encoder.name right?"
        )
    kept = {
        name: torch.zeros((), dtype=torch.int64)
        if name.endswith("num_batches_tracked")
        else checked(path, name, tensors.get(name), tensor.shape)
        for name, tensor in state.items()
    }
    encoder.load_state_dict(kept)
    return ReleasedEncoder(encoder, path, file_digest(path))


def _load_eat(source: str, shape: EncoderShape, download: Download) -> ReleasedEncoder:
    weights = load_weights(source, download=download)
    found = build_encoder(EncoderShape(EAT, vars(weights.size)))
    if found.shape != shape or not isinstance(found, EatTokens):
        raise StageError(
            f"{source}: weights of EAT {_in_words(found.shape)}, but encoder.size asks for {_in_words(shape)}"
        )
    found.eat.load_state_dict(dict(weights.tensors))
    return ReleasedEncoder(found, weights.file, weights.digest)


def _read(path: Path, family: str) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The weights by the names that they have here, and the file's configuration, where it has one."""
    names = NAMES[family]
    if path.suffix == ".safetensors":
        read = named_safetensors(path)
        return {name: read[key] for key, name in _wanted(read, names)}, {}
    with TorchFile(path) as file:
        content = file.content if isinstance(file.content, Mapping) else {}
        nested = content.get("model", content)
        stored = (
            {str(k): v for k, v in nested.items() if isinstance(v, StoredTensor)} if isinstance(nested, Mapping) else {}
        )
        if not stored:
            raise StageError(f"{path}: holds no weights, neither by their names nor under `model`")
        config = content.get("cfg")
        tensors = {name: file.read(stored[key], key) for key, name in _wanted(stored, names)}
    return tensors, config if isinstance(config, Mapping) else {}


def _wanted(keys: Mapping[str, Any], names: Names) -> Iterator[tuple[str, str]]:
    """Each key that is of use, with the name that it has here."""
    for key in keys:
        name = key
        for prefix in names.prefixes:
            name = name.removeprefix(prefix)
        if names.left_out.match(name):
            continue
        for before, after in names.renamed.items():
            if name.startswith(before):
                name = after + name.removeprefix(before)
        yield key, name


def _without_weight_norm(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The positions' convolution as one weight: direction · length / norm, the norm over all but the taps (arXiv 1602.07868)."""
    stem = "encoder.pos_conv.0."
    direction, length = tensors.pop(f"{stem}weight_v", None), tensors.pop(f"{stem}weight_g", None)
    if direction is not None and length is not None:
        if direction.ndim != 3 or length.shape != (1, 1, direction.shape[2]):
            raise StageError(
                f"{path}: {stem}weight_g has shape {list(length.shape)}, expected {[1, 1, direction.shape[-1]]}, "
                f"as {stem}weight_v has shape {list(direction.shape)}"
            )
        direction = direction.float()
        tensors[f"{stem}weight"] = direction * length.float() / direction.norm(dim=(0, 1), keepdim=True)
    return tensors


def _beats_size(path: Path, config: Mapping[str, Any], fallback: Mapping[str, Any]) -> dict[str, Any]:
    """The size that a checkpoint says of itself; `fallback` for what it does not say.

    Raises:
        StageError: it is configured as this program's BEATs is not.
    """
    for key, value in _FIXED["beats"].items():
        if key in config and config[key] != value:
            raise StageError(f"{path}: cfg.{key} is {config[key]!r}, and only {value!r} is known here")
    size = {}
    for field in fields(BeatsSize):
        value = config.get(field.name, fallback[field.name])
        if not isinstance(value, int) or (not isinstance(value, bool) and not 1 <= value <= 65_536):
            raise StageError(f"{path}: cfg.{field.name} is {value!r}, which is no size")
        size[field.name] = value
    return size


def _excited(tensors: Mapping[str, Tensor]) -> str:
    """The axes of squeeze-and-excitation of a MobileNet: channels, or channels and bands."""
    return "cf" if any(".conc_se_layers.1." in name for name in tensors) else "c"


def _in_words(shape: EncoderShape) -> str:
    return ", ".join(f"{key} {value}" for key, value in shape.size.items())
