"""Which clips a stage of a run learns from, and how many: known before any stage has made one.

Owns years and counts. It reads no sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asd_daemon.errors import DataSetError, UsageError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, class_labels, training_clips
from asd_trainer.data.fetch import YEARS
from asd_trainer.finetune.training_set import background_noises
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.separate import guidance
from asd_trainer.separate.far_noise import refuse_without_far
from asd_trainer.separate.stage import guided_machines


def stage_table(name: str, recipe: Recipe, table: ClipTable) -> ClipTable:
    """The clips that a stage may learn from: those of the years that the recipe gives it.

    Raises:
        DataSetError: a year that the recipe names is not in the data; names the key and the years that there are.
    """
    key, years = ("pretrain.years", recipe.pretrain.years) if name == "pretrain" else ("years", recipe.years)
    return of_years(table, years, key)


def of_years(table: ClipTable, years: Sequence[int], key: str = "") -> ClipTable:
    """The clips of some years, all where none is named; a clip that does not say its year is of every year.

    Args:
        table: of clips.
        years: to keep.
        key: of the recipe, which names these years because it learns from each of them.

    Raises:
        DataSetError: no clip is of these years or, with a key, of one of them; names those that there are.
    """
    if not years:
        return table
    kept = tuple(clip for clip in table.clips if clip.year is None or clip.year in years)
    known = {clip.year for clip in table.clips if clip.year is not None}
    there = ", ".join(map(str, sorted(known)))
    missing = [year for year in sorted(set(years)) if year not in known]
    if table.clips and not kept:
        wanted = ", ".join(map(str, years))
        raise DataSetError(
            f"the recipe takes recordings of {wanted}, and all there are of {there}: change {key or 'years'}, or --data"
        )
    if key and known and missing:
        raise DataSetError(
            f"{key}: {', '.join(map(str, missing))} is not in the data, which has {there}: change the key, or add the data "
            "(--data, or --fetch DIR)"
        )
    return ClipTable(kept, table.problems)


def pretraining_clips(table: ClipTable) -> tuple[Clip, ...]:
    """Training and supplemental clips that are not known to be anomalous, in an order that does not depend on the file system.

    Raises:
        DataSetError: there are none.
    """
    clips = [clip for clip in table.clips if clip.split != "test" and clip.label != "anomaly"]
    if not clips:
        raise DataSetError(
            "the data has no recording to pre-train on: expected files under <machine>/train/, or a plain folder"
        )
    return tuple(sorted(clips, key=lambda clip: str(clip.path)))


def years_learned_from(recipe: Recipe) -> tuple[int, ...]:
    """The years that the stages of a recipe learn from, all that are published where a stage that is done takes all; none where all do."""
    pretrains = recipe.pretrain.steps > 0
    if not recipe.years and not (pretrains and recipe.pretrain.years):
        return ()
    if not recipe.years or (pretrains and not recipe.pretrain.years):
        return YEARS
    return tuple(sorted({*recipe.years, *(recipe.pretrain.years if pretrains else ())}))


def years_to_fetch(recipe: Recipe) -> tuple[int, ...]:
    """The same, for `--fetch`.

    Raises:
        UsageError: the recipe names no years, or one that was never published.
    """
    years = years_learned_from(recipe)
    if not years:
        raise UsageError("--fetch: the recipe names no years to fetch; set them, for example with --set years=[2025]")
    unknown = [year for year in years if year not in YEARS]
    if unknown:
        key = "years" if unknown[0] in recipe.years else "pretrain.years"
        raise UsageError(f"{key}: {unknown[0]} has no public data; there are {YEARS[0]} to {YEARS[-1]}")
    return years


def separated_clips(recipe: Recipe, table: ClipTable) -> tuple[Clip, ...]:
    """Training clips of the machines that the run separates."""
    guided = guided_machines(recipe.separate, table)
    return tuple(clip for clip in training_clips(table) if clip.machine in guided)


@dataclass(frozen=True)
class Workload:
    """What a stage that learns is given."""

    clips: int
    """Clips, or for the separator networks, that it learns from or makes."""
    batch: int
    """Clips or mixtures of a step, over all processes."""
    steps: int
    classes: int = 0
    """That fine-tuning tells apart."""
    noises: int = 0
    """Noise-only clips that need features of their own."""


def workload(name: str, recipe: Recipe, table: ClipTable) -> Workload:
    """What a stage that learns is given, of the clips that it may learn from.

    Raises:
        DataSetError: nothing to learn from.
    """
    if name == "separate":
        guided = guided_machines(recipe.separate, table)
        if not guided:
            guidance.materials(())  # says what is missing
        for one in guided.values():
            refuse_without_far(one.far, recipe.separate.far_channel)
        networks = 1 if recipe.separate.networks == "one" else len(guided)
        return Workload(networks, recipe.separate.batch_mixtures, networks * recipe.separate.steps)
    if name == "pretrain":
        count = len(pretraining_clips(table))
        steps = recipe.pretrain.steps + recipe.pretrain.decoder.warmup_steps
        return Workload(count, min(recipe.pretrain.batch_clips, count), steps)
    settings = recipe.distil if name == "distil" else recipe.finetune
    count = learned_count(recipe, table)
    batch = min(settings.batch_clips, count)
    noises = sum(clip.supplement == "noise" for clip in background_noises(recipe, table))
    classes = len(class_labels(training_clips(table))[1]) if name == "finetune" else 0
    return Workload(count, batch, settings.epochs * (count // batch), classes, noises)


def learned_count(recipe: Recipe, table: ClipTable) -> int:
    """Clips that distillation and fine-tuning learn from."""
    count = len(training_clips(table)) + recipe.synthesize.clips
    if recipe.separate.enabled and recipe.finetune.separated:
        count += len(separated_clips(recipe, table))
    return count
