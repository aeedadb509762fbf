"""Finds a microphone that delivers nothing but silence or one stuck value while the window is still filling, and its recovery.

Whether the window is fit to judge is `quality`'s business; this only says it seconds earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from asd_daemon.hear.source import Block, DeadMicrophone, SoundReturned, SourceEvent, SourceLost
from asd_daemon.hear.windows.quality import QualityLimits, UnfitReason
from asd_daemon.waveform import SAMPLE_RATE_HZ

DEAD_S = 1.5  # with blocks of 0.5 s and the judge's 0.5 s it is told within 3 s


def with_dead_microphone_events(
    heard: Iterable[SourceEvent], limits: QualityLimits | None = None
) -> Iterator[SourceEvent]:
    """The same events, with `DeadMicrophone` after 1.5 s of silence or of one value, and `SoundReturned` after the block that ends it."""
    limits = limits or QualityLimits()
    dead_samples, last, told = 0, float("nan"), False
    for item in heard:
        yield item
        if isinstance(item, SourceLost):  # whatever comes next begins anew, and is said to be back by others
            dead_samples, told = 0, False
        if not isinstance(item, Block) or item.samples.shape[0] == 0:
            continue
        samples = item.samples
        silent = float(np.abs(samples).max()) <= limits.silence_peak
        stuck = bool((samples == samples[0]).all()) and abs(float(samples[0])) < limits.clip_level
        joins = silent or (stuck and (dead_samples == 0 or float(samples[0]) == last))
        dead_samples = dead_samples + samples.shape[0] if joins else 0
        if told and not joins:
            told = False
            yield SoundReturned()
        last = float(samples[-1])
        if dead_samples >= DEAD_S * SAMPLE_RATE_HZ and not told:
            told = True
            yield DeadMicrophone((UnfitReason.SILENCE if silent else UnfitReason.STUCK).value)
