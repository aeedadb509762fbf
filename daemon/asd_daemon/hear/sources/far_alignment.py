"""Sound of a second device brought into step with the first one's: which moment belongs to which, and a clock that runs otherwise.

Two devices start at different moments and count seconds of different length. What both hear at once tells the delay (generalised cross
correlation with phase transform: Knapp and Carter, IEEE Trans. ASSP 24(4), 1976); how that creeps tells the clock. It opens no device.
"""

from __future__ import annotations

import logging

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from asd_daemon.waveform import SAMPLE_RATE_HZ

_LOG = logging.getLogger(__name__)
F32 = NDArray[np.float32]

HELD_S = 12.0
"""So much of each device is held."""
LATEST_S = 1.5
"""Devices are so much apart at most, sound server and blocks together."""
_COMPARED_S = 8.0
_FIRST_S, _AGAIN_S = 2.0, 20.0  # from look to look, until they are in step and after
_CLEAR_PEAK = (
    9.0  # times the usual height of the correlation: what is heard by both, and nothing else, stands out so far
)
_NEAR_STEP = 400  # samples: what is farther away from where it was is looked at twice
_TAPS = 16
_MOST_DRIFT = 1e-3
_LOSS_S = 2.0  # of far sound that does not come: the device is taken for lost


class FarAlignment:
    """One pair of devices; from one thread.

    Args:
        name: whose, for the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._near: F32 = np.zeros(0, np.float32)
        self._far: F32 = np.zeros(0, np.float32)
        self._near_ends = self._far_ends = 0  # samples of each since the start
        self._lag: float | None = (
            None  # of the far device's sample that belongs to near sample 0; None until it is known
        )
        self._rate = 1.0  # far samples for each near one
        self._looked = 0  # at near sample
        self._told_at = 0.0  # near sample at which the lag was last measured
        self._doubt: float | None = None

    @property
    def in_step(self) -> bool:
        """Whether it is known which moment belongs to which."""
        return self._lag is not None

    @property
    def drift_ppm(self) -> float:
        """How much faster the far device's clock runs, in millionths, as far as is known."""
        return (self._rate - 1) * 1e6

    def hear_far(self, samples: F32, gap_samples: int = 0) -> None:
        """Take in sound of the far device, float32 (N,); after a gap it has to be brought into step anew."""
        if gap_samples:
            self.lose_far()
        self._far = np.concatenate([self._far, samples])[-int(HELD_S * SAMPLE_RATE_HZ) :]
        self._far_ends += samples.shape[0]

    def lose_far(self) -> None:
        """The far device is silent: what comes next does not join on."""
        self._far, self._lag, self._doubt = self._far[:0], None, None
        self._looked = self._near_ends

    def hear_near(self, samples: F32, gap_samples: int = 0) -> int:
        """Take in sound of the near device, float32 (N,); the number of its first sample."""
        if gap_samples:
            self._near, self._lag, self._doubt = self._near[:0], None, None
        self._near = np.concatenate([self._near, samples])[-int(HELD_S * SAMPLE_RATE_HZ) :]
        self._near_ends += samples.shape[0]
        due_s = _AGAIN_S if self.in_step and self._doubt is None else _FIRST_S
        if self._near_ends - self._looked >= due_s * SAMPLE_RATE_HZ:
            self._looked = self._near_ends
            self._look()
        return int(self._near_ends - samples.shape[0])

    def meanwhile(self, first: int, samples: int) -> F32 | None:
        """The far device's sound beside so many samples of the near one, (N,); None where it has not come or is not in step.

        Args:
            first: number of the near device's first sample, as `hear_near` said.
            samples: how many.
        """
        if self._lag is None:
            return None
        place = self._lag + self._rate * first - (self._far_ends - self._far.shape[0]) + self._rate * np.arange(samples)
        if place[0] < _TAPS or place[-1] > self._far.shape[0] - _TAPS:
            if place[-1] > self._far.shape[0] + _LOSS_S * SAMPLE_RATE_HZ:
                self.lose_far()
            return None
        return interpolated(self._far, place)

    def _look(self) -> None:
        """See which moments belong together, and whether the clocks run alike."""
        count = int(_COMPARED_S * SAMPLE_RATE_HZ)
        most = int(LATEST_S * SAMPLE_RATE_HZ)
        if self._near.shape[0] < count + most or self._far.shape[0] < count + most:
            return
        # The near sound of some time ago, for what the far device heard later than that may not have come yet; by the far one's clock
        start = self._near.shape[0] - count - most
        near = self._near[start : start + count]
        if self._rate != 1:
            near = interpolated(self._near, start + np.arange(count) / self._rate)
        found = correlation_peak(near, self._far)
        if found is None:
            return
        near_middle = self._near_ends - self._near.shape[0] + start + count / 2 / self._rate
        far_middle = self._far_ends - self._far.shape[0] + found + count / 2
        lag = far_middle - self._rate * near_middle
        if self._lag is None:
            self._set(lag, near_middle)
            _LOG.info("%s: the far microphone is in step", self._name)
            return
        off = lag - self._lag
        if abs(off) > _NEAR_STEP and (self._doubt is None or abs(off - self._doubt) > _NEAR_STEP):
            self._doubt = off  # perhaps an echo, or a machine that repeats itself
            return
        self._doubt = None
        if abs(off) > _NEAR_STEP:
            _LOG.warning("%s: the far microphone is %.0f ms out of step, and is brought into it", self._name, off / 16)
            self._set(lag, near_middle)
            return
        passed = near_middle - self._told_at
        change = float(np.clip(off / max(passed, 1), -_MOST_DRIFT, _MOST_DRIFT))
        self._lag = far_middle - (self._rate + change) * near_middle
        self._rate, self._told_at = self._rate + change, near_middle

    def _set(self, lag: float, near_middle: float) -> None:
        self._lag, self._told_at, self._doubt = lag, near_middle, None


def interpolated(sound: F32, places: NDArray[np.floating]) -> F32:
    """Values between the samples of (N,), at places that lie TAPS inside its ends; a windowed sinc."""
    whole = np.floor(places).astype(np.int64)
    late = np.arange(_TAPS) - (_TAPS // 2 - 1) - (places - whole)[:, None]
    weights = np.sinc(late) * np.cos(np.pi * late / (_TAPS + 2)) ** 2
    pieces = sliding_window_view(sound, _TAPS)[whole - (_TAPS // 2 - 1)]
    return np.asarray((pieces * weights).sum(axis=1), np.float32)


def correlation_peak(near: F32, far: F32) -> float | None:
    """Where in (M,) far sound the first sample of (N,) near sound is heard, M ≥ N, to a part of a sample; None where nothing stands out."""
    length = 1 << (near.shape[0] + far.shape[0] - 1).bit_length()
    product = np.fft.rfft(far, length) * np.conj(np.fft.rfft(near, length))
    size = np.abs(product)
    correlation = np.fft.irfft(product / (size + 1e-3 * size.mean() + 1e-20), length)[
        : far.shape[0] - near.shape[0] + 1
    ]
    height = np.abs(correlation)
    peak = int(np.argmax(height))
    usual = float(np.median(height)) / 0.6745
    if not 0 < peak < height.shape[0] - 1 or height[peak] < _CLEAR_PEAK * max(usual, 1e-20):
        return None
    before, at, after = height[peak - 1 : peak + 2]
    bend = before - 2 * at + after
    return peak + (0.5 * float((before - after) / bend) if bend < 0 else 0.0)
