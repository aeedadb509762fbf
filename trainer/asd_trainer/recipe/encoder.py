"""The parts of a recipe that say which encoder hears, how much of it learns, and how one that learns nothing is pooled.

Owns the keys with their units, bounds and sentences. It builds nothing.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from asd_trainer.recipe.keys import Section, setting

EAT = "eat"
ENCODER_NAMES = (EAT, "ced-tiny", "ced-mini", "ced-small", "ced-base", "beats", "mn04_as", "mn10_as", "dasheng-base")
ONNX = "onnx:"
"""Before the path of a graph, in the place of a name."""
CONVOLUTIONAL = ("mn04_as", "mn10_as")
Projection = Literal["query", "key", "value", "output", "mlp"]


def _known(name: str) -> str:
    if name not in ENCODER_NAMES and not (name.startswith(ONNX) and name != ONNX):
        near = difflib.get_close_matches(name, ENCODER_NAMES, n=1)
        raise ValueError(f"did you mean {near[0]}?" if near else f"known: {', '.join(ENCODER_NAMES)}")
    return name


class LoraRecipe(Section):
    """Low-rank adaptation (Hu et al., arXiv 2106.09685): the encoder's matrices stay, and what is added to them has a low rank."""

    rank: int = setting(
        0, "", "Rank of what is learned for each matrix; 0 lets the whole encoder learn.", title="Rank", ge=0, le=1024
    )
    alpha: float = setting(16.0, "", "What is learned counts alpha / rank times.", title="Alpha", gt=0, le=4096)
    projections: tuple[Projection, ...] = setting(
        ("query", "key", "value"),
        "",
        "Matrices of each block that are adapted: query, key, value and output of the attention, mlp.",
        title="Projections",
        min_length=1,
    )


class EncoderRecipe(Section):
    """The encoder."""

    name: Annotated[str, AfterValidator(_known)] = setting(
        EAT, "", f"Which encoder: {', '.join(ENCODER_NAMES)}, or onnx:FILE (frozen).", title="Encoder"
    )
    size: Literal["smoke", "edge", "small", "base", "large"] = setting(
        "smoke", "", "Size of the EAT encoder.", title="Size"
    )
    weights: str = setting(
        "",
        "",
        "Where the encoder's first weights come from: a Hugging Face repository (worstchan/EAT-base_epoch30_pretrain), a file of "
        "released weights (.pt or .safetensors), or of EAT the folder stages/pretrain of another run; empty draws them fresh.",
        title="Weights",
    )
    lora: LoraRecipe = setting(LoraRecipe(), "", "Low-rank adaptation while fine-tuning.", title="LoRA")


class FrozenRecipe(Section):
    """An encoder that learns nothing: its tokens are pooled over time, and the nearest normal clip is the score."""

    enabled: bool = setting(False, "", "Use the encoder as it is, instead of fine-tuning.", title="Frozen")
    layers: tuple[Annotated[int, Field(ge=1)], ...] = setting(
        (), "", "Layers whose tokens are pooled side by side, counted from 1; empty for the last.", title="Layers"
    )
    pooling: Literal["mean", "statistics", "gem", "rdp", "rdp-gem", "quantiles"] = setting(
        "mean",
        "",
        "What becomes of a band's tokens over time: their mean, mean and deviation, generalised mean, a mean that weighs the moments "
        "far from it more (relative deviation pooling), the latter two together, or low quantiles.",
        title="Pooling",
    )
    power: float = setting(3.0, "", "Power of the generalised mean.", title="Power", ge=1, le=16)
    gamma: float = setting(
        8.0,
        "",
        "How much more the moments far from the mean weigh (γ of relative deviation pooling).",
        title="γ",
        ge=0,
        le=64,
    )
    bands: Literal["joined", "averaged", "separate"] = setting(
        "joined",
        "",
        "Bands of frequency side by side in one embedding, averaged, or each with normal sounds of its own, of which the nearest counts, "
        "the bands' distances averaged; a bundle can't have the last.",
        title="Bands",
    )
    standardise: bool = setting(
        False,
        "",
        "Centre and scale every component by what it does over the normal training clips.",
        title="Standardise",
    )
