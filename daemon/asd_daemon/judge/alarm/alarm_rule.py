"""When an alert opens and closes, in windows and seconds."""

from __future__ import annotations

from dataclasses import dataclass

MOST_QUIET_WINDOWS = 360
"""More than an hour of quiet is never asked for because of relapses."""


@dataclass(frozen=True)
class AlarmRule:
    """When an alert opens and closes, in windows."""

    open_after: int = 2
    """So many anomalous windows …"""
    of: int = 3
    """… among the last so many usable ones open an alert."""
    close_after: int = 6
    """So many usable windows in a row that are quiet close it."""
    update_every_s: float = 60.0
    """An open alert is told anew at most this often, and only when its peak has risen."""
    hysteresis: float = 0.0
    """A window is quiet when its score is not above the threshold less this fraction of it: closing is harder than not opening."""
    cool_down_s: float = 0.0
    """After a close no alert opens for so long."""
    relapse_s: float = 0.0
    """An alert that opens within so long of the last close needs twice as many quiet windows to close as that one did."""
    unknown_after_s: float = 1800.0
    """An open alert ends as unknown when its machine could not be judged for so long."""

    def __post_init__(self) -> None:
        if (
            not 1 <= self.open_after <= self.of
            or self.close_after < 1
            or min(self.update_every_s, self.cool_down_s, self.relapse_s, self.unknown_after_s) < 0
            or not 0 <= self.hysteresis < 1
        ):
            raise ValueError(
                "an alarm rule needs 1 <= open_after <= of, close_after >= 1, update_every_s, cool_down_s, relapse_s, "
                f"unknown_after_s >= 0, 0 <= hysteresis < 1: {self}"
            )

    def close_threshold(self, threshold: float) -> float:
        """The score up to which a window helps to close an alert."""
        return threshold - self.hysteresis * abs(threshold)

    def quiet_windows(self, relapses: int) -> int:
        """How many quiet windows in a row close an alert that has come back so often."""
        return max(self.close_after, min(self.close_after << relapses, MOST_QUIET_WINDOWS))
