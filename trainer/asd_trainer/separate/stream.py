"""Separation of sound that does not end, piece by piece.

Owns the cutting into overlapping windows and the joining of what comes out. The global blocks of a separator look at the
whole of what they are given, so a stream can't equal the whole recording exactly: every piece is separated with sound
before and after it as context, and what differs is what the attention would have learned from farther away.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_trainer.networks.separator import Separator
from asd_trainer.separate.losses import check_recording, separate

F32 = NDArray[np.float32]


class SeparationStream:
    """Feed sound as it comes, get the sources of what is ready.

    Args:
        network: the separator.
        piece_samples: sound that is separated at a time.
        context_samples: sound before and after a piece that is looked at with it; also the delay.

    Raises:
        ValueError: a piece or a context that is too short for the network.
    """

    def __init__(self, network: Separator, piece_samples: int, context_samples: int) -> None:
        if piece_samples < 1 or context_samples < network.shortest_samples:
            raise ValueError(
                f"pieces of {piece_samples} and a context of {context_samples} samples are too short:"
                f" give at least 1 and {network.shortest_samples}"
            )
        self._network = network
        self._piece, self._context = piece_samples, context_samples
        self._waiting: F32 = np.empty(0, dtype=np.float32)
        self._past = 0  # samples at the head of _waiting that have been given out already

    @property
    def delay_samples(self) -> int:
        """The longest time that a sample waits for its sources."""
        return self._piece + self._context

    def feed(self, samples: F32) -> F32:
        """Take float32 (n,); give the sources that are ready, float32 (2, m), m = 0 while more has to come.

        Raises:
            RecordingError: samples that are not finite. A window without any sound is silence in both sources.
        """
        check_recording(samples, shortest_samples=0, name="stream", silence=True)
        self._waiting = np.concatenate([self._waiting, samples])
        ready = [np.empty((2, 0), dtype=np.float32)]
        while self._waiting.shape[0] >= self._past + self._piece + self._context:
            window = self._waiting[: self._past + self._piece + self._context]
            ready.append(self._separate(window)[:, self._past : self._past + self._piece])
            self._forget(self._piece)
        return np.concatenate(ready, axis=1)

    def flush(self) -> F32:
        """Give the sources of all that is left, float32 (2, m), and start anew."""
        window = self._waiting
        left = (
            self._separate(window)[:, self._past :] if window.shape[0] > self._past else window[None, :0].repeat(2, 0)
        )
        self._waiting, self._past = np.empty(0, dtype=np.float32), 0
        return left

    def _separate(self, window: F32) -> F32:
        if not window.any():
            return np.zeros((2, window.shape[0]), dtype=np.float32)
        missing = max(0, self._network.shortest_samples - window.shape[0])
        return separate(self._network, np.pad(window, (0, missing)))[:, : window.shape[0]]

    def _forget(self, given: int) -> None:
        done = self._past + given
        kept = min(done, self._context)
        self._waiting, self._past = self._waiting[done - kept :], kept
