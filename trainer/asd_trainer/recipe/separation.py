"""The parts of a recipe that shape separation and synthesis.

Owns the keys with their units, bounds and sentences. It trains nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from asd_trainer.recipe.keys import OptimiserRecipe, Section, setting


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the lower bound comes first")
    return bounds


Span = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""Lower and upper bound."""


class SeparateRecipe(Section):
    """The separator: SepReformer, guided by supplemental clips (paper, section 2.1)."""

    enabled: bool = setting(
        False, "", "Train a separator and separate the clips of the machines that it knows.", title="Separate"
    )
    size: Literal["edge", "tiny", "small", "base", "medium", "large"] = setting(
        "edge", "", "Size of SepReformer; edge is ours, the others are the published ones.", title="Size"
    )
    networks: Literal["one", "each"] = setting(
        "one", "", "One network for all machines, or one for each machine.", title="Networks"
    )
    guidance: Literal["clean", "any"] = setting(
        "any",
        "",
        "Which machines are separated: those with clean clips (the paper's), or also those with noise-only clips.",
        title="Guidance",
    )
    noise: Literal["supplemental", "far"] = setting(
        "supplemental",
        "",
        "Where noise comes from: noise-only clips, or these and, of recordings of two microphones, what the far one hears besides the "
        "machine.",
        title="Noise",
    )
    far_channel: int = setting(
        1, "", "The far microphone's channel, counted from 0; the near one is 0.", title="Far channel", ge=1, lt=64
    )
    steps: int = setting(1000, "steps", "Updates of each network.", title="Steps", ge=1)
    batch_mixtures: int = setting(8, "mixtures", "Mixtures of a step, over all devices.", title="Batch", ge=1, le=4096)
    crop_s: float = setting(3.0, "s", "Length of a mixture.", title="Mixture", ge=0.25, le=10)
    snr_db: Span = setting((-10.0, 10.0), "dB", "Machine over noise in a mixture.", title="Ratio")
    level_dbfs: Span = setting((-45.0, -15.0), "dBFS", "Level of a mixture (RMS).", title="Level")
    second_noise: float = setting(
        0.3, "", "Share of mixtures with two noises on top of each other.", title="Second noise", ge=0, le=1
    )
    noise_speed: Span = setting((0.8, 1.25), "", "Speed at which noises are played.", title="Noise speed")
    noisy_snr_db: Span = setting(
        (-2.0, 2.0),
        "dB",
        "Recording over added noise, for machines of which only the noise is known alone.",
        title="Ratio of noise-guided machines",
    )
    optimiser: OptimiserRecipe = setting(
        OptimiserRecipe(learning_rate=2e-3, clip_norm=5.0, weight_decay=0.01, betas=(0.9, 0.98), warmup_ratio=0.05),
        "",
        "Optimiser and schedule.",
        title="Optimiser",
    )


class SynthesizeRecipe(Section):
    """New clips: separated machines in the noise of other clips (paper, section 2.1)."""

    clips: int = setting(
        0,
        "clips",
        "Synthetic clips of all machines together, source to target 4:1; 0 leaves the stage out.",
        title="Clips",
        ge=0,
        multiple_of=5,
    )
