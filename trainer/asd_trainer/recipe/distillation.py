"""The part of a recipe that shapes distillation: from which teacher, and how long.

Owns the keys with their units, bounds and sentences. It trains nothing.
"""

from __future__ import annotations

from asd_trainer.recipe.keys import OptimiserRecipe, Section, setting


class DistilRecipe(Section):
    """Distillation: the embedder learns to give the embeddings of a larger one before it is fine-tuned."""

    teacher: str = setting(
        "",
        "",
        "Whose embeddings are learned: the folder of another run that is fine-tuned, or weights of EAT as in encoder.weights, pooled by "
        "their mean over patches; empty leaves the stage out.",
        title="Teacher",
    )
    epochs: int = setting(10, "epochs", "Passes over the clips of fine-tuning.", title="Epochs", ge=1, le=100_000)
    batch_clips: int = setting(32, "clips", "Clips of a step, over all devices.", title="Batch", ge=2, le=65_536)
    kept_patches: float = setting(
        1.0,
        "",
        "Part of a clip's patches that the student encodes, drawn anew each time; the teacher encodes all.",
        title="Kept patches",
        gt=0,
        le=1,
    )
    optimiser: OptimiserRecipe = setting(OptimiserRecipe(), "", "Optimiser and schedule.", title="Optimiser")
