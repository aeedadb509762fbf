"""Advice for who places a microphone: from the last seconds of what it hears, again and again while somebody asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.windows.placement import placement_findings
from asd_daemon.waveform import SAMPLE_RATE_HZ

_LAST_S, _EVERY_S = 8.0, 2.0


class LiveAdvice:
    """For the sources that are asked about; from one thread."""

    def __init__(self) -> None:
        self._sound: dict[str, NDArray[np.float32]] = {}
        self._said_s: dict[str, float] = {}

    def want(self, names: frozenset[str]) -> None:
        """Remember the sound of these from now on, and of no other."""
        self._sound = {name: self._sound.get(name, np.empty(0, np.float32)) for name in names}
        self._said_s = {name: self._said_s.get(name, float("-inf")) for name in names}

    def hear(self, name: str, samples: NDArray[np.float32]) -> None:
        """Sound has come, float32 (N,); of one that nobody asks about nothing is remembered."""
        if name in self._sound:
            self._sound[name] = np.concatenate((self._sound[name], samples))[-int(_LAST_S * SAMPLE_RATE_HZ) :]

    def due(self) -> Iterator[dict[str, Any]]:
        """What is to be said now."""
        now_s = time.monotonic()
        for name, sound in self._sound.items():
            if now_s - self._said_s[name] < _EVERY_S:
                continue
            findings = placement_findings(sound)
            if findings:
                self._said_s[name] = now_s
                yield {"kind": "advice", "machine": name, "findings": [asdict(one) for one in findings]}
