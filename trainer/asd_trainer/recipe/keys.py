"""What recipes are built from: sections, keys with unit and bounds, and the part that every learning stage has.

Owns no stage and no file.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def setting(default: Any, unit: str, description: str, **bounds: Any) -> Any:
    """A key of the recipe with its default, unit ("" where it has none), one sentence, and bounds as pydantic names them."""
    return Field(default=default, description=description, json_schema_extra={"unit": unit}, **bounds)


class OptimiserRecipe(Section):
    """How the weights are moved."""

    name: Literal["adam", "adamw"] = setting(
        "adamw", "", "Adam, or Adam with decoupled weight decay (biases and norms never decay).", title="Optimiser"
    )
    learning_rate: float = setting(
        5e-4, "", "Learning rate at the end of the warm-up.", title="Peak learning rate", gt=0, le=1
    )
    final_ratio: float = setting(
        0.01, "", "Learning rate at the end, as a part of the peak (cosine).", title="Final rate", ge=0, le=1
    )
    warmup_ratio: float = setting(
        0.1, "", "Part of all steps over which the learning rate rises from 0.", title="Warm-up", ge=0, lt=1
    )
    weight_decay: float = setting(0.05, "", "Weight decay.", title="Weight decay", ge=0, le=10)
    betas: tuple[float, float] = setting((0.9, 0.95), "", "Decay of the first and second moments.", title="Betas")
    clip_norm: float = setting(
        1.0, "", "Largest norm of a gradient; 0 leaves gradients as they are.", title="Gradient clip", ge=0
    )
    mixed_precision: Literal["no", "bf16"] = setting(
        "no", "", "Number format of the forward pass.", title="Mixed precision"
    )
    recompute: bool = setting(
        False,
        "",
        "Keep only what enters a block, and compute what lies between again backwards: the same result in a fraction of the memory, a "
        "third slower.",
        title="Activation checkpointing",
    )
    checkpoint_steps: int = setting(
        100, "steps", "Steps between checkpoints; a killed run goes on from the last one.", title="Checkpoints", ge=1
    )
