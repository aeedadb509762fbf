"""Windows that hold a start, a stop or a change of product: no alert is made of them.

A window that is half of one state and half of another is like neither. Where a machine has states, a few anomalous windows in a row are
held back until it is clear what they were: on the way to another state, or to off, they count for nothing; else they all count. A failure
is told later by as many windows, not missed. Behind off, the first windows of a machine that starts count for nothing in any case. Owns
that rule and in which state the machine is said to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from asd_daemon.hear.windows.window import Window
from asd_daemon.judge.scoring.verdict import Verdict

MOST_HELD = 2
"""Anomalous windows in a row that may be a change; one more, and they are none."""
SURE_AFTER = 2
"""Windows in a row of another state make it the machine's."""


@dataclass(frozen=True)
class JudgedWindow:
    """A window and what is said of it."""

    window: Window
    verdict: Verdict
    counts: bool = True
    """Whether the alarm may hear of it."""


class StateChanges:
    """One machine's; from one thread."""

    def __init__(self) -> None:
        self.state: str | None = None
        """The one that the machine is said to be in."""
        self._candidate: str | None = None
        self._seen = 0
        self._last_normal: str | None = None
        self._held: list[JudgedWindow] = []
        self._starting = 0
        self._was_off = False

    def take(self, window: Window, verdict: Verdict) -> list[JudgedWindow]:
        """Take in a window that was judged; those of which it is clear now whether they count, the oldest first."""
        name, judged = verdict.operating_state, JudgedWindow(window, verdict)
        if self._was_off:
            self.state, self._was_off = name, False
        if verdict.anomalous:
            if self._starting:
                self._starting -= 1
                return [replace(judged, counts=False)]
            self._held.append(judged)
            return self.release() if name is None or len(self._held) > MOST_HELD else []
        self._starting = 0
        is_change = name is not None and self._last_normal is not None and name != self._last_normal
        self._last_normal = name
        self._see(name)
        return [*self.release(counts=not is_change), judged]

    def off(self, name: str) -> list[JudgedWindow]:
        """The machine is off: what was held back was its end."""
        self._last_normal, self._starting = None, MOST_HELD
        self.state, self._was_off, self._seen = name, True, 0
        return self.release(counts=False)

    def release(self, *, counts: bool = True) -> list[JudgedWindow]:
        """What was held back."""
        held, self._held = self._held, []
        return [replace(judged, counts=counts) for judged in held]

    def _see(self, name: str | None) -> None:
        self._seen = self._seen + 1 if name == self._candidate else 1
        self._candidate = name
        if self._seen >= SURE_AFTER or self.state is None:
            self.state = name
