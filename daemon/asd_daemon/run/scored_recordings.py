"""Whole recordings, judged window by window as the daemon would; what can't be judged is said and never scored.

Owns how a recording is cut for that, in memory that does not grow with its length. It opens no bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError
from asd_daemon.hear.windows.quality import UnfitReason, unfit_reason
from asd_daemon.judge.scoring.verdict import Judge, heard_hall
from asd_daemon.sound_file import printable, sound_files
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S, WINDOW_SAMPLES, fit_length, read_blocks, read_both

F32 = NDArray[np.float32]
TAIL_S = 2.0
"""What is left after the last whole window is judged too, in a window that ends with the recording, if it is longer than this."""


@dataclass(frozen=True)
class ScoredWindow:
    """What became of a window of a recording."""

    start_s: float
    seconds: float
    """How much sound it holds, less than 10 in a short recording."""
    score: float | None
    """None where it is unusable, as are the next two."""
    threshold: float | None
    anomalous: bool | None
    unusable: UnfitReason | None = None
    """Why it can't be judged."""


def score_recording(
    judge: Judge, path: Path, channel: int = 0, hop_s: float = WINDOW_S, far: int | None = None
) -> Iterator[ScoredWindow]:
    """Judge a whole recording, window by window.

    Args:
        judge: of the machine.
        path: the recording.
        channel: counted from 0.
        hop_s: from the start of one window to the start of the next.
        far: channel of a second microphone, far from the machine; None: there is none.

    Raises:
        RecordingError: it can't be read; where it is damaged further on, the windows before have been given.
    """
    yield from score_blocks(judge, read_blocks(path, channel) if far is None else read_both(path, channel, far), hop_s)


def score_blocks(judge: Judge, blocks: Iterable[F32], hop_s: float = WINDOW_S) -> Iterator[ScoredWindow]:
    """Judge sound that comes in blocks, window by window.

    Args:
        judge: of the machine.
        blocks: one recording at 16 kHz, float32 (N,), or (N, 2) of two microphones, the near one first.
        hop_s: from the start of one window to the start of the next.

    Raises:
        whatever reading the next block raises; the windows before have been given by then.
    """
    for start_s, sound in recording_windows(blocks, hop_s):
        seconds = sound.shape[0] / SAMPLE_RATE_HZ
        reason = unfit_reason(sound if sound.ndim == 1 else np.ascontiguousarray(sound[:, 0]))
        if reason is not None:
            yield ScoredWindow(start_s, seconds, None, None, None, reason)
            continue
        verdict = judge.score(fit_length(sound))
        hall = heard_hall(verdict)
        if hall is not None and hall.drowns:
            yield ScoredWindow(start_s, seconds, None, None, None, UnfitReason.HALL)
            continue
        yield ScoredWindow(start_s, seconds, verdict.score, verdict.threshold, verdict.anomalous)


def recording_windows(blocks: Iterable[F32], hop_s: float = WINDOW_S) -> Iterator[tuple[float, F32]]:
    """Sound in blocks (N,) or (N, 2) → start in seconds and samples (160 000, …) of each window; one that is shorter is all there is."""
    hop = max(1, round(hop_s * SAMPLE_RATE_HZ))
    held, first = np.zeros(0, np.float32), 0  # samples at hand, and which of the recording the first one is
    due = 0  # where the next window begins
    for block in blocks:
        held = np.concatenate([held, block]) if held.shape[0] else block
        while first + held.shape[0] >= due + WINDOW_SAMPLES:
            yield due / SAMPLE_RATE_HZ, held[due - first : due - first + WINDOW_SAMPLES]
            due += hop
        spare = max(
            0, held.shape[0] - WINDOW_SAMPLES
        )  # the last window's worth stays, for the one that ends with the recording
        spare = min(spare, max(0, due - first))
        held, first = held[spare:], first + spare
    end = first + held.shape[0]
    judged_to = due - hop + WINDOW_SAMPLES
    if due == 0:
        if end:
            yield 0.0, held
    elif end - judged_to > TAIL_S * SAMPLE_RATE_HZ:
        yield (end - WINDOW_SAMPLES) / SAMPLE_RATE_HZ, held[-WINDOW_SAMPLES:]


def named_recordings(paths: Sequence[Path]) -> Iterator[Path]:
    """The files that are meant.

    Raises:
        RecordingError: a folder without any.
    """
    for path in paths:
        below = sound_files(path) if path.is_dir() else [path]
        if not below:
            raise RecordingError(f"{printable(path)}: there is no sound file in this folder")
        yield from below
