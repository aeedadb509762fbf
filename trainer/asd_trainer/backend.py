"""From embeddings to anomaly scores of test clips, as the paper does it (section 2.3).

Owns what only evaluation needs; the search is asd_daemon.judge.index, the same as on the edge. Higher scores are more abnormal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.index import ExactIndex
from asd_daemon.judge.mel import eat_input
from asd_trainer.classification import training_clips
from asd_trainer.dataset import Clip, ClipTable
from asd_trainer.embedder import Embedder, load_embedder
from asd_trainer.features import clip_log_mels

BATCH_CLIPS = 16


@dataclass(frozen=True)
class ScoredClip:
    """A test clip with its score."""

    clip: Clip
    score: float
    """Cosine distance to the nearest normal training clip of its machine, in [0, 2]; higher is more abnormal."""


def embed_clips(embedder: Embedder, clips: Sequence[Clip]) -> NDArray[np.float32]:
    """Embeddings (N, D) of clips in order, each of unit length.

    Raises:
        RecordingError: a clip can't be read; names the file.
    """
    device = next(embedder.parameters()).device
    embedded = np.empty((len(clips), embedder.shape.dimensions), np.float32)
    inputs = (eat_input(features) for features in clip_log_mels(clips))
    with torch.inference_mode():
        for start, batch in enumerate(_batches(inputs)):
            rows = embedder(torch.from_numpy(batch).to(device))
            embedded[start * BATCH_CLIPS : start * BATCH_CLIPS + len(batch)] = rows.cpu().numpy()
    return embedded


def _batches(inputs: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    while batch := list(islice(inputs, BATCH_CLIPS)):
        yield np.stack(batch)


def score_run(run: Path, table: ClipTable) -> tuple[ScoredClip, ...]:
    """Score every test clip against all normal training clips of its machine (k = 1, cosine).

    Raises:
        StageError: the run holds no trained embedder.
        DataSetError: there are no test clips, or a machine has test clips and no training clips.
        RecordingError: a clip can't be read.
    """
    embedder = load_embedder(run)
    train, test = by_machine(training_clips(table)), by_machine(table.select(split="test"))
    if not test:
        raise DataSetError(
            "the data has no test clips, so there is nothing to evaluate; expected files under <machine>/test/"
        )
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise DataSetError(
            f"{', '.join(unknown)}: test clips without any normal training clip of the machine to compare them with"
        )
    scored: list[ScoredClip] = []
    for machine, clips in test.items():
        index = ExactIndex(embed_clips(embedder, train[machine]))
        distances, _ = index.nearest(embed_clips(embedder, clips), k=1)
        scored.extend(ScoredClip(clip, float(distance)) for clip, distance in zip(clips, distances[:, 0], strict=True))
    return tuple(scored)


def by_machine(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """Clips of each machine, machines in alphabetical order, clips in the order given."""
    machines: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        machines[clip.machine].append(clip)
    return dict(sorted(machines.items()))
