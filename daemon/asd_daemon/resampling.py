"""Sound at any rate → sound at another, block by block, with one and the same filter for microphones and files.

Owns soxr, which is imported where it is used: sound that has its rate already needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Resampler:
    """Blocks (N,) or (N, C) at one rate → float32 at the target rate."""

    def __init__(self, rate_hz: float, target_hz: int, channels: int = 1) -> None:
        self._rates, self._channels = (rate_hz, target_hz), channels
        self.restart()

    def restart(self) -> None:
        """Forget what came before: what comes next does not join on."""
        self._stream = None
        if self._rates[0] != self._rates[1]:
            import soxr

            self._stream = soxr.ResampleStream(*self._rates, self._channels, dtype="float32", quality="HQ")

    def __call__(self, samples: NDArray[np.float32], *, last: bool = False) -> NDArray[np.float32]:
        """The samples that are complete now; the filter holds some back until the `last` block."""
        return samples if self._stream is None else self._stream.resample_chunk(samples, last=last)
