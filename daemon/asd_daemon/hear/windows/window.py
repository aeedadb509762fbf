"""Blocks of any length → windows of 160 000 samples, each with its time and what is missing in it.

Owns the cutting and the time stamps. It opens nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.source import Block, DeadMicrophone, SoundReturned, SourceEvent, SourceLost, UnreadableRecording
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES, fit_length

F32 = NDArray[np.float32]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Window:
    """Ten seconds, or what there was of them."""

    samples: F32
    """float32 (160 000,); what is missing at the end is zero; where a recording was too short, its beginning is repeated there."""
    started_at: datetime
    """UTC time of the first sample."""
    gap_samples: int = 0
    """How many samples the source lost in it; more than 0 makes it unfit to judge."""
    padded_samples: int = 0
    """How many at the end repeat the beginning: the recording was too short. As in training."""
    rate_error: float | None = 0.0
    """How much faster than promised its samples came, as a fraction of the rate; negative: slower; None where that is not known yet."""

    @property
    def ended_at(self) -> datetime:
        """UTC time just after the last sample."""
        return self.started_at + timedelta(seconds=WINDOW_SAMPLES / SAMPLE_RATE_HZ)

    @property
    def sound(self) -> F32:
        """The samples that were heard, each once."""
        return self.samples[: WINDOW_SAMPLES - self.padded_samples]


class WindowCutter:
    """Cuts what a source says into windows, each `hop_samples` after the one before.

    A gap ends the window at hand, which is given out as it is, and so does the end of silence; the next window begins after it: a clean
    one is never further away than its own length. Live sound is stamped by the wall clock, which is set right now and then; other sound
    by counting samples from the start.
    """

    def __init__(self, *, live: bool, hop_samples: int = WINDOW_SAMPLES, now: Callable[[], datetime] = _now) -> None:
        self._live, self._hop, self._now = live, hop_samples, now
        self._parts: list[F32] = []
        self._held = 0  # samples in _parts
        self._cut_from_recording = 0
        self._passed = 0  # samples before the first one in _parts, since the start
        self._rate_error: float | None = 0.0
        self._anchor: datetime | None = None  # live: when the last block ended; other: when the first one began

    @property
    def filling(self) -> bool:
        """Whether a window is begun."""
        return self._held > 0

    def feed(
        self, heard: SourceEvent
    ) -> Iterator[Window | SourceLost | UnreadableRecording | DeadMicrophone | SoundReturned]:
        """The windows that are complete now; all that is no sound passes through, in order."""
        if isinstance(heard, Block):
            yield from self._feed_block(heard)
        else:
            if isinstance(heard, SourceLost | SoundReturned):
                yield from self._interrupt()
            elif isinstance(
                heard, UnreadableRecording
            ):  # it may have been readable up to here; the next one does not join on
                self._forget()
            yield heard

    def _feed_block(self, block: Block) -> Iterator[Window]:
        if block.gap_samples:
            yield from self._interrupt()
            self._passed += block.gap_samples
        if self._anchor is None or self._live:
            self._anchor = self._now()
        if block.samples.shape[0]:
            self._parts.append(block.samples)
            self._held += block.samples.shape[0]
            self._rate_error = block.rate_error
        while self._held >= WINDOW_SAMPLES:
            whole = np.concatenate(self._parts)
            yield Window(whole[:WINDOW_SAMPLES].copy(), self._started_at(), rate_error=self._rate_error)
            self._cut_from_recording += 1
            # A copy: the rest would keep the whole of it alive
            self._parts = [whole[self._hop :].copy()] if self._held > self._hop else []
            self._held -= self._hop
            self._passed += self._hop
        if block.last:
            if self._held and not self._cut_from_recording:
                missing = WINDOW_SAMPLES - self._held
                yield Window(fit_length(np.concatenate(self._parts)), self._started_at(), padded_samples=missing)
            self._forget()

    def _interrupt(self) -> Iterator[Window]:
        """Give out the window at hand as one with a gap."""
        fresh = self._held - (WINDOW_SAMPLES - self._hop if self._cut_from_recording else 0)
        if fresh > 0:
            missing = WINDOW_SAMPLES - self._held
            yield Window(np.pad(np.concatenate(self._parts), (0, missing)), self._started_at(), gap_samples=missing)
        self._forget()

    def _forget(self) -> None:
        self._passed += self._held
        self._parts, self._held, self._cut_from_recording = [], 0, 0

    def _started_at(self) -> datetime:
        """When the first sample at hand was heard."""
        anchor = self._anchor or self._now()
        samples = -self._held if self._live else self._passed
        return anchor + timedelta(seconds=samples / SAMPLE_RATE_HZ)
