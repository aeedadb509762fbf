"""The residual of two microphones: what the embedding of the near one has beyond that of the far one.

Owns near − α · far of embeddings and the question whether every clip has both channels. The far microphone hears the hall and little of
the machine, so that what both embeddings have in common is the hall's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, SettingsError
from asd_trainer.data.clip import Clip
from asd_trainer.data.sound import clip_objection
from asd_trainer.evaluate.embeddings import run_embeddings
from asd_trainer.training.run_folder import read_run_recipe

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class TwoMicrophones:
    """How a residual is made; what is None is as the run's recipe says (`evaluate.far_weight`, `evaluate.channels`)."""

    far_weight: float | None = None
    """α, 0 to below 1: 0 is the near microphone alone."""
    channels: tuple[int, int] | None = None
    """Near and far, counted from 0."""


def residual_of(near: F32, far: F32, far_weight: float) -> F32:
    """Near − α · far of embeddings (N, D) of unit length; (N, D), of unit length again.

    Raises:
        SettingsError: the weight is not in 0 to below 1, where nothing may be left.
    """
    if not 0 <= far_weight < 1:
        raise SettingsError(f"far_weight: {far_weight} must be at least 0 and below 1")
    left = near - np.float32(far_weight) * far
    return np.asarray(left / np.linalg.norm(left, axis=1, keepdims=True), np.float32)


def run_residual(
    run: Path, clips: Sequence[Clip], two: TwoMicrophones, progress: Callable[[int, int], None]
) -> tuple[F32, F32]:
    """Embeddings of the near microphone and residuals, both (N, D), of clips by a run's model.

    Raises:
        DataSetError: a clip lacks one of the channels; names the key and the file.
        StageError, RecordingError: as `run_embeddings`.
        SettingsError: as `residual_of`.
    """
    recipe = read_run_recipe(run).evaluate
    near_channel, far_channel = two.channels or recipe.channels
    for clip in clips:
        for channel in (near_channel, far_channel):
            objection = clip_objection(clip, channel)
            if objection is not None:
                raise DataSetError(
                    f"--score residual, evaluate.channels {near_channel},{far_channel}: {_named(objection, clip.path)}; "
                    "every clip needs a near and a far channel: name them with --channels NEAR,FAR, or use --score nearest"
                )
    near = run_embeddings(run, clips, lambda done, of: progress(done, 2 * of), channel=near_channel)
    far = run_embeddings(run, clips, lambda done, of: progress(of + done, 2 * of), channel=far_channel)
    weight = recipe.far_weight if two.far_weight is None else two.far_weight
    return near, residual_of(near, far, weight)


def _named(objection: str, path: Path) -> str:
    return objection if str(path) in objection else f"{path}: {objection}"
