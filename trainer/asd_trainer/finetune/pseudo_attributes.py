"""Pseudo-attributes: normal clips of machines that say nothing of their operating conditions, told apart by how they sound.

Owns the grouping and its words. Groups stand in the place of attributes as classes to be told apart (Ward clusters: arXiv 2509.12845).
Their features are those of the clips' own log-mels, so that nothing has to be trained before.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_trainer.data.clip import Clip, MachineSection
from asd_trainer.data.feature_rows import FeatureRows

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Clusters = int | Literal["auto"]

NAME = "cluster"
MOST_AUTOMATIC = 8
LEAST_SILHOUETTE = 0.1
"""Below it a cut goes through a shapeless cloud. It does not prove groups: finer classes than there are conditions do little harm."""
CLIPS_A_CLUSTER = 4  # of the smallest group that is cut
MOST_LINKED = 4000  # Ward's linkage keeps all pairs; what is beyond goes to the nearest mean
SEED = 0


def with_pseudo_attributes(
    clips: Sequence[Clip], log_mels: FeatureRows, originals: int, clusters: Clusters
) -> tuple[Clip, ...]:
    """The clips, those of a unit and domain without any attributes with the attribute `cluster` in their place.

    Args:
        clips: to learn from, recordings before what was made of them.
        log_mels: their features in the same order, (N, T, 128).
        originals: how many are recordings; a clip that was made of one and bears its name goes with it, another to the nearest cluster.
        clusters: how many for each unit and domain, or as many as lie apart, at most eight.
    """
    groups: defaultdict[tuple[MachineSection, str], list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        groups[clip.unit, clip.domain or "-"].append(row)
    named = list(clips)
    for (unit, domain), rows in sorted(groups.items()):
        if any(clips[row].attributes for row in rows):
            continue
        own = [row for row in rows if row < originals]
        labels = (
            cluster(np.stack([described(log_mels[row]) for row in own]), clusters) if own else np.zeros(0, np.int64)
        )
        count = len(set(labels.tolist()))
        if count < 2:
            continue
        log.info("finetune: %s, %s: %d clips without attributes in %d clusters", unit.machine, domain, len(own), count)
        for row, label in _spread(clips, log_mels, rows, own, labels).items():
            named[row] = replace(clips[row], attributes=((NAME, str(label)),))
    return tuple(named)


def described(log_mel: F32) -> F32:
    """A clip (T, 128) by mean and deviation over time of each band, its level removed, (256,)."""
    mean, deviation = log_mel.mean(axis=0), log_mel.std(axis=0)
    return np.concatenate([mean - mean.mean(), deviation]).astype(np.float32)


def cluster(features: F32, clusters: Clusters) -> I64:
    """The cluster of each row (N, D), int64 (N,), counted from 0; all 0 where there are too few rows or no clusters."""
    linked = np.sort(np.random.default_rng(SEED).permutation(features.shape[0])[:MOST_LINKED])
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    if clusters == "auto":
        found = _apart(scaled[linked])
    else:
        wanted = min(clusters, features.shape[0] // CLIPS_A_CLUSTER)
        found = _ward(scaled[linked], wanted) if wanted > 1 else np.zeros(linked.shape[0], np.int64)
    means = np.stack([scaled[linked][found == label].mean(axis=0) for label in range(int(found.max()) + 1)])
    labels = _nearest(scaled, means)
    labels[linked] = found
    return labels


def _apart(scaled: F32) -> I64:
    """Clusters in the number whose silhouette is highest; one where none is high."""
    from sklearn.metrics import silhouette_score

    best, silhouette = np.zeros(scaled.shape[0], np.int64), LEAST_SILHOUETTE
    for wanted in range(2, min(MOST_AUTOMATIC, scaled.shape[0] // CLIPS_A_CLUSTER) + 1):
        labels = _ward(scaled, wanted)
        found = float(silhouette_score(scaled, labels))
        if found > silhouette:
            best, silhouette = labels, found
    return best


def _ward(scaled: F32, wanted: int) -> I64:
    from sklearn.cluster import AgglomerativeClustering  # 100 MB that few runs need

    labels = AgglomerativeClustering(n_clusters=wanted, linkage="ward").fit_predict(scaled)
    return np.asarray(labels, np.int64)


def _nearest(features: F32, means: F32) -> I64:
    away = np.stack([np.square(features - mean).sum(axis=1) for mean in means], axis=1)
    return np.asarray(away.argmin(axis=1), np.int64)


def _spread(
    clips: Sequence[Clip], log_mels: FeatureRows, rows: Sequence[int], own: Sequence[int], labels: I64
) -> dict[int, int]:
    """Labels of recordings carried over to what was made of them."""
    found = dict(zip(own, labels.tolist(), strict=True))
    by_name = {clips[row].path.stem: found[row] for row in own}
    features = np.stack([described(log_mels[row]) for row in own])
    means = np.stack([features[labels == label].mean(axis=0) for label in range(int(labels.max()) + 1)])
    for row in rows:
        if row not in found:
            named = by_name.get(clips[row].path.stem)
            near = _nearest(described(log_mels[row])[None], means)[0] if named is None else named
            found[row] = int(near)
    return found
