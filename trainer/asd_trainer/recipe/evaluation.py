"""The part of a recipe that says how its runs are evaluated.

Owns the keys with their units, bounds and sentences. It scores nothing.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from asd_trainer.recipe.keys import Section, setting

Channel = Annotated[int, Field(ge=0, lt=64)]


def _two(channels: tuple[int, int]) -> tuple[int, int]:
    if channels[0] == channels[1]:
        raise ValueError("the far microphone must be another channel than the near one")
    return channels


class EvaluateRecipe(Section):
    """Scores of recordings of two microphones, `asd-train evaluate --score residual`."""

    far_weight: float = setting(
        0.5,
        "",
        "How much of the far microphone's embedding is taken from the near one's (α of near − α · far).",
        title="Weight of the far microphone",
        ge=0,
        lt=1,
    )
    channels: Annotated[tuple[Channel, Channel], AfterValidator(_two)] = setting(
        (0, 1),
        "",
        "Channels of the microphone at the machine and of the one far from it, counted from 0.",
        title="Channels",
    )
