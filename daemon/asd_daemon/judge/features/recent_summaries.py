"""What a machine has sounded like of late, in figures, and what has changed since: the memory behind the words of an alert.

Owns a bounded number of summaries of normal windows, and how much each kind of change is found among those themselves: a machine whose
normal sound knocks at times must knock more than that before knocks are told. NumPy only, no clock; from one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.change import Change, ChangeKind
from asd_daemon.judge.features.sound_changes import measure_changes
from asd_daemon.judge.features.usual_sound import UsualSound, usual_sound
from asd_daemon.judge.features.window_summary import WindowSummary, summarise

F32 = NDArray[np.float32]
LEAST = 6
"""Normal windows that must be known before anything is said."""
MOST_CHANGES = 3
_MARGIN = 1.25  # of what normal windows do


class RecentSummaries:
    """The last normal windows of one machine, as summaries; below 1 MB.

    Args:
        most: how many are remembered.
        every: of the normal windows only each so-many-th is taken once half of the places are filled.
    """

    def __init__(self, most: int = 24, every: int = 6) -> None:
        self._windows: deque[WindowSummary] = deque(maxlen=most)
        self._normal_strengths: deque[dict[ChangeKind, float]] = deque(maxlen=most)
        self._every, self._passed = every, 0
        self._usual: UsualSound | None = None

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, waveform: F32) -> None:
        """Remember a normal window, float32 (160 000,), if it is its turn."""
        self._passed += 1
        if len(self._windows) >= (self._windows.maxlen or 0) // 2 and self._passed % self._every:
            return
        window = summarise(waveform)
        if len(self._windows) >= LEAST:
            self._normal_strengths.append({c.kind: c.strength for c in measure_changes(self._usual_sound(), window)})
        self._windows.append(window)
        self._usual = None

    def changes(self, waveform: F32) -> tuple[Change, ...] | None:
        """What has changed in a window, float32 (160 000,), what says most first; None until enough normal ones are known."""
        if len(self._windows) < LEAST:
            return None
        measured = [self._relative(change) for change in measure_changes(self._usual_sound(), summarise(waveform))]
        return tuple(_in_order([change for change in measured if change.strength >= 1])[:MOST_CHANGES])

    def _usual_sound(self) -> UsualSound:
        if self._usual is None:
            self._usual = usual_sound(list(self._windows))
        return self._usual

    def _relative(self, change: Change) -> Change:
        """With its strength relative to what normal windows do, where they do it."""
        normal = max((strengths.get(change.kind, 0.0) for strengths in self._normal_strengths), default=0.0)
        return replace(change, strength=round(change.strength / max(1.0, _MARGIN * normal), 2))


def _in_order(changes: Sequence[Change]) -> list[Change]:
    """Without what another one explains; of uneven knocks and hiss the stronger first; a tone beside a rate that it is a multiple of."""
    found = {change.kind: change for change in changes}
    knocks, hiss = found.get(ChangeKind.KNOCKS), found.get(ChangeKind.HISS)
    if knocks is not None and knocks.even:  # even blows ring, and are a swell too
        found.pop(ChangeKind.HISS, None)
    if knocks is not None or (hiss is not None and hiss.rate_hz is not None):
        found.pop(ChangeKind.PULSING, None)
    if knocks is not None and not knocks.even and hiss is not None and hiss.strength > knocks.strength:
        del found[ChangeKind.KNOCKS]
        after = list(found).index(ChangeKind.HISS) + 1
        found = dict([*list(found.items())[:after], (ChangeKind.KNOCKS, knocks), *list(found.items())[after:]])
    rate_hz = next((c.rate_hz for c in found.values() if c.kind in _ROTATING and c.rate_hz and c.rate_hz >= 5), None)
    return [_as_multiple(change, rate_hz) for change in found.values()]


_ROTATING = (ChangeKind.KNOCKS, ChangeKind.PULSING, ChangeKind.HISS)


def _as_multiple(change: Change, rate_hz: float | None) -> Change:
    """A tone that is a low multiple of a rate that is heard too, told as such."""
    if change.tone_hz is None or rate_hz is None:
        return change
    multiple = round(change.tone_hz / rate_hz)
    is_close = abs(change.tone_hz - multiple * rate_hz) < min(1.0, 0.01 * change.tone_hz)
    return replace(change, multiple=multiple, rate_hz=rate_hz) if is_close and 1 <= multiple <= 12 else change
