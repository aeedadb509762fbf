"""Log-mels of many clips, computed once and kept in a file that is mapped into memory.

Owns the cache of a run. What a log-mel is, `asd_daemon` says (`judge.features.log_mel`); training changes it in `finetune.augmentation`.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError, StageError
from asd_daemon.judge.features.common_band import COMMON_BAND_HZ
from asd_daemon.judge.features.log_mel import ENERGY_FLOOR, FEATURE, MEL_BINS, eat_input, log_mel
from asd_daemon.judge.features.power_spectrum import frame_count
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.data.dataset import Clip, load_clip
from asd_trainer.data.feature_rows import ComputedRows
from asd_trainer.data.workers import workers
from asd_trainer.training.progress import counted_steps

log = logging.getLogger(__name__)

CLIP_FRAMES = frame_count(WINDOW_SAMPLES)  # 998


def clip_log_mels(clips: Sequence[Clip], channel: int = 0) -> Iterator[NDArray[np.float32]]:
    """The log-mel (998, 128) of the common band of one channel of each clip in order, computed by whoever is at work (`workers`).

    Raises:
        RecordingError: a clip can't be read; names the file.
    """
    return workers().each(_clip_log_mel, clips, channel)


def clip_inputs(
    clips: Sequence[Clip], hears: Literal["features", "waveform"], channel: int = 0
) -> Iterator[NDArray[np.float32]]:
    """What an embedder hears of each clip in order: EAT's normalised log-mel (1024, 128), or the waveform (160 000,).

    Raises:
        RecordingError: a clip can't be read; names the file.
    """
    if hears == "waveform":
        return workers().each(load_clip, clips, channel)
    return (eat_input(features) for features in clip_log_mels(clips, channel))


def _clip_log_mel(clip: Clip, channel: int) -> NDArray[np.float32]:
    try:
        return log_mel(load_clip(clip, channel))
    except RecordingError as e:
        raise RecordingError(str(e) if str(clip.path) in str(e) else f"{clip.path}: {e}") from e


def cached_log_mels(clips: Sequence[Clip], folder: Path) -> NDArray[np.float32]:
    """Log-mels (N, 998, 128) of clips, mapped read-only from a file in the folder that is made when it is not there yet.

    The file's name follows from the clips (path, size, time of change) and the feature's definition, so that a cache never serves
    other sound than it was made from. Of several processes that want the same, one makes it and the others wait.

    Raises:
        RecordingError: a clip can't be read.
        StageError: the cache can't be written (no space, no rights).
    """
    return _cached("log-mel", clips, folder, (CLIP_FRAMES, MEL_BINS), clip_log_mels)


def cached_waveforms(clips: Sequence[Clip], folder: Path) -> NDArray[np.float32]:
    """Waveforms (N, 160 000) of clips, likewise."""
    return _cached("waveform", clips, folder, (WINDOW_SAMPLES,), lambda each: clip_inputs(each, "waveform"))


def computed_log_mels(clips: Sequence[Clip]) -> ComputedRows:
    """Log-mels (N, 998, 128) that no disk has to hold: computed whenever they are asked for."""
    return ComputedRows(clips, clip_log_mels, (CLIP_FRAMES, MEL_BINS))


def computed_waveforms(clips: Sequence[Clip]) -> ComputedRows:
    """Waveforms (N, 160 000), likewise."""
    return ComputedRows(clips, lambda each: clip_inputs(each, "waveform"), (WINDOW_SAMPLES,))


Rows = Callable[[Sequence[Clip]], Iterator[NDArray[np.float32]]]


def _cached(
    what: str, clips: Sequence[Clip], folder: Path, of_clip: tuple[int, ...], rows: Rows
) -> NDArray[np.float32]:
    path = folder / f"{what}-{clips_digest(clips)}.npy"
    shape = (len(clips), *of_clip)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _claimed(path.with_suffix(".lock")):
            mapped = _mapped(path, shape)
            if mapped is None:
                _make_room(folder, 4 * math.prod(shape))
                _write(path, what, rows(clips), shape)
                mapped = _mapped(path, shape)
    except OSError as e:
        raise StageError(f"{path}: the cache of {what}s can't be written: {e.strerror or e}") from e
    if mapped is None:
        raise StageError(f"{path}: the cache of {what}s can't be read back; is the disk sound?")
    return mapped


def _write(path: Path, what: str, rows: Iterator[NDArray[np.float32]], shape: tuple[int, ...]) -> None:
    """Row after row, so that memory stays flat and a full disk is an error rather than a dead process (as through a map)."""
    log.info("computing the %ss of %d clips (%.1f GB)", what, shape[0], 4e-9 * math.prod(shape))
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file, counted_steps(f"{what}s (clips)", shape[0]) as advance:
            header = {
                "descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)),
                "fortran_order": False,
                "shape": shape,
            }
            np.lib.format.write_array_header_1_0(file, header)
            for row, features in enumerate(rows, start=1):
                file.write(np.ascontiguousarray(features, np.float32).data)
                advance(row, {})
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _mapped(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """The file mapped read-only, if it is there and whole."""
    try:
        mapped: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return mapped if mapped.shape == shape and mapped.dtype == np.float32 else None


def _make_room(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise StageError(
            f"{folder}: the cache of log-mels needs {needed_bytes / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room there, "
            "or give --set features=compute"
        )


@contextmanager
def _claimed(lock: Path) -> Iterator[None]:
    """Hold a lock among processes; it goes with the process that holds it."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def clips_digest(clips: Sequence[Clip]) -> str:
    """16 hexadecimal digits that change when a clip, a file behind it, or the feature's definition changes.

    Of clips in shards they follow from what the shards hold, not from where they lie.

    Raises:
        RecordingError: a file has gone.
    """
    digest = hashlib.sha256(f"{FEATURE.model_dump_json()} {COMMON_BAND_HZ}".encode())
    for clip in clips:
        if clip.shard is not None:
            digest.update(f"\n{clip.shard.sha256}\t{clip.row}".encode())
            continue
        try:
            status = clip.path.stat()
        except OSError as e:
            raise RecordingError(f"{clip.path}: can't be read: {e.strerror}") from e
        digest.update(f"\n{clip.path}\t{status.st_size}\t{status.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


LOG_FLOOR = math.log(ENERGY_FLOOR)


NEPERS_PER_DB = math.log(10.0) / 10.0  # of power: what a log-mel moves by when the sound gets 1 dB louder
