"""A simulated machine in its place as a source of sound: it may begin to fail and be repaired, by a given timetable.

Owns the timetable and the pace; the sound is that of `scene`, which the bundled models were trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import UsageError
from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, Scene, SceneStream, draw_scene
from asd_daemon.hear.simulator.two_microphones import CROSSTALK_DB, HallStream, draw_two_microphones
from asd_daemon.hear.source import Block, SourceEvent, SourceHealth
from asd_daemon.hear.source_spec import SIMULATION_OPTIONS, SourceSpec
from asd_daemon.hear.sources.computing_turns import ComputingTurns
from asd_daemon.hear.sources.recordings import PlaybackClock
from asd_daemon.hear.sources.work_cycle import WorkCycle, parse_cycle
from asd_daemon.waveform import SAMPLE_RATE_HZ

_LOG = logging.getLogger(__name__)
_BLOCK_SAMPLES = SAMPLE_RATE_HZ  # 1 s: the simulator changes a machine's state from second to second


@dataclass(frozen=True)
class FailureTimetable:
    """What happens to the machine, in seconds of its own time from the start."""

    failure: str | None = None
    severity: float = 1.0
    """0 healthy to 1 gross."""
    fail_after_s: float = 0.0
    repair_after_s: float = float("inf")
    end_after_s: float = float("inf")
    cycle: WorkCycle | None = None
    """How it runs, stands still and changes; None: it runs all the time."""


class SimulationSource:
    """A machine that runs in its place, at some speed."""

    live = False
    source_health = SourceHealth()

    def __init__(
        self,
        name: str,
        stream: SceneStream,
        timetable: FailureTimetable,
        speed: float,
        computing: ComputingTurns | None = None,
    ) -> None:
        """Put a machine on its timetable.

        Args:
            name: of the machine.
            stream: its sound.
            timetable: when it fails and is repaired.
            speed: how much faster than real time it runs.
            computing: turns of the machines of a process at computing their sound.

        Raises:
            UsageError: a failure or severity that the machine does not have.
        """
        self._name, self._stream, self._timetable, self._speed = name, stream, timetable, speed
        self._clock, self._computing = PlaybackClock(speed), computing or ComputingTurns()
        if timetable.failure is not None:  # refuse a wrong name now, not in an hour
            stream.fail(timetable.failure, timetable.severity)
            stream.repair()
        self._step: int | None = None
        for step in timetable.cycle.steps if timetable.cycle else ():  # likewise a wrong setting
            stream.check_setting(step.setting)

    def events(self) -> Iterator[SourceEvent]:
        """Blocks of one second."""
        if self._speed != 1.0:
            how = "as fast as it goes" if self._speed == float("inf") else f"{self._speed:g} times"
            _LOG.info("the simulated %s runs faster than real time: %s", self._name, how)
        second = 0
        while second < self._timetable.end_after_s:
            with self._computing.turn(second):
                if self._clock.is_stopped:
                    return
                self._change(second)
                block = next(self._stream)
            if not self._clock.wait(_BLOCK_SAMPLES):
                return
            second += 1
            yield Block(block, last=second >= self._timetable.end_after_s, far=self._far())

    def close(self) -> None:
        """Stop the machine."""
        self._clock.stop()

    def _far(self) -> NDArray[np.float32] | None:
        """What the second microphone has heard of the second at hand."""
        return self._stream.far if isinstance(self._stream, HallStream) else None

    def _change(self, second: int) -> None:
        """Let it fail or be repaired when its time has come."""
        plan = self._timetable
        step = plan.cycle.step_at(second) if plan.cycle else None
        if plan.cycle is not None and step is not None and step != self._step:
            self._stream.run_at(plan.cycle.steps[step].setting)
            self._step = step
        if plan.failure is None:
            return
        if second == np.ceil(plan.fail_after_s):
            self._stream.fail(plan.failure, plan.severity)
            _LOG.info("the simulated %s begins to fail after %d s: %s", self._name, second, plan.failure)
        if second == np.ceil(plan.repair_after_s):
            self._stream.repair()
            _LOG.info("the simulated %s is repaired after %d s", self._name, second)


def open_simulation(spec: SourceSpec, computing: ComputingTurns | None = None) -> SimulationSource:
    """`simulate:MACHINE?…`: fail, severity, fail_after, repair_after, seconds (s), cycle, domain, noise, snr (dB), speed, seed,
    serial. `cycle=load=0:600,off:300` runs ten minutes at that load, stands still for five, and so on (work_cycle.py).

    With `far=1` it stands in a hall and a second microphone, far from it, is heard too; `crosstalk` (dB) is how much softer that one hears
    the machine, and with `moving=1` the noise passes by. Every other option is an operating attribute of the machine; what is not given is
    drawn from the domain by the seed.

    Raises:
        UsageError: something the simulator does not have, or out of range.
    """
    machine = SimulatedMachine(spec.target, int(spec.number("serial", 0, 0, 2**31)))
    timetable = FailureTimetable(
        failure=spec.options.get("fail"),
        severity=spec.number("severity", 1.0, 0, 1),
        fail_after_s=spec.number("fail_after", 0.0),
        repair_after_s=spec.number("repair_after", float("inf")),
        end_after_s=spec.number("seconds", float("inf"), 1),
        cycle=parse_cycle(spec.options["cycle"]) if "cycle" in spec.options else None,
    )
    if timetable.failure is None and ("fail_after" in spec.options or "repair_after" in spec.options):
        raise UsageError(f"source {spec}: say what fails, fail= one of {', '.join(machine.failures)}")
    rng = np.random.default_rng(int(spec.number("seed", 0, 0, 2**31)))
    stream = _stream(spec, machine, rng)
    return SimulationSource(spec.target, stream, timetable, spec.speed(1.0), computing)


def _stream(spec: SourceSpec, machine: SimulatedMachine, rng: np.random.Generator) -> SceneStream:
    """The machine's sound as one microphone hears it, or two."""
    scene = _scene(spec, machine, rng)
    if not spec.flag("far"):
        needs_two = next((option for option in ("crosstalk", "moving") if option in spec.options), None)
        if needs_two is not None:
            raise UsageError(f"source {spec}: {needs_two} has a meaning with far=1 only")
        return SceneStream(machine, scene, rng)
    places = draw_two_microphones(rng, 1, moving=int(spec.flag("moving")))
    crosstalk_db = spec.number("crosstalk", places.crosstalk_db, -60, CROSSTALK_DB[1])
    return HallStream(machine, scene, places.with_crosstalk(crosstalk_db), rng)


def _scene(spec: SourceSpec, machine: SimulatedMachine, rng: np.random.Generator) -> Scene:
    """The place that is asked for, the rest by chance."""
    name = spec.options.get("domain", "source")
    if name not in ("source", "target"):
        raise UsageError(f"source {spec}: domain is {name!r}, must be source or target")
    scene = draw_scene(DOMAINS[spec.target]["source" if name == "source" else "target"], rng)
    own = {k: v for k, v in spec.options.items() if k not in SIMULATION_OPTIONS}
    if unknown := sorted(set(own) - set(machine.attributes)):
        known = ", ".join(sorted(SIMULATION_OPTIONS))
        raise UsageError(
            f"source {spec}: {unknown[0]!r} is no option ({known}) and no attribute of {spec.target} ({', '.join(machine.attributes)})"
        )
    return replace(
        scene,
        attributes={**scene.attributes, **own},
        noise=spec.options.get("noise", scene.noise),
        snr_db=spec.number("snr", scene.snr_db, -60, 120),
    )
