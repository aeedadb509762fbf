"""The model card of a bundle: what it is, what it learned from, what it is worth, and what it should not be used for.

Owns the page's words. Everything on it is read from the manifest and the run; nothing is measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.errors import DataSetError, SettingsError, StageError, UsageError
from asd_daemon.judge.bundle.manifest import Manifest
from asd_export.models import MeasuredModel
from asd_trainer.cli.options import read_table, remembered_data
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.stages import stages_of
from asd_trainer.training.run_folder import read_run_recipe

CARD = "MODEL_CARD.md"
NO_MODELS = "None: its machines are judged by views of their sound that need no model and were not trained."


@dataclass(frozen=True)
class Learning:
    """What a run's models learned from."""

    recipe: Recipe
    data: Mapping[str, int]
    """Clips to learn from in each machine's folder; empty where the recordings are no longer there."""
    sets: tuple[str, ...]
    """Names of the data sets, without the folders they lie in."""

    @classmethod
    def of(cls, run: Path) -> Learning | None:
        """Read from a run's folder and, where they are still there, its recordings; None where the run does not say."""
        try:
            recipe = read_run_recipe(run)
        except (StageError, SettingsError):
            return None
        try:
            roots = remembered_data(run)
            table = read_table(roots)
        except (StageError, UsageError, DataSetError):
            return cls(recipe, {}, ())
        clips = [clip for clip in table.clips if clip.split != "test"]
        counts = {machine: sum(clip.machine == machine for clip in clips) for machine in table.machines}
        return cls(recipe, counts, tuple(Path(root).name for root in roots))


def write_card(
    folder: Path,
    manifest: Manifest,
    embedder: MeasuredModel | None,
    separator: MeasuredModel | None,
    learning: Learning | None,
) -> None:
    """Write MODEL_CARD.md into a bundle's folder, before its files are listed in the manifest."""
    blocks = [
        f"# {manifest.name} {manifest.version}",
        "A bundle of asd-edge: it scores how far 10 s of a machine's sound are from the normal sound that it knows. Made "
        f"{manifest.created[:10]} with asd-edge {manifest.made_with.get('asd-edge', 'unknown')}.",
        f"**Licence.** {manifest.licence}",
        *_learned(learning),
        "## Models",
        *(_models("embedder", embedder) if embedder is not None else (NO_MODELS,)),
        *(_models("separator", separator) if separator is not None else ()),
        "## Machines",
        *_machines(manifest),
        "## Use",
        "For hearing that a machine no longer sounds as it did, by the microphone and in the place that it was learned with. A machine "
        "that is not listed is learned on the box with `asd-daemon enroll`. A score says how unusual a sound is and never why, and no "
        "alert is no proof of health: it replaces no guard, no inspection and no safety function. Sound that was not heard in learning "
        "(another product, season or place) scores high until it is learned too.",
    ]
    (folder / CARD).write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def _learned(learning: Learning | None) -> list[str]:
    if learning is None:
        return []
    recipe = learning.recipe
    stages = ", ".join(stages_of(recipe))
    words = [f"Recipe: {recipe.description or 'not described'} Stages: {stages}; seed {recipe.seed}."]
    weights = recipe.encoder.weights or "none: every weight began at random"
    words.append(f"Weights that it began with: {weights}.")
    if learning.data:
        counts = ", ".join(f"{machine} {count}" for machine, count in learning.data.items())
        words.append(f"Recordings ({', '.join(learning.sets)}), clips of each machine: {counts}.")
    else:
        words.append("The recordings were no longer there when the bundle was made.")
    return ["## What it learned from", *words]


def _models(name: str, tried: MeasuredModel) -> list[str]:
    first = f"{name}: ONNX against torch, largest difference {tried.torch_difference:.1e}."
    if not tried.candidates:
        return [first + " Unquantised."]
    rows = [
        "| model | kB | ms a window | largest change of a score | Ω on the test split | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for one in tried.candidates:
        omega = f"{one.omega:.1f}" if one.omega is not None else "–"
        verdict = "listens" if one.way == tried.chosen else (f"refused: {one.refused}" if one.refused else "")
        error = f"{one.score_error:.4f} ({one.score_error_share:.0%})"
        rows.append(f"| {one.way} | {one.bytes / 1000:.0f} | {one.window_ms:.1f} | {error} | {omega} | {verdict} |")
    return [first, "\n".join(rows)]


def _machines(manifest: Manifest) -> list[str]:
    thresholds = manifest.figures.get("thresholds", {})
    views = manifest.figures.get("views", {})
    weights = manifest.figures.get("embedder_weight", {})
    rows = ["| machine | normal clips | threshold | scored by | embedder's weight |", "|---|---:|---:|---|---|"]
    for name, entry in manifest.machines.items():
        chosen = views.get(name, {})
        by = ", ".join(f"{view} {weight:.0%}" for view, weight in chosen.items())
        plain = "nearest normal neighbour, heard and separated" if entry.separated else "nearest normal neighbour"
        weight = _weight(weights[name]) if name in weights else "–" if by else "1"
        rows.append(f"| {name} | {entry.vectors} | {thresholds.get(name, 0):.4f} | {by or plain} | {weight} |")
    words = "Thresholds are the provisional ones of a daemon that is to keep to one false alarm a week, two of three windows."
    blocks = [words, "\n".join(rows)]
    if weights:
        blocks.append(
            "The embedder's weight beside the views is found from normal clips alone: its embeddings must tell the machine from others, and"
            " changed copies of normal clips must stand out more with them than without, by twice the standard error. With weight 0 neither"
            " embedder nor separator is opened, and the score is that of the views; `scoring: paper` in the configuration judges by"
            " the distances alone."
        )
    return blocks


def _weight(evidence: Mapping[str, float]) -> str:
    """How far the embedder is believed, and what normal clips say of it."""
    return (
        f"{evidence['share']:g} (gain {evidence['gain']:+.3f} ± {evidence['standard_error']:.3f}, contrast"
        f" {evidence['contrast']:.1f})"
    )
