"""Whether ages by the wall clock hold: nothing may be deleted because a clock was wrong.

A box without a battery boots in 1970 or at the time of its last shutdown and is set right minutes later; one that was off for two months
finds everything old at once. So ages count only while the clock is later than this program, has not jumped since the start, and says that
the box was last alive not long ago; or once it has run steadily for a week. An error of a tenth of the age in question is let pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

EARLIEST_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""No clock that says less is right: this program was made later."""
_DAY_S = 86_400.0
GRACE_S = 7 * _DAY_S
TOLERATED = 0.1
_NOTICED_S = 30.0  # a clock that is slewed is not set


class PlausibleClock:
    """The wall clock, watched against a steady one.

    Args:
        now_s: Unix time.
        clock_s: a steady clock.
        alive_until_s: Unix time of the last sign of life before this start; None: nobody knows.
    """

    def __init__(
        self,
        now_s: Callable[[], float] = time.time,
        clock_s: Callable[[], float] = time.monotonic,
        alive_until_s: float | None = None,
    ) -> None:
        self.now_s, self.steady_s = now_s, clock_s
        self._offset_s = now_s() - clock_s()
        self._since_s = clock_s()
        self._off_s, self._why = 0.0, ""
        if alive_until_s is not None:
            days = (now_s() - alive_until_s) / _DAY_S
            self._off_s = abs(days) * _DAY_S
            self._why = (
                f"this box was off for {days:.1f} days" if days > 0 else f"files are {-days:.1f} days in the future"
            )

    def objection(self, age_s: float) -> str | None:
        """Why nothing may be deleted for being older than an age, in words; None where it may."""
        now_s, steady_s = self.now_s(), self.steady_s()
        jump_s = now_s - steady_s - self._offset_s
        if abs(jump_s) > _NOTICED_S:
            still_off_s = self._off_s if steady_s - self._since_s < GRACE_S else 0.0
            self._offset_s, self._since_s = now_s - steady_s, steady_s
            if abs(jump_s) >= still_off_s:
                self._why = f"the clock was set by {jump_s / _DAY_S:+.1f} days"
            self._off_s = max(still_off_s, abs(jump_s))
        if now_s < EARLIEST_S:
            return f"the clock says {datetime.fromtimestamp(now_s, UTC):%Y-%m-%d}, which can't be"
        if self._off_s > TOLERATED * age_s and steady_s - self._since_s < GRACE_S:
            return self._why
        return None

    def is_dated(self, at_s: float) -> bool:
        """Whether a time stamp can be right."""
        return EARLIEST_S <= at_s <= self.now_s() + _DAY_S


def newest_change_s(folder: Path, patterns: Iterable[str]) -> float | None:
    """Unix time of the youngest file of some patterns below a folder, of those whose time can be right; None where there is none."""
    times = []
    for pattern in patterns:
        for file in folder.glob(pattern):
            try:
                times.append(file.stat().st_mtime)
            except OSError:  # gone meanwhile, or not ours to see
                continue
    dated = [at_s for at_s in times if at_s >= EARLIEST_S]
    return max(dated, default=None)
