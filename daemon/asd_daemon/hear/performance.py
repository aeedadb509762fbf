"""A simulated machine as a source of sound: it runs in a noisy hall, may begin to fail and be repaired, by a given timetable.

Owns the timetable and the pace; the sound itself is the simulator's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from asd_daemon.errors import UsageError
from asd_daemon.hear.capture import SIMULATION_OPTIONS, Block, Heard, SourceSpec
from asd_daemon.hear.playback import Pace
from asd_daemon.hear.simulator import NOISES, SimulatedMachine, stream_noise
from asd_daemon.waveform import SAMPLE_RATE_HZ

_LOG = logging.getLogger(__name__)
_BLOCK_SAMPLES = SAMPLE_RATE_HZ  # 1 s: the simulator changes a machine's state from second to second


@dataclass(frozen=True)
class Timetable:
    """What happens to the machine, in seconds of its own time from the start."""

    failure: str | None = None
    severity: float = 1.0
    """0 healthy to 1 gross."""
    fail_after_s: float = 0.0
    repair_after_s: float = float("inf")
    end_after_s: float = float("inf")


class Performance:
    """A machine that runs in noise, at some speed."""

    live = False
    restarts = 0

    def __init__(
        self,
        machine: SimulatedMachine,
        timetable: Timetable,
        *,
        attributes: dict[str, str],
        noise: str,
        snr_db: float,
        speed: float,
        seed: int,
    ) -> None:
        """Prepare the machine and its hall.

        Raises:
            UsageError: a failure, severity, attribute, value or noise that the simulator does not have.
        """
        self._timetable, self._speed = timetable, speed
        self._noise_gain = np.float32(10 ** (-snr_db / 20))
        machine_seed, noise_seed = np.random.SeedSequence(seed).spawn(2)
        self._machine = machine.stream(np.random.default_rng(machine_seed), attributes)
        self._noise = stream_noise(noise, np.random.default_rng(noise_seed))
        self._pace = Pace(speed)
        self._name = machine.machine
        if timetable.failure is not None:  # refuse a wrong name now, not in an hour
            self._machine.fail(timetable.failure, timetable.severity)
            self._machine.repair()

    def heard(self) -> Iterator[Heard]:
        """Blocks of one second."""
        if self._speed != 1.0:
            how = "as fast as it goes" if self._speed == float("inf") else f"{self._speed:g} times"
            _LOG.info("the simulated %s runs faster than real time: %s", self._name, how)
        second = 0
        while second < self._timetable.end_after_s:
            self._change(second)
            block = next(self._machine) + self._noise_gain * next(self._noise)
            if not self._pace.wait(_BLOCK_SAMPLES):
                return
            second += 1
            yield Block(np.clip(block, -1.0, 1.0), last=second >= self._timetable.end_after_s)

    def close(self) -> None:
        """Stop the machine."""
        self._pace.stop()

    def _change(self, second: int) -> None:
        """Let it fail or be repaired when its time has come."""
        plan = self._timetable
        if plan.failure is None:
            return
        if second == np.ceil(plan.fail_after_s):
            self._machine.fail(plan.failure, plan.severity)
            _LOG.info("the simulated %s begins to fail after %d s: %s", self._name, second, plan.failure)
        if second == np.ceil(plan.repair_after_s):
            self._machine.repair()
            _LOG.info("the simulated %s is repaired after %d s", self._name, second)


def open_simulation(spec: SourceSpec) -> Performance:
    """`simulate:MACHINE?…` with fail, severity, fail_after, repair_after, seconds (all s), snr (dB), noise, speed, seed, serial;
    every other option is an operating attribute of the machine.

    Raises:
        UsageError: something the simulator does not have, or out of range.
    """
    machine = SimulatedMachine(spec.target, int(spec.number("serial", 0, 0, 2**31)))
    timetable = Timetable(
        failure=spec.options.get("fail"),
        severity=spec.number("severity", 1.0, 0, 1),
        fail_after_s=spec.number("fail_after", 0.0),
        repair_after_s=spec.number("repair_after", float("inf")),
        end_after_s=spec.number("seconds", float("inf"), 1),
    )
    if timetable.failure is None and ("fail_after" in spec.options or "repair_after" in spec.options):
        raise UsageError(f"source {spec}: say what fails, fail= one of {', '.join(machine.failures)}")
    return Performance(
        machine,
        timetable,
        attributes={k: v for k, v in spec.options.items() if k not in SIMULATION_OPTIONS},
        noise=spec.options.get("noise", NOISES[0]),
        snr_db=spec.number("snr", 6.0, -60, 120),
        speed=spec.speed(1.0),
        seed=int(spec.number("seed", 0, 0, 2**31)),
    )
