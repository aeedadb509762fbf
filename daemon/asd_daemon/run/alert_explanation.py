"""How the worst window of an alert differs from the machine's recent normal windows, for whoever reads the alert.

Owns the normal windows to compare with. The arithmetic is that of `spectral_difference` and `sound_changes`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.change import Change
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.recent_summaries import RecentSummaries
from asd_daemon.judge.features.spectral_difference import Difference, RecentNormalWindows
from asd_daemon.judge.features.spectrogram_image import spectrogram_image
from asd_daemon.judge.scoring.verdict import HeardHall
from asd_daemon.tell.alert_picture import AlertPicture


class AlertExplanation:
    """One machine's; from one thread. Windows are float32 (160 000,)."""

    def __init__(self) -> None:
        self._normal, self._summaries = RecentNormalWindows(), RecentSummaries()
        self.difference: Difference | None = None
        """Of the worst window so far; None until a few normal windows are known."""
        self.changes: tuple[Change, ...] | None = None
        """What has changed in it, in kinds that have a name; None until enough normal windows are known."""
        self.picture: AlertPicture | None = None
        """The worst window so far, beside a normal one where one is known; None before the first alert."""
        self.hall_share: float | None = None
        """Of its power that came from the hall; None without a second microphone."""

    def add_normal(self, samples: NDArray[np.float32]) -> None:
        """Take in a normal window to compare with later."""
        self._normal.add(samples)
        self._summaries.add(samples)

    def begin(self, samples: NDArray[np.float32], hall: HeardHall | None = None) -> None:
        """Explain an alert that opens with this window, of which a second microphone may say how much is the hall's."""
        self.hall_share = hall.share if hall else None
        self.difference, self.changes = self._normal.compare(samples), self._summaries.changes(samples)
        self.picture = self._pictured(samples)

    def replace_worst(self, samples: NDArray[np.float32], hall: HeardHall | None = None) -> None:
        """Explain the open alert by this window, which scores highest so far."""
        self.hall_share = hall.share if hall else None
        self.difference = self._normal.compare(samples) or self.difference
        self.changes = self._summaries.changes(samples) or self.changes
        self.picture = self._pictured(samples)

    def _pictured(self, samples: NDArray[np.float32]) -> AlertPicture:
        image, difference = spectrogram_image(log_mel(samples)), self.difference
        bands = tuple((band.low_hz, band.high_hz) for band in difference.bands) if difference else ()
        seconds = difference.seconds if difference else ()
        return AlertPicture(image, self._normal.nearest_image(samples), bands, seconds)
