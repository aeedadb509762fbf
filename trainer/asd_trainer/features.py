"""Log-mels of many clips, computed once and kept in a file that is mapped into memory.

Owns the cache of a run. The features themselves are asd_daemon.judge.mel's; augmentation is asd_trainer.augmentation's.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError, StageError
from asd_daemon.judge.mel import FEATURE, MEL_BINS, log_mel
from asd_daemon.judge.spectrum import frame_count
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.dataset import Clip, load_clip

log = logging.getLogger(__name__)

CLIP_FRAMES = frame_count(WINDOW_SAMPLES)  # 998
AHEAD = 32  # clips read ahead by the workers


def clip_log_mels(clips: Sequence[Clip]) -> Iterator[NDArray[np.float32]]:
    """The log-mel (998, 128) of each clip in order, read by as many threads as there are cores.

    Raises:
        RecordingError: a clip can't be read; names the file.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="log-mel") as workers:
        pending = iter(clips)
        running = [workers.submit(_clip_log_mel, clip) for clip in islice(pending, AHEAD)]
        while running:
            features = running.pop(0).result()
            running.extend(workers.submit(_clip_log_mel, clip) for clip in islice(pending, 1))
            yield features


def _clip_log_mel(clip: Clip) -> NDArray[np.float32]:
    try:
        return log_mel(load_clip(clip))
    except RecordingError as e:
        raise RecordingError(str(e) if str(clip.path) in str(e) else f"{clip.path}: {e}") from e


def cached_log_mels(clips: Sequence[Clip], folder: Path) -> NDArray[np.float32]:
    """Log-mels (N, 998, 128) of clips, mapped read-only from a file in the folder that is made when it is not there yet.

    The file's name follows from the clips (path, size, time of change) and the feature's definition, so that a cache never serves
    other sound than it was made from.

    Raises:
        RecordingError: a clip can't be read.
        StageError: the cache can't be written (no space, no rights).
    """
    path = folder / f"log-mel-{clips_digest(clips)}.npy"
    if not path.exists():
        log.info("computing the log-mels of %d clips", len(clips))
        partial = path.with_suffix(".partial")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            cache = np.lib.format.open_memmap(
                partial, mode="w+", dtype=np.float32, shape=(len(clips), CLIP_FRAMES, MEL_BINS)
            )
            for row, features in enumerate(clip_log_mels(clips)):
                cache[row] = features
            cache.flush()
            os.replace(partial, path)
        except OSError as e:
            raise StageError(f"{partial}: the cache of log-mels can't be written: {e.strerror}") from e
    mapped: NDArray[np.float32] = np.load(path, mmap_mode="r")
    return mapped


def clips_digest(clips: Sequence[Clip]) -> str:
    """16 hexadecimal digits that change when a clip, a file behind it, or the feature's definition changes.

    Raises:
        RecordingError: a file has gone.
    """
    digest = hashlib.sha256(FEATURE.model_dump_json().encode())
    for clip in clips:
        try:
            status = clip.path.stat()
        except OSError as e:
            raise RecordingError(f"{clip.path}: can't be read: {e.strerror}") from e
        digest.update(f"\n{clip.path}\t{status.st_size}\t{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
