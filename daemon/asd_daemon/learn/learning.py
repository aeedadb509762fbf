"""Vectors of a healthy machine's windows → what it is judged by: fitted views with their weights, calibration.

Owns learning a machine, for the exporter and the box alike. The views and their metric are the same for every machine; only the weights of
the two families differ (view_families.py). It hears nothing, keeps nothing, and needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.distances.fusion import Family, Fusion
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED
from asd_daemon.judge.thresholds.calibration import Calibration, calibrate_fused
from asd_daemon.learn.embedding_share import with_embeddings
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.reference_sounds import reference_vectors
from asd_daemon.learn.view_families import movement_contrast, view_families

F32 = NDArray[np.float32]

LEAST_WINDOWS = 16
STRETCHES = 4
LEAST_DEVIATION = 1e-3  # of one component of a view over normal windows; views are logarithms


@dataclass(frozen=True)
class LearnedMachine:
    """What a machine is judged by from now on."""

    fusion: Fusion
    weights: tuple[tuple[str, float], ...]
    """Its views, each once."""
    calibration: Calibration
    contrast: float | None
    """How far other machines' sounds lie from its own in the views of movement; None where it has no such view."""
    drift: float
    """Median score of a stretch of time by the views fitted to the others; 1 where the machine sounds the same all the time."""
    held_out: F32
    """(N,), what the windows themselves score by views fitted without them."""


def learn(
    sound: NormalSound, on_progress: Callable[[str], None] = lambda _: None, *, embedding_share: float = 0.0
) -> LearnedMachine:
    """Weigh the views, fit them, and calibrate their score. Copies of a window count once.

    Args:
        sound: normal windows.
        on_progress: called with what is at hand, for it may take minutes on a small board.
        embedding_share: how far its embeddings are believed beside the views (embedding_share.py); 0: they are not looked at.

    Raises:
        DataSetError: fewer than LEAST_WINDOWS windows that are no copies of one another.
    """
    rows, which = sound.distinct_windows()
    if sound.windows >= LEAST_WINDOWS > len(rows):
        raise DataSetError(
            f"{sound.windows - len(rows)} of {sound.windows} windows are copies of others: at least {LEAST_WINDOWS} different"
            " ones are needed to learn how the sound varies"
        )
    if len(rows) < sound.windows:
        learned = learn(sound.subset(rows), on_progress, embedding_share=embedding_share)
        return replace(learned, held_out=learned.held_out[which])
    if sound.windows < LEAST_WINDOWS:
        raise DataSetError(
            f"{sound.windows} usable windows are too few to learn from; at least {LEAST_WINDOWS} are needed"
        )
    families, contrast = families_of(sound)
    embeddings = [view for view in (HEARD, SEPARATED) if view in sound.vectors]
    families = with_embeddings(families, embedding_share, embeddings)
    on_progress(
        f"learning from {sound.windows} windows: fitting {sum(len(family.weights) for family in families)} views"
    )
    fusion, held_out = Fusion.fit_held_out(families, sound.vectors, sound.domains)
    on_progress(f"learning from {sound.windows} windows: trying what was learned on each quarter of the time")
    stretches = _stretch_scores(families, sound)
    drift = float(np.median(stretches))
    shares = [weight * fusion.shares[family] for weight, family in zip(fusion.weights, fusion.families, strict=True)]
    weights = tuple((view, round(share, 4)) for view, share in zip(fusion.names(), shares, strict=True))
    return LearnedMachine(fusion, weights, calibrate_fused(held_out), contrast, drift, held_out)


def families_of(sound: NormalSound) -> tuple[tuple[Family, ...], float | None]:
    """The families of views that a machine is judged by, and the contrast of its movement.

    Raises:
        DataSetError: the windows sound exactly alike.
    """
    contrast = movement_contrast(sound.vectors, reference_vectors())
    varying = [view for view in VIEW_NAMES if view in sound.vectors and _varies(sound, view)]
    if not varying:
        raise DataSetError(
            f"{sound.windows} windows sound exactly alike: there is nothing to learn how the sound varies"
        )
    return view_families(varying, contrast), contrast


def _varies(sound: NormalSound, view: str) -> bool:
    """Whether normal windows differ in a view: behind a noise gate nothing is steady, all are alike, and any breath would be a failure."""
    return float(sound.vectors[view][:, 0].std(axis=0, dtype=np.float64).max()) > LEAST_DEVIATION


def _stretch_scores(families: Sequence[Family], sound: NormalSound) -> F32:
    """Scores (N,) of quarters of the time by views fitted to the other three; inside each domain."""
    scores = np.empty(sound.windows, np.float32)
    stretch = np.zeros(sound.windows, int)
    for domain in np.unique(sound.domains):
        inside = np.flatnonzero(sound.domains == domain)
        stretch[inside] = np.arange(inside.shape[0]) * STRETCHES // inside.shape[0]
    for number in range(STRETCHES):
        out = stretch == number
        fusion = Fusion.fit(families, {v: x[~out] for v, x in sound.vectors.items()}, sound.domains[~out])
        scores[out] = fusion.score({v: x[out, 0] for v, x in sound.vectors.items()})
    return scores
