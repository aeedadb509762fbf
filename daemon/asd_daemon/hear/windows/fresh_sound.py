"""The sound of overlapping windows, each sample once: what a window has that the window before did not have.

Owns where the last window ended. It judges nothing and keeps no sound.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.windows.window import Window
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES

_TOLERANCE_SAMPLES = SAMPLE_RATE_HZ // 4  # 0.25 s: blocks of live sound come when they come


class FreshSound:
    """Takes one machine's windows in their order.

    Args:
        hop_samples: from the start of one window to the start of the next.
    """

    def __init__(self, hop_samples: int = WINDOW_SAMPLES) -> None:
        self._overlap_samples = WINDOW_SAMPLES - hop_samples
        self._ended_at: datetime | None = None

    def of(self, window: Window) -> NDArray[np.float32]:
        """The samples, float32 (N,), that were heard in no window before; without padding and what is missing."""
        known = window.samples[: WINDOW_SAMPLES - window.padded_samples - min(window.gap_samples, WINDOW_SAMPLES)]
        fresh_samples = self._count(window.started_at, len(known))
        return known[len(known) - fresh_samples :]

    def _count(self, started_at: datetime, samples: int) -> int:
        before, self._ended_at = self._ended_at, started_at + timedelta(seconds=samples / SAMPLE_RATE_HZ)
        overlap = 0 if before is None else round((before - started_at).total_seconds() * SAMPLE_RATE_HZ)
        if self._overlap_samples and abs(overlap - self._overlap_samples) <= _TOLERANCE_SAMPLES:
            return max(0, samples - self._overlap_samples)
        return samples
