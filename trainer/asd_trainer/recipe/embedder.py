"""The parts of a recipe that shape the embedder: pooling, loss, augmentation, fine-tuning.

Owns the keys with their units, bounds and sentences. It trains nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from asd_trainer.recipe.keys import OptimiserRecipe, Section, setting
from asd_trainer.recipe.separation import Span


class EmbeddingRecipe(Section):
    """From patch tokens to the embedding."""

    dimensions: int = setting(128, "components", "Components of the embedding.", title="Dimensions", ge=2, le=4096)
    attention_dim: int = setting(
        64,
        "channels",
        "Hidden channels of the attentive statistics pooling.",
        title="Attention channels",
        ge=1,
        le=4096,
    )
    layers: Literal["last", "all", "patches"] = setting(
        "last",
        "",
        "Blocks of the encoder whose tokens are pooled: the last, or all, joined by a small network; patches leaves the blocks out.",
        title="Layers",
    )
    pooling: Literal["statistics", "quantiles"] = setting(
        "statistics",
        "",
        "How patches become one vector: attentive statistics (paper, section 2.2), or low quantiles over time of each row of patches, "
        "for steady machines in noise.",
        title="Pooling",
    )


class ArcFaceRecipe(Section):
    """The classification loss over machine × domain × attributes."""

    scale: float = setting(30.0, "", "Factor on the cosines before the softmax.", title="Scale", gt=0, le=128)
    margin: float = setting(0.3, "rad", "Angle added to the true class.", title="Margin", ge=0, lt=1.5)
    subcentres: int = setting(
        1, "centres", "Centres of each class; a clip belongs to the nearest.", title="Sub-centres", ge=1, le=64
    )


class AugmentRecipe(Section):
    """What is done to a log-mel each time it is trained on."""

    mixup_probability: float = setting(
        0.5, "", "Share of clips that are mixed with another, labels alike.", title="Mixup", ge=0, le=1
    )
    gain_db: float = setting(6.0, "dB", "Largest random gain of a whole clip, up or down.", title="Gain", ge=0, le=60)
    roll: bool = setting(True, "", "Rotate each clip in time by a random offset.", title="Roll")
    mask_probability: float = setting(
        0.5, "", "Share of clips that get a time mask and a mel mask.", title="Masking", ge=0, le=1
    )
    mask_frames: int = setting(80, "frames", "Longest time mask (10 ms a frame).", title="Time mask", ge=0, le=998)
    mask_bins: int = setting(80, "mel bins", "Widest mel mask.", title="Mel mask", ge=0, le=128)
    noise_probability: float = setting(
        0.0,
        "",
        "Share of clips that get noise: a noise-only clip of the data set, of any machine; where there is none, a recording of "
        "another machine.",
        title="Noise",
        ge=0,
        le=1,
    )
    noise_snr_db: Span = setting((5.0, 20.0), "dB", "Clip over its noise.", title="Ratio")


class FinetuneRecipe(Section):
    """Fine-tuning of the encoder by classification of machine × domain × attributes (paper, sections 2.2 and 2.4)."""

    epochs: int = setting(30, "epochs", "Passes over the training clips.", title="Epochs", ge=1, le=100_000)
    batch_clips: int = setting(32, "clips", "Clips of a step, over all devices.", title="Batch", ge=2, le=65_536)
    kept_patches: float = setting(
        1.0,
        "",
        "Part of a clip's patches that is encoded while training, drawn anew each time; 1 encodes all.",
        title="Kept patches",
        gt=0,
        le=1,
    )
    separated: bool = setting(
        True,
        "",
        "Learn from separated clips beside the original ones, where the run separates.",
        title="Separated clips",
    )
    pseudo_attributes: Annotated[int, Field(ge=0, le=64)] | Literal["auto"] = setting(
        0,
        "clusters",
        "Clusters by sound that take the place of attributes where a machine's domain has none; auto: as many as lie apart; 0: none.",
        title="Pseudo-attributes",
    )
    arcface: ArcFaceRecipe = setting(ArcFaceRecipe(), "", "The loss.", title="ArcFace")
    augment: AugmentRecipe = setting(AugmentRecipe(), "", "Augmentation.", title="Augmentation")
    optimiser: OptimiserRecipe = setting(OptimiserRecipe(), "", "Optimiser and schedule.", title="Optimiser")
