"""Simulated machines and noises: physically motivated, seeded, endless. The door; the physics lies behind it.

Serves the demo, the tests and the smoke data set. One unit is (machine, serial): its geometry and resonances never change. One run
is a draw from the caller's generator: phases, drift, gusts. It plays no sound, reads no file and knows no domain (scene.py does).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np

from asd_daemon.errors import UsageError
from asd_daemon.hear.simulator.machine import Condition, Machine, NamedGenerators, stable_seed
from asd_daemon.hear.simulator.mechanics import CHUNK_SAMPLES, F32, gain, limit
from asd_daemon.hear.simulator.noise import FAMILIES, Noise
from asd_daemon.hear.simulator.rotating import ROTATING
from asd_daemon.hear.simulator.stroking import STROKING
from asd_daemon.hear.simulator.toys import TOYS
from asd_daemon.waveform import SAMPLE_RATE_HZ

_KINDS: dict[str, type[Machine]] = {**ROTATING, **STROKING, **TOYS}

MACHINES: tuple[str, ...] = tuple(_KINDS)
NOISES: tuple[str, ...] = tuple(FAMILIES)
NOMINAL_DBFS = -30.0  # RMS of a healthy machine at its usual setting, and of every noise, over many seconds
SHORTEST_S = 0.1
_CALIBRATION_CHUNKS = 6
_NOISE_CALIBRATION_CHUNKS = 24  # vehicles and compressors come and go


def _draw_seed(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(word) for word in rng.integers(0, 2**32, 4))


def _rms(samples: F32) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def _samples_of(seconds: float) -> int:
    if not SHORTEST_S <= seconds < float("inf"):
        raise UsageError(f"a sound of {seconds} s can't be simulated: ask for {SHORTEST_S} s or more")
    return round(seconds * SAMPLE_RATE_HZ)


class SoundStream(Iterator[F32]):
    """Consecutive blocks of one endless sound, without seams: blocks of any length join to the same samples."""

    def __init__(self, block_s: float) -> None:
        self._block_samples = _samples_of(block_s)
        self._left: F32 = np.empty(0, dtype=np.float32)

    def __next__(self) -> F32:
        return self.read(self._block_samples)

    def read(self, samples: int) -> F32:
        """The next samples, float32 in (-1, 1)."""
        parts = [self._left]
        have = self._left.shape[0]
        while have < samples:
            parts.append(self.next_chunk())
            have += CHUNK_SAMPLES
        whole = np.concatenate(parts)
        self._left = whole[samples:]
        return whole[:samples]

    def next_chunk(self) -> F32:
        """Make the next second of the sound."""
        raise NotImplementedError


class MachineStream(SoundStream):
    """A machine that runs; it can fail and be repaired between blocks.

    A change moves in over the next second that is made: with blocks of whole seconds, over the next block's first second.
    """

    def __init__(self, machine: Machine, scale: np.float32, failures: tuple[str, ...], block_s: float) -> None:
        super().__init__(block_s)
        self._machine = machine
        self._scale = scale
        self._failures = failures
        self._before: dict[str, float] | None = None
        self._after: dict[str, float] = {}

    def fail(self, failure: str, severity: float = 1.0) -> None:
        """Let one failure be present with a severity in [0, 1] (0: none); others stay as they are.

        Raises:
            UsageError: no such failure, or a severity out of range.
        """
        if failure not in self._failures:
            raise UsageError(f"failure {failure!r} is unknown here: use one of {', '.join(self._failures)}")
        if not 0.0 <= severity <= 1.0:
            raise UsageError(f"severity {severity} of {failure} is out of range: give 0 (healthy) to 1 (gross)")
        self._after = {**self._after, failure: float(severity)}

    def repair(self) -> None:
        """Heal every failure."""
        self._after = {}

    def next_chunk(self) -> F32:
        """Make the next second; the first one starts in the state set before it."""
        condition = Condition(self._after if self._before is None else self._before, self._after)
        self._before = dict(self._after)
        return limit(self._scale * self._machine.chunk(condition))


class SimulatedMachine:
    """One physical unit of a machine: geometry and resonances follow from (machine, serial) alone.

    Raises:
        UsageError: no such machine.
    """

    def __init__(self, machine: str, serial: int = 0) -> None:
        if machine not in _KINDS:
            raise UsageError(f"machine {machine!r} can't be simulated: use one of {', '.join(MACHINES)}")
        self.machine = machine
        self.serial = serial
        self._kind = _KINDS[machine]
        self._unit = NamedGenerators(stable_seed("unit", machine, serial))

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """Operating attributes and their allowed values; the first of each is the usual one."""
        return self._kind.attributes

    @property
    def failures(self) -> tuple[str, ...]:
        """Names of the failures this machine can have."""
        return self._kind.failures

    def rates_hz(self, attributes: Mapping[str, str] | None = None) -> Mapping[str, float]:
        """Nominal rates at a setting (shaft, blade pass, mesh, defects …): what a spectrum must show."""
        return dict(self._start(self._unit, attributes).rates_hz)

    def stream(
        self, rng: np.random.Generator, attributes: Mapping[str, str] | None = None, block_s: float = 1.0
    ) -> MachineStream:
        """Start a run of the clean machine; None and missing attributes take their usual values.

        Raises:
            UsageError: an attribute or value that this machine does not have, or a block too short.
        """
        machine = self._start(NamedGenerators(_draw_seed(rng)), attributes)
        return MachineStream(machine, self._calibrated(), self.failures, block_s)

    def render(
        self,
        seconds: float,
        rng: np.random.Generator,
        attributes: Mapping[str, str] | None = None,
        failure: str | None = None,
        severity: float = 1.0,
    ) -> F32:
        """A recording of the clean machine, float32, shape (seconds · 16 000,), about -30 dBFS when healthy.

        Raises:
            UsageError: as `stream` and `MachineStream.fail`, or a length below 0.1 s.
        """
        samples = _samples_of(seconds)
        stream = self.stream(rng, attributes)
        if failure is not None:
            stream.fail(failure, severity)
        return stream.read(samples)

    def _start(self, run: NamedGenerators, attributes: Mapping[str, str] | None) -> Machine:
        setting = {name: values[0] for name, values in self.attributes.items()}
        for name, value in (attributes or {}).items():
            if name not in setting:
                raise UsageError(f"{self.machine} has no attribute {name!r}: it has {', '.join(setting)}")
            if value not in self.attributes[name]:
                known = ", ".join(self.attributes[name])
                raise UsageError(f"{self.machine}: attribute {name} has no value {value!r}: use one of {known}")
            setting[name] = value
        return self._kind(self._unit, run, setting)

    def _calibrated(self) -> np.float32:
        """Factor that brings the healthy unit at its usual setting to NOMINAL_DBFS."""
        return _unit_scale(self.machine, self.serial)


@lru_cache(maxsize=1024)
def _unit_scale(machine: str, serial: int) -> np.float32:
    unit = SimulatedMachine(machine, serial)
    usual = unit._start(NamedGenerators(stable_seed("calibration", machine, serial)), None)
    level = _rms(np.concatenate([usual.chunk(Condition()) for _ in range(_CALIBRATION_CHUNKS)]))
    return np.float32(gain(NOMINAL_DBFS) / level)


class NoiseStream(SoundStream):
    """A place's background noise without end."""

    def __init__(self, noise: Noise, scale: np.float32, block_s: float) -> None:
        super().__init__(block_s)
        self._noise = noise
        self._scale = scale

    def next_chunk(self) -> F32:
        """Make the next second."""
        return limit(self._scale * self._noise.chunk())


