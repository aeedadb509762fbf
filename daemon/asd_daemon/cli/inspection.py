"""`asd-daemon check`: is everything there that the daemon needs? One finding for each thing, good or bad.

It opens what the daemon would open, for a moment, and leaves nothing behind.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from asd_daemon.errors import AsdError, SourceError
from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Block, SourceLost, UnreadableRecording
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.windows.fitness import level_of
from asd_daemon.hear.windows.quality import QualityLimits, unfit_reason
from asd_daemon.run.assembly import SharedBundle, broker_address, memory_of
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.plan import Plan
from asd_daemon.waveform import SAMPLE_RATE_HZ

_MEASURE_S, _BURST_S = 5.0, 1.0  # a program's buffers hold up to a second; stereo or 24 bit is 2.5 s too much in five
_MOST_S = 600.0  # of sound: nothing live sends that much in seconds


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    well: bool
    detail: str


def inspect(plan: Plan, listen_s: float) -> Iterator[Finding]:
    """Look at everything a plan needs, in the order of starting; each finding comes when it is known."""
    names = ", ".join(plan.machines)
    yield Finding("configuration", True, f"{plan.file or 'none, defaults only'}: machines {names}")
    shelf = SharedBundle(plan.bundle, plan.settings.bundle_key)
    yield _try("bundle", lambda: _bundle(shelf))
    yield _try("state folder", _state_folder)
    for name, machine in plan.machines.items():
        yield _try(
            f"{name}: model",
            lambda n=name, m=machine: f"threshold {shelf.scorer(plan.model_of(n), m.alarm, m.hop_s).threshold:.4g}",  # type: ignore[misc]
        )
        yield _try(f"{name}: source", lambda n=name: _listen(n, plan.sources[n], listen_s))  # type: ignore[misc]
    yield _try("broker", lambda: _broker(plan))


def _try(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except AsdError as e:
        return Finding(what, False, " ".join(str(e).split()))


def _bundle(shelf: SharedBundle) -> str:
    from asd_daemon.judge.scoring.scorer import self_test

    bundle = shelf.bundle()
    compared = self_test(bundle)
    tested = f", {compared} reference scores reached" if compared else ""
    return f"{bundle.name} {bundle.version} with {', '.join(bundle.machines)}{tested}"


def _state_folder() -> str:
    folder = state_folder()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(existing, os.W_OK):
        raise SourceError(f"{folder}: can't be written; set ASD_STATE_DIR or give this user the right")
    return str(folder)


def _listen(machine: str, spec: SourceSpec, listen_s: float) -> str:
    """Hear a moment of a source; its level in words.

    Raises:
        SourceError: no sound, none that is fit to judge, or that of another device than the one remembered.
    """
    memory = memory_of(machine, spec)
    # Without an identity the first one would be remembered, and a look leaves nothing behind
    objections = {machine: memory.objection} if memory is not None and memory.identity else {}
    source = open_sources({machine: spec}, wait=False, objections=objections)[machine]
    parts, missing = [], 0
    pace = _Pace(spec, listen_s)
    try:
        for heard in source.events():
            if isinstance(heard, SourceLost | UnreadableRecording):
                raise SourceError(heard.reason)
            if isinstance(heard, Block):
                parts.append(heard.samples)
                missing += heard.gap_samples
            heard_s = sum(len(part) for part in parts) / SAMPLE_RATE_HZ
            if pace.is_over(heard_s):
                break
    finally:
        source.close()
    samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
    reason = unfit_reason(samples, missing, QualityLimits(least_s=0.0))
    pace.check(samples.shape[0] / SAMPLE_RATE_HZ)
    if reason is not None:
        raise SourceError(f"{spec}: {samples.shape[0] / SAMPLE_RATE_HZ:.1f} s heard, not fit to judge: {reason.value}")
    usual = "" if memory is None or memory.level_dbfs is None else f", usually {memory.level_dbfs:.0f}"
    device = f", {source.source_health.identity}" if source.source_health.identity else ""
    return f"{spec}: {samples.shape[0] / SAMPLE_RATE_HZ:.1f} s heard at {level_of(samples):.0f} dBFS{usual}{device}"


class _Pace:
    """Seconds of sound against seconds of clock, for a command's samples say nothing of their rate."""

    def __init__(self, spec: SourceSpec, listen_s: float) -> None:
        self._spec = spec
        self._is_measured = spec.kind == "command" and not math.isinf(spec.speed(1.0))
        self._listen_s = max(listen_s, _MEASURE_S) if self._is_measured else listen_s
        self._begun: tuple[float, float] | None = None

    def is_over(self, heard_s: float) -> bool:
        """Whether enough was heard; called after each block."""
        if not self._is_measured:
            return heard_s >= self._listen_s
        self._begun = self._begun or (time.monotonic(), heard_s)  # what came at once had been waiting
        return time.monotonic() - self._begun[0] >= self._listen_s or heard_s > _MOST_S

    def check(self, heard_s: float) -> None:
        """Compare the two.

        Raises:
            SourceError: much more or less sound than time.
        """
        if self._begun is None:
            return
        clock_s, sound_s = time.monotonic() - self._begun[0], (heard_s - self._begun[1]) / self._spec.speed(1.0)
        if abs(sound_s - clock_s) > _BURST_S + 0.2 * clock_s:
            raise SourceError(
                f"{self._spec}: {sound_s:.1f} s of sound came in {clock_s:.1f} s, if it is raw s16le mono at 16 kHz: it is something"
                " else, or not live; tell the program to write that (ffmpeg: -ac 1 -ar 16000 -f s16le -)"
            )


def _broker(plan: Plan) -> str:
    if plan.settings.mqtt is None:
        return "none: events are printed as JSON lines"
    from asd_daemon.tell.mqtt.connection import try_broker

    address = broker_address(plan.settings, ["check"])
    try_broker(address)
    return f"{address} accepts us{' over TLS' if address.tls else ''}"
