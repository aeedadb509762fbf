"""`asd-daemon check`: is everything there that the daemon needs? One finding for each thing, good or bad.

It opens what the daemon would open, for a moment, and leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from asd_daemon.errors import AsdError, SourceError
from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Block, SourceLost, UnreadableRecording
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.windows.fitness import rms_level_dbfs
from asd_daemon.hear.windows.quality import unfit_reason
from asd_daemon.run.machine_threshold import MachineThreshold
from asd_daemon.run.publishing import broker_address
from asd_daemon.run.rules import threshold_rule
from asd_daemon.run.shared_bundle import SharedBundle
from asd_daemon.run.source_memories import source_memory_of
from asd_daemon.run.stores import alerts_file
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.keys import MachineSettings
from asd_daemon.settings.plan import Plan
from asd_daemon.tell.storage.machine_memory import parse_memory
from asd_daemon.tell.storage.outbox import read_kept_memory
from asd_daemon.waveform import SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    well: bool
    detail: str


def inspect_plan(plan: Plan, listen_s: float) -> Iterator[Finding]:
    """Look at everything a plan needs, in the order of starting; each finding comes when it is known."""
    names = ", ".join(plan.machines)
    yield Finding("configuration", True, f"{plan.file or 'none, defaults only'}: machines {names}")
    shared_bundle = SharedBundle(plan.bundle, plan.settings.bundle_key)
    yield _finding("bundle", lambda: _bundle(shared_bundle))
    yield _finding("state folder", _state_folder)
    for name, machine in plan.machines.items():
        yield _finding(
            f"{name}: model",
            lambda n=name, m=machine: _model(shared_bundle, n, plan.model_of(n), m),  # type: ignore[misc]
        )
        yield _finding(f"{name}: source", lambda n=name: _listen(n, plan.sources[n], listen_s))  # type: ignore[misc]
    yield _finding("broker", lambda: _broker(plan))


def _finding(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except AsdError as e:
        return Finding(what, False, " ".join(str(e).split()))


def _bundle(shared_bundle: SharedBundle) -> str:
    from asd_daemon.judge.scoring.scorer import self_test

    bundle = shared_bundle.bundle()
    compared = self_test(bundle)
    tested = f", {compared} reference scores reached" if compared else ""
    return f"{bundle.name} {bundle.version} with {', '.join(bundle.machines)}{tested}"


def _model(shared_bundle: SharedBundle, name: str, model: str, machine: MachineSettings) -> str:
    """The threshold that holds, or will when the daemon starts."""
    scorer = shared_bundle.scorer(model, machine.alarm, machine.hop_s)
    memory = parse_memory(read_kept_memory(alerts_file(state_folder()), name), name)
    rule = threshold_rule(machine)
    threshold = MachineThreshold(name, rule, memory.tail).take_up(scorer.threshold, scorer.enrolled)
    others = f"; enrolled {scorer.threshold:.4g}" if threshold.value != scorer.threshold else ""
    stays = "; alarm.threshold_learning is off" if rule.learning is None and rule.fixed is None else ""
    return f"threshold {threshold.value:.4g}, {threshold.words}{others}{stays}"


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
    memory = source_memory_of(machine, spec)
    # Without an identity the first one would be remembered, and a look leaves nothing behind
    device_checks = {machine: memory.check_device} if memory is not None and memory.identity else {}
    source = open_sources({machine: spec}, wait=False, device_checks=device_checks)[machine]
    parts, missing = [], 0
    try:
        for heard in source.events():
            if isinstance(heard, SourceLost | UnreadableRecording):
                raise SourceError(heard.reason)
            if isinstance(heard, Block):
                parts.append(heard.samples)
                missing += heard.gap_samples
            if sum(len(part) for part in parts) >= listen_s * SAMPLE_RATE_HZ:
                break
    finally:
        source.close()
    samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
    reason = unfit_reason(samples, missing)
    if reason is not None:
        raise SourceError(f"{spec}: {samples.shape[0] / SAMPLE_RATE_HZ:.1f} s heard, not fit to judge: {reason.value}")
    usual = "" if memory is None or memory.level_dbfs is None else f", usually {memory.level_dbfs:.0f}"
    device = f", {source.source_health.identity}" if source.source_health.identity else ""
    return (
        f"{spec}: {samples.shape[0] / SAMPLE_RATE_HZ:.1f} s heard at {rms_level_dbfs(samples):.0f} dBFS{usual}{device}"
    )


def _broker(plan: Plan) -> str:
    if plan.settings.mqtt is None:
        return "none: events are printed as JSON lines"
    from asd_daemon.tell.mqtt.connection import try_broker

    address = broker_address(plan.settings, ["check"])
    try_broker(address)
    return f"{address} accepts us{' over TLS' if address.tls else ''}"
