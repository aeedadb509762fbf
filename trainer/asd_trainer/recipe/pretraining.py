"""The part of a recipe that shapes pre-training: masks, teacher, decoder, loss, data.

Owns the keys with their units, bounds and sentences. It trains nothing.
"""

from __future__ import annotations

from typing import Literal

from asd_trainer.recipe.keys import OptimiserRecipe, Section, setting

FRAMES_OF_A_PATCH = 16


class MaskRecipe(Section):
    """Which patches the student sees: inverse block masks (EAT, arXiv 2401.03497; data2vec 2.0, arXiv 2212.07525)."""

    kept: float = setting(
        0.2, "", "Part of a clip's patches that the student encodes.", title="Kept patches", gt=0, lt=1
    )
    surplus: float = setting(
        0.07,
        "",
        "Part of the patches by which the drawn blocks exceed the kept part, as they overlap.",
        title="Surplus",
        ge=0,
        lt=1,
    )
    block: int = setting(5, "patches", "Side of a kept block.", title="Block", ge=1, le=8)
    clones: int = setting(
        16, "masks", "Masks of each clip in a step; they share one pass of the teacher.", title="Clones", ge=1, le=256
    )


class TeacherRecipe(Section):
    """The running average of the student that makes the targets."""

    decay: float = setting(
        0.9998, "", "Part of the teacher that stays at a step, at the start.", title="First decay", ge=0, lt=1
    )
    final_decay: float = setting(0.99999, "", "The same after the rise.", title="Last decay", ge=0, lt=1)
    rise_steps: int = setting(100_000, "steps", "Steps over which the decay rises linearly.", title="Rise", ge=1)


class DecoderRecipe(Section):
    """The convolutions that fill in what the student did not see; thrown away afterwards."""

    layers: int = setting(6, "layers", "Convolutions.", title="Layers", ge=1, le=24)
    kernel: Literal[1, 3, 5, 7] = setting(3, "patches", "Side of a convolution's kernel.", title="Kernel")
    groups: int = setting(
        16, "groups", "Groups of a convolution; must divide the encoder's channels.", title="Groups", ge=1
    )
    noise: float = setting(
        0.01, "", "Deviation of the noise that stands for a masked patch.", title="Noise", ge=0, le=10
    )
    warmup_steps: int = setting(
        0,
        "steps",
        "Steps in which the decoder learns alone, before the encoder moves: for weights that come without a decoder.",
        title="Decoder alone",
        ge=0,
    )


class PretrainRecipe(Section):
    """Self-supervised pre-training: the utterance-frame objective of EAT (paper, section 2.2)."""

    steps: int = setting(0, "steps", "Updates; 0 leaves the stage out.", title="Steps", ge=0)
    years: tuple[int, ...] = setting(
        (),
        "",
        "Years of the data sets to learn from, empty for all; a clip whose folder does not say its year is always taken.",
        title="Years",
    )
    batch_clips: int = setting(16, "clips", "Clips of a step, over all devices.", title="Batch", ge=1, le=65_536)
    micro_clips: int = setting(
        0,
        "clips",
        "Clips that a device takes at a time, their gradients summed to those of a step: the same result in less memory; 0 for all.",
        title="Clips at a time",
        ge=0,
        le=65_536,
    )
    crop_frames: int = setting(
        1024,
        "frames",
        "Piece of a clip that is trained on (10 ms a frame), cut at random where the clip is longer than it.",
        title="Piece",
        ge=2 * FRAMES_OF_A_PATCH,
        le=1024,
        multiple_of=FRAMES_OF_A_PATCH,
    )
    gain_db: float = setting(0.0, "dB", "Largest random gain of a piece, up or down.", title="Gain", ge=0, le=60)
    utterance_weight: float = setting(
        1.0,
        "",
        "Weight of the utterance loss beside the frame loss, which is a mean over masked patches.",
        title="Utterance weight",
        ge=0,
        le=100_000,
    )
    utterance_reduction: Literal["sum", "mean"] = setting(
        "sum",
        "",
        "How the utterance losses of a step's masked clips (batch_clips x clones of them) become one: their sum, as in the released "
        "code, or their mean.",
        title="Utterance reduction",
    )
    mask: MaskRecipe = setting(MaskRecipe(), "", "Masks.", title="Masks")
    teacher: TeacherRecipe = setting(TeacherRecipe(), "", "Teacher.", title="Teacher")
    decoder: DecoderRecipe = setting(DecoderRecipe(), "", "Decoder.", title="Decoder")
    optimiser: OptimiserRecipe = setting(
        OptimiserRecipe(name="adam", learning_rate=5e-5, weight_decay=0.0, clip_norm=4.0),
        "",
        "Optimiser and schedule.",
        title="Optimiser",
    )
