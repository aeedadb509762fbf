"""The door to all sources: a specification → a source that can be heard. Each kind is imported when it is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from asd_daemon.hear.source import Source
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.computing_turns import ComputingTurns


def open_source(spec: SourceSpec, *, wait: bool = False, computing: ComputingTurns | None = None) -> Source:
    """Make a source ready to be heard.

    Args:
        spec: which one.
        wait: keep trying when a device or command isn't there at the start, rather than fail.
        computing: turns of the simulated machines of the process.

    Raises:
        UsageError: options out of range.
        RecordingError: a file that can't be read.
        SourceError: nothing to play.
    """
    if spec.kind == "device" and ("far" in spec.options or "far_device" in spec.options):
        from asd_daemon.hear.sources.shared_microphone import open_microphones

        return open_microphones({spec.target: spec}, wait=wait, device_checks={})[spec.target]
    if spec.kind in ("device", "command"):
        from asd_daemon.hear.sources.microphone import open_command, open_microphone

        return open_microphone(spec, wait=wait) if spec.kind == "device" else open_command(spec, wait=wait)
    if spec.kind == "simulate":
        from asd_daemon.hear.sources.simulation import open_simulation

        return open_simulation(spec, computing)
    from asd_daemon.hear.sources.recordings import open_recordings

    return open_recordings(spec)


def open_sources(
    specs: Mapping[str, SourceSpec], *, wait: bool, device_checks: Mapping[str, Callable[[str], str | None]]
) -> dict[str, Source]:
    """The sources of several machines; machines that name the same device share it.

    Args:
        specs: machine → its source.
        wait: keep trying when a device or command isn't there at the start, rather than fail.
        device_checks: machine → why a device of some identity must not be heard; None where it may.

    Raises:
        AsdError: as `open_source`.
    """
    devices = {name: spec for name, spec in specs.items() if spec.kind == "device"}
    opened: dict[str, Source] = {}
    if devices:
        from asd_daemon.hear.sources.shared_microphone import open_microphones

        opened = open_microphones(devices, wait=wait, device_checks=device_checks)
    computing = ComputingTurns()
    return {name: opened.get(name) or open_source(spec, wait=wait, computing=computing) for name, spec in specs.items()}
