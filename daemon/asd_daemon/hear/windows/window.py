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
    far: F32 | None = None
    """float32 (160 000,), what a second microphone far from the machine heard meanwhile; None where there is none, or not all the time."""

    @property
    def both(self) -> F32:
        """What is judged: the samples (160 000,), or both microphones' (160 000, 2), the near one first."""
        return self.samples if self.far is None else np.stack([self.samples, self.far], axis=1)

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
        self._far_parts: list[F32] = []  # of the same lengths; empty without a far microphone
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
            self._hold_far(block)
            self._parts.append(block.samples)
            self._held += block.samples.shape[0]
            self._rate_error = block.rate_error
        while self._held >= WINDOW_SAMPLES:
            whole, far = np.concatenate(self._parts), self._far_window(WINDOW_SAMPLES)
            at = self._started_at()
            yield Window(whole[:WINDOW_SAMPLES].copy(), at, rate_error=self._rate_error, far=far)
            self._cut_from_recording += 1
            self._keep_from(self._hop, whole)
            self._held -= self._hop
            self._passed += self._hop
        if block.last:
            if self._held and not self._cut_from_recording:
                missing, far = WINDOW_SAMPLES - self._held, self._far_window(self._held)
                far = None if far is None else fit_length(far)
                whole = fit_length(np.concatenate(self._parts))
                yield Window(whole, self._started_at(), padded_samples=missing, far=far)
            self._forget()

    def _hold_far(self, block: Block) -> None:
        """Hold what the far microphone heard, NaN where it heard nothing; nothing at all where there never was one."""
        if block.far is None and not self._far_parts:
            return
        if not self._far_parts and self._held:
            self._far_parts.append(np.full(self._held, np.nan, np.float32))
        self._far_parts.append(np.full(block.samples.shape[0], np.nan, np.float32) if block.far is None else block.far)

    def _far_window(self, samples: int) -> F32 | None:
        """The far microphone's part of the window that begins now; None where it did not hear all of it."""
        if not self._far_parts:
            return None
        far = np.concatenate(self._far_parts)[:samples]
        return None if np.isnan(far).any() else far.copy()

    def _keep_from(self, first: int, whole: F32) -> None:
        """Keep what the next window begins with, as copies: the rest would keep the whole of it alive."""
        has_more = whole.shape[0] > first
        self._parts = [whole[first:].copy()] if has_more else []
        far = [np.concatenate(self._far_parts)[first:].copy()] if self._far_parts and has_more else []
        self._far_parts = [part for part in far if not np.isnan(part).all()]

    def _interrupt(self) -> Iterator[Window]:
        """Give out the window at hand as one with a gap."""
        fresh = self._held - (WINDOW_SAMPLES - self._hop if self._cut_from_recording else 0)
        if fresh > 0:
            missing = WINDOW_SAMPLES - self._held
            yield Window(np.pad(np.concatenate(self._parts), (0, missing)), self._started_at(), gap_samples=missing)
        self._forget()

    def _forget(self) -> None:
        self._passed += self._held
        self._parts, self._far_parts, self._held, self._cut_from_recording = [], [], 0, 0

    def _started_at(self) -> datetime:
        """When the first sample at hand was heard."""
        anchor = self._anchor or self._now()
        samples = -self._held if self._live else self._passed
        return anchor + timedelta(seconds=samples / SAMPLE_RATE_HZ)
