"""What an embedder learns from: clips, their cached features, and the noise that is mixed in.

Owns how these are put together for a stage of a run. Which clips there are is the other stages' business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, training_clips
from asd_trainer.data.feature_rows import FeatureRows
from asd_trainer.data.features import cached_log_mels, cached_waveforms, computed_log_mels, computed_waveforms
from asd_trainer.finetune.background import Background, noise_choices, noise_recordings
from asd_trainer.finetune.pseudo_attributes import with_pseudo_attributes
from asd_trainer.recipe.encoder import EAT
from asd_trainer.recipe.recipe import Features, Recipe
from asd_trainer.separate.stage import finetuning_clips
from asd_trainer.training.processes import processes


@dataclass(frozen=True)
class TrainingSet:
    """Clips to learn from."""

    clips: tuple[Clip, ...]
    log_mels: FeatureRows
    """Their features in the same order, (N, 998, 128); of an encoder with a front end of its own their waveforms, (N, 160 000)."""
    background: Background | None
    """What is mixed in as noise, where the recipe wants that."""


def training_set(recipe: Recipe, table: ClipTable, folder: Path) -> TrainingSet:
    """All that the stage of this folder learns from: original, separated and synthetic clips, and noise.

    Where the recipe asks for pseudo-attributes the clips bear them.

    Raises:
        DataSetError: there is no normal training clip, or nothing to mix in.
        StageError: a stage that the recipe asks for is not done, or the cache can't be written.
        RecordingError: a clip can't be read.
    """
    noises = background_noises(recipe, table)
    clips = finetuning_clips(recipe, table, folder.parents[1])
    heard = run_log_mels if recipe.encoder.name == EAT else run_waveforms
    log_mels = heard(clips, folder, recipe.features)
    named = clips
    if recipe.finetune.pseudo_attributes:
        originals = len(training_clips(table))
        described = log_mels if recipe.encoder.name == EAT else run_log_mels(clips, folder, recipe.features)
        named = with_pseudo_attributes(clips, described, originals, recipe.finetune.pseudo_attributes)
    if not noises:
        return TrainingSet(named, log_mels, None)
    learned = clips[: len(noises)] == noises  # recordings that are learned from, whose features are there
    noise_log_mels = log_mels if learned else heard(noises, folder, recipe.features)
    return TrainingSet(named, log_mels, Background(noises, noise_log_mels, noise_choices(clips, noises)))


def background_noises(recipe: Recipe, table: ClipTable) -> tuple[Clip, ...]:
    """The recordings that are mixed in as noise, none where the recipe does not want any.

    Raises:
        DataSetError: there is nothing to mix in, or no normal training clip.
    """
    if not recipe.finetune.augment.noise_probability:
        return ()
    return noise_recordings(table, training_clips(table))


def run_log_mels(clips: Sequence[Clip], folder: Path, features: Features) -> FeatureRows:
    """The log-mels of clips, (N, 998, 128): from the cache of the run that a stage's folder belongs to, made by one process, or computed.

    Raises:
        RecordingError: a clip can't be read.
        StageError: the cache can't be written.
    """
    if features == "compute":
        return computed_log_mels(clips)
    with processes().main_process_first():
        return cached_log_mels(clips, folder.parents[1] / "features")


def run_waveforms(clips: Sequence[Clip], folder: Path, features: Features) -> FeatureRows:
    """The waveforms of clips, likewise; (N, 160 000)."""
    if features == "compute":
        return computed_waveforms(clips)
    with processes().main_process_first():
        return cached_waveforms(clips, folder.parents[1] / "features")
