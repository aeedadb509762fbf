"""The part of a recipe that says how its runs are evaluated.

Owns the keys with their units, bounds and sentences. It scores nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from asd_trainer.recipe.keys import Section, setting

Channel = Annotated[int, Field(ge=0, lt=64)]


def _two(channels: tuple[int, int]) -> tuple[int, int]:
    if channels[0] == channels[1]:
        raise ValueError("the far microphone must be another channel than the near one")
    return channels


BackEndName = Literal["nearest", "local", "variance", "domain", "mahalanobis", "principal", "auto"]


def _back_ends(names: tuple[BackEndName, ...]) -> tuple[BackEndName, ...]:
    if not names or len(set(names)) < len(names):
        raise ValueError("name at least one, and none twice")
    if "auto" in names and len(names) > 1:
        raise ValueError("auto chooses one by itself: name it alone")
    return names


class EvaluateRecipe(Section):
    """How `asd-train evaluate` scores a run's embeddings."""

    separation: Literal["auto", "always", "never"] = setting(
        "auto",
        "",
        "Whether the distance of the separated sound is added to that of the heard one (paper, section 2.3); auto asks each machine's "
        "normal clips.",
        title="Separated sound",
    )
    back_ends: Annotated[tuple[BackEndName, ...], AfterValidator(_back_ends)] = setting(
        ("nearest",),
        "",
        "What an embedding is judged by: the nearest normal one (paper, section 2.3); the same over its local density, less a part of it "
        "that makes normal scores vary least, or over the scale of its domain; Mahalanobis distance; what principal components leave. Of "
        "several the least standardised one counts; auto: what each machine's normal clips choose.",
        title="Back ends",
    )
    neighbours: int = setting(
        8, "clips", "Other normal clips that a local density is taken from.", title="Neighbours", ge=1, le=256
    )
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
