"""The sample clock against this box's: how far the two drift apart, and whether samples come at the promised rate at all.

Pure arithmetic; the times are passed in.
"""

from __future__ import annotations

from collections import deque

from asd_daemon.waveform import SAMPLE_RATE_HZ

_SETTLE_S = 5.0  # a stream begins with what its server had kept, and commands with a burst
_MARK_EVERY_S = 1.0
_RECENT_MARKS = 61  # a minute
_RECENT_LEAST_S = 30.0  # jitter of a second is then some per cent
_COARSE_LEAST_S, _COARSE_ERROR = 10.0, 0.25  # jitter of two seconds is less; stereo, 24 bit, 22.05 or 8 kHz is more
_DRIFT_LEAST_S = 60.0  # jitter of 30 ms is then 500 millionths, and less with every minute


class SampleClock:
    """Counts samples since the sound began to flow; a gap begins the count anew."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque(maxlen=_RECENT_MARKS)
        self._drift_ppm: float | None = None
        self.restart()

    def restart(self) -> None:
        """Sound is missing: what comes next is not counted with what was before. The drift found so far stays."""
        self._marks.clear()
        self._begun_s: float | None = None
        self._first: tuple[float, int] | None = None
        self._samples = 0

    def count(self, samples: int, ended_s: float) -> float | None:
        """Take in a block that ended at a monotonic time; the rate's error lately, as a fraction.

        None until it is known at all; then 0 for one that is about right, until it is known well.
        """
        self._samples += samples
        if self._begun_s is None:
            self._begun_s = ended_s
        if ended_s - self._begun_s < _SETTLE_S:
            return None
        here = (ended_s, self._samples)
        self._first = self._first or here
        if not self._marks or ended_s - self._marks[-1][0] >= _MARK_EVERY_S:
            self._marks.append(here)
        if ended_s - self._first[0] >= _DRIFT_LEAST_S:
            self._drift_ppm = 1e6 * _error(self._first, here)
        recent = self._marks[0]
        known_s = ended_s - recent[0]
        if known_s < _COARSE_LEAST_S:
            return None
        error = _error(recent, here)
        return error if known_s >= _RECENT_LEAST_S or abs(error) > _COARSE_ERROR else 0.0

    @property
    def drift_ppm(self) -> float | None:
        """How much faster than this box's clock the samples come, in millionths; None until a minute was heard."""
        return self._drift_ppm


def _error(start: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[1] - start[1]) / SAMPLE_RATE_HZ / (end[0] - start[0]) - 1
