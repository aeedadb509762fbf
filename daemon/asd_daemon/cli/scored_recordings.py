"""`asd-daemon score`: recordings → a line for each window, or for each recording; what can't be judged is said and never scored.

Owns how a whole recording is cut for that, in memory that does not grow with its length, and the words. It opens no bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
_SURROGATE = re.compile("[\ud800-\udfff]")


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
    blocks = read_blocks(path, channel) if far is None else read_both(path, channel, far)
    for start_s, sound in recording_windows(blocks, hop_s):
        seconds = sound.shape[0] / SAMPLE_RATE_HZ
        reason = unfit_reason(sound if far is None else np.ascontiguousarray(sound[:, 0]))
        if reason is not None:
            yield ScoredWindow(start_s, seconds, None, None, None, reason)
            continue
        verdict = judge.score(fit_length(sound))
        hall = heard_hall(verdict)
        if hall is not None and hall.drowns:
            yield ScoredWindow(start_s, seconds, None, None, None, UnfitReason.HALL)
            continue
        yield ScoredWindow(start_s, seconds, verdict.score, verdict.threshold, verdict.anomalous)


def recording_windows(blocks: Iterator[F32], hop_s: float = WINDOW_S) -> Iterator[tuple[float, F32]]:
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


@dataclass(frozen=True)
class _Heard:
    """One recording's windows, counted."""

    windows: int = 0
    usable: int = 0
    anomalous: int = 0
    worst: ScoredWindow | None = None
    reasons: tuple[str, ...] = ()

    def with_window(self, window: ScoredWindow) -> _Heard:
        reasons = self.reasons
        if window.unusable is not None and window.unusable.value not in reasons:
            reasons = (*reasons, window.unusable.value)
        worst = self.worst
        if window.score is not None and (worst is None or worst.score is None or window.score > worst.score):
            worst = window
        return _Heard(
            self.windows + 1,
            self.usable + (window.score is not None),
            self.anomalous + bool(window.anomalous),
            worst,
            reasons,
        )


class RecordingReport:
    """The lines of one call: for people, or a JSON object each.

    Args:
        machine: whose sound it is.
        as_json: objects instead of words.
        summary: one line a recording instead of one a window.
    """

    def __init__(self, machine: str, *, as_json: bool, summary: bool) -> None:
        self._machine, self._as_json, self._summary = machine, as_json, summary
        self.refused = 0
        """Recordings of which nothing, or not all, could be judged."""

    def lines(self, path: Path, windows: Iterator[ScoredWindow]) -> Iterator[tuple[str, bool]]:
        """Lines of one recording, and whether each is an error."""
        heard, error = _Heard(), None
        several: list[
            ScoredWindow
        ] = []  # the first, until it is known whether there are more: one window needs no time
        try:
            for window in windows:
                heard = heard.with_window(window)
                if self._summary:
                    continue
                if heard.windows == 1:
                    several.append(window)
                    continue
                for one in (*several, window):
                    yield self._line(path, one, is_only=False), False
                several.clear()
        except RecordingError as e:
            error = str(e)
        for one in several:
            yield self._line(path, one, is_only=True), False
        if self._summary and heard.windows:
            yield self._total(path, heard), False
        if error is None and heard.usable == 0:
            other = "; is another --channel meant?" if UnfitReason.SILENCE.value in heard.reasons else ""
            error = f"{printable(path)}: not usable: {', '.join(heard.reasons) or 'no sound'}{other}"
        if error is not None:
            self.refused += 1
            yield f"error: {error}", True

    def _line(self, path: Path, window: ScoredWindow, *, is_only: bool) -> str:
        if self._as_json:
            return _json(
                path=str(path),
                machine=self._machine,
                score=window.score,
                threshold=window.threshold,
                anomalous=window.anomalous,
                start_s=round(window.start_s, 3),
                seconds=round(window.seconds, 3),
                unusable=window.unusable.value if window.unusable else None,
            )
        at = "" if is_only else f"  at {_clock(window.start_s)}"
        return f"{_verdict(window)}  {printable(path)}{at}"

    def _total(self, path: Path, heard: _Heard) -> str:
        worst = heard.worst
        if self._as_json:
            return _json(
                path=str(path),
                machine=self._machine,
                score=worst.score if worst else None,
                threshold=worst.threshold if worst else None,
                anomalous=worst.anomalous if worst else None,
                worst_start_s=round(worst.start_s, 3) if worst else None,
                windows=heard.windows,
                unusable_windows=heard.windows - heard.usable,
                unusable=list(heard.reasons),
                anomalous_windows=heard.anomalous,
                anomalous_share=round(heard.anomalous / heard.usable, 4) if heard.usable else None,
            )
        if worst is None:
            return f"{'unusable':9} {', '.join(heard.reasons)}  {printable(path)}"
        unusable = f", {heard.windows - heard.usable} not usable ({', '.join(heard.reasons)})" if heard.reasons else ""
        return (
            f"{_verdict(worst)}  {printable(path)}: {heard.anomalous} of {heard.usable} windows anomalous{unusable},"
            f" the worst at {_clock(worst.start_s)}"
        )


def _verdict(window: ScoredWindow) -> str:
    if window.score is None or window.threshold is None:
        return f"{'unusable':9} {window.unusable.value if window.unusable else ''}"
    return f"{'ANOMALOUS' if window.anomalous else 'normal':9} {window.score:8.4f} of {window.threshold:.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return (
        f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:04.1f}" if minutes >= 60 else f"{int(minutes)}:{rest:04.1f}"
    )


def _json(**content: Any) -> str:
    """One object in UTF-8; a byte of a name that is no UTF-8 stays as Python and JSON can give it back."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(content, ensure_ascii=False))
