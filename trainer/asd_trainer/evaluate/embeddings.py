"""Embeddings of clips, and what a run keeps of them: RUN/scores/<model>-<clips>[-channel<n>].npy with a list of the clips
beside it.

Owns the forward pass over many clips and the cache, whose name follows from the model's weights, the clips' files and the feature's
definition: it never answers for another model or other sound. Scores are made of them elsewhere, in moments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asd_daemon.errors import StageError
from asd_trainer.data.clip import Clip
from asd_trainer.data.features import clip_inputs, clips_digest
from asd_trainer.networks.embedder import AnyEmbedder, load_embedder, model_digest
from asd_trainer.training.whole_file import fill_whole

F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]

BATCH_CLIPS = 16
FOLDER = "scores"


def embed_clips(
    embedder: AnyEmbedder,
    clips: Sequence[Clip],
    progress: Progress = lambda _done, _total: None,
    *,
    channel: int = 0,
) -> F32:
    """Embeddings (N, D) of clips in order, each of unit length; `progress` is told how many are done, of how many.

    Raises:
        RecordingError: a clip can't be read; names the file.
    """
    device = next(embedder.buffers()).device
    embedded = np.empty((len(clips), embedder.dimensions), np.float32)
    inputs = clip_inputs(clips, embedder.hears, channel)
    progress(0, len(clips))
    with torch.inference_mode():
        for start, batch in enumerate(_batches(inputs)):
            rows = embedder(torch.from_numpy(batch).to(device))
            embedded[start * BATCH_CLIPS : start * BATCH_CLIPS + len(batch)] = rows.cpu().numpy()
            progress(start * BATCH_CLIPS + len(batch), len(clips))
    return embedded


def _batches(inputs: Iterator[F32]) -> Iterator[F32]:
    while batch := list(islice(inputs, BATCH_CLIPS)):
        yield np.stack(batch)


def run_embeddings(
    run: Path, clips: Sequence[Clip], progress: Progress = lambda _done, _total: None, *, channel: int = 0
) -> F32:
    """Embeddings (N, D) of one channel of clips by a run's model: those that the run keeps, else made and kept.

    Raises:
        StageError: the run holds no trained embedder, or can't be written to.
        RecordingError: a clip can't be read.
    """
    embedder = load_embedder(run)
    model = model_digest(run)
    path = run / FOLDER / f"{model}-{clips_digest(clips)}{f'-channel{channel}' if channel else ''}.npy"
    kept = _kept(path, (len(clips), embedder.dimensions))
    if kept is not None:
        return kept
    embedded = embed_clips(embedder, clips, progress, channel=channel)
    try:
        path.parent.mkdir(exist_ok=True)
        for old in path.parent.glob("*-*.npy"):
            if not old.name.startswith(f"{model}-"):  # of a model that the run no longer has
                old.with_suffix(".json").unlink(missing_ok=True)
                old.unlink(missing_ok=True)
        fill_whole(path.with_suffix(".json"), lambda file: file.write(_described(clips).encode()))
        fill_whole(path, lambda file: np.save(file, embedded, allow_pickle=False))
    except OSError as e:
        raise StageError(f"{path}: can't be written: {e.strerror}") from e
    return embedded


def _kept(path: Path, shape: tuple[int, int]) -> F32 | None:
    """What lies there, if it is whole."""
    try:
        embedded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return embedded if embedded.shape == shape and embedded.dtype == np.float32 else None


def _described(clips: Sequence[Clip]) -> str:
    rows = [
        {"path": str(c.path), "machine": c.machine, "year": c.year, "section": c.section, "split": c.split}
        for c in clips
    ]
    return json.dumps({"schema": 1, "rows": rows}, indent=1, ensure_ascii=False) + "\n"