@lru_cache(maxsize=len(FAMILIES))
def _noise_scale(family: str) -> np.float32:
    usual = FAMILIES[family](NamedGenerators(stable_seed("calibration", family)))
    level = _rms(np.concatenate([usual.chunk() for _ in range(_NOISE_CALIBRATION_CHUNKS)]))
    return np.float32(gain(NOMINAL_DBFS) / level)


def stream_noise(family: str, rng: np.random.Generator, block_s: float = 1.0) -> NoiseStream:
    """Start a background noise, about -30 dBFS over many seconds.

    Raises:
        UsageError: no such family, or a block too short.
    """
    if family not in FAMILIES:
        raise UsageError(f"noise {family!r} can't be simulated: use one of {', '.join(NOISES)}")
    return NoiseStream(FAMILIES[family](NamedGenerators(_draw_seed(rng))), _noise_scale(family), block_s)


def render_noise(family: str, seconds: float, rng: np.random.Generator) -> F32:
    """A recording of a background noise, float32, shape (seconds · 16 000,).

    Raises:
        UsageError: no such family, or a length below 0.1 s.
    """
    samples = _samples_of(seconds)
    return stream_noise(family, rng).read(samples)


def mix(machine: F32, noise: F32, snr_db: float, level_dbfs: float) -> F32:
    """Machine and noise at a ratio of their RMS, together at a level; peaks are bent below 1.

    A silent part stays silent: the other alone then takes the level.

    Raises:
        UsageError: the two are not equally long.
    """
    if machine.shape != noise.shape:
        raise UsageError(f"machine and noise can't be mixed: {machine.shape[0]} against {noise.shape[0]} samples")
    machine_rms, noise_rms = _rms(machine), _rms(noise)
    if machine_rms > 0 and noise_rms > 0:
        noise = noise * np.float32(machine_rms / noise_rms * 10 ** (-snr_db / 20))
    whole = machine + noise
    whole_rms = _rms(whole)
    return limit(whole * np.float32(gain(level_dbfs) / whole_rms)) if whole_rms > 0 else whole
