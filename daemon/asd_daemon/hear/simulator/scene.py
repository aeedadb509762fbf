"""Where a simulated machine stands: its domains (settings, noise, microphone), and the sound of machine and place together.

The simulated data set and the daemon's simulated source take their sound from here, so what is trained on is what is heard.
It makes no physics (rotating.py, stroking.py, toys.py, noise.py do) and writes no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

from asd_daemon.hear.simulator.mechanics import CHUNK_SAMPLES, F32, Filter, gain, limit, spectrum
from asd_daemon.hear.simulator.unit import (
    NOMINAL_DBFS,
    MachineStream,
    NoiseStream,
    SimulatedMachine,
    SoundStream,
    stream_noise,
)

DomainName = Literal["source", "target"]

SNR_DB: Mapping[DomainName, tuple[float, float]] = {"source": (4.0, 10.0), "target": (4.0, 10.0)}
LEVEL_DBFS = (-31.0, -29.0)


@dataclass(frozen=True)
class Domain:
    """Conditions of recording that belong together."""

    attributes: Mapping[str, tuple[str, ...]]
    """Settings the machine runs at here."""
    noises: tuple[str, ...]
    """Families of background noise heard here."""
    tilt_db: float = 0.0
    """How much brighter the microphone hears 8 kHz than 100 Hz."""

    @property
    def settings(self) -> tuple[Mapping[str, str], ...]:
        """Every combination of attribute values, in a fixed order."""
        names = tuple(self.attributes)
        return tuple(dict(zip(names, values, strict=True)) for values in product(*self.attributes.values()))


DOMAINS: Mapping[str, Mapping[DomainName, Domain]] = {
    "fan": {
        "source": Domain({"m-n": ("W", "X"), "load": ("0", "50")}, ("pink", "hum")),
        "target": Domain({"m-n": ("Y", "Z"), "load": ("0", "100")}, ("vehicles",), -2.0),
    },
    "gearbox": {
        "source": Domain({"volt": ("1.5", "2.0"), "wt": ("0", "50", "100")}, ("hum", "clanks")),
        "target": Domain({"volt": ("2.5", "3.0"), "wt": ("150", "200")}, ("compressor",), 2.0),
    },
    "bearing": {
        "source": Domain({"vel": ("6", "10", "14"), "loc": ("A", "B")}, ("pink", "compressor")),
        "target": Domain({"vel": ("18", "22"), "loc": ("C", "D")}, ("hum",)),
    },
    "slider": {
        "source": Domain({"vel": ("500", "600", "800"), "ac": ("0.10", "0.20")}, ("hum", "vehicles")),
        "target": Domain({"vel": ("400", "1000"), "ac": ("0.05", "0.30")}, ("clanks",)),
    },
    "valve": {
        "source": Domain({"pat": ("00", "01"), "v-number": ("0", "1")}, ("pink", "chatter")),
        "target": Domain({"pat": ("02", "03"), "v-number": ("0", "2")}, ("compressor",), 2.0),
    },
    "ToyCar": {
        "source": Domain({"car": ("A1", "B1"), "spd": ("28V", "31V", "34V"), "mic": ("1",)}, ("chatter", "pink")),
        "target": Domain({"car": ("C1", "D1"), "spd": ("37V", "40V"), "mic": ("2",)}, ("rain",)),
    },
    "ToyTrain": {
        "source": Domain({"car": ("A1", "B1"), "spd": ("7", "8", "9"), "mic": ("1",)}, ("rain", "chatter")),
        "target": Domain({"car": ("C1", "D1"), "spd": ("6", "10"), "mic": ("2",)}, ("pink",)),
    },
}


@dataclass(frozen=True)
class Scene:
    """One recording's circumstances."""

    attributes: Mapping[str, str]
    noise: str
    snr_db: float
    """Healthy unit at its usual setting against the noise, both over many seconds; a clip's own ratio lies around it."""
    level_dbfs: float
    """RMS of the two together, likewise."""
    tilt_db: float = 0.0

    @property
    def gains(self) -> tuple[np.float32, np.float32]:
        """Factors for the machine's and the noise's nominal sound."""
        machine = gain(self.level_dbfs - NOMINAL_DBFS) / np.sqrt(1 + 10 ** (-self.snr_db / 10))
        return np.float32(machine), np.float32(machine * gain(-self.snr_db))


def draw_scene(
    domain: Domain,
    rng: np.random.Generator,
    snr_db: tuple[float, float] = SNR_DB["source"],
    level_dbfs: tuple[float, float] = LEVEL_DBFS,
    setting: Mapping[str, str] | None = None,
) -> Scene:
    """Circumstances by chance within a domain and ranges; a setting that is given is kept."""
    settings = domain.settings
    chosen = settings[int(rng.integers(len(settings)))]
    noise = domain.noises[int(rng.integers(len(domain.noises)))]
    return Scene(
        attributes=chosen if setting is None else setting,
        noise=noise,
        snr_db=float(rng.uniform(*snr_db)),
        level_dbfs=float(rng.uniform(*level_dbfs)),
        tilt_db=domain.tilt_db,
    )


class SceneStream(SoundStream):
    """A machine in its place without end: it can fail and be repaired between blocks (see MachineStream).

    With `only`, the machine alone or the place alone, as supplemental recordings have it, at the level of the whole.
    """

    def __init__(
        self,
        machine: SimulatedMachine,
        scene: Scene,
        rng: np.random.Generator,
        block_s: float = 1.0,
        only: Literal["machine", "noise"] | None = None,
    ) -> None:
        super().__init__(block_s)
        self.scene = scene
        self._unit, self._rng = machine, rng
        self._machine: MachineStream | None = machine.stream(rng, scene.attributes)
        self._before: MachineStream | None = None
        self._is_changing = False
        self._failures: dict[str, float] = {}
        self._noise: NoiseStream = stream_noise(scene.noise, rng)
        alone = gain(scene.level_dbfs - NOMINAL_DBFS)
        self.gains = scene.gains if only is None else (alone * (only == "machine"), alone * (only == "noise"))
        """Factors for the machine's and the noise's nominal sound."""
        self.microphone = self.new_microphone()

    def new_microphone(self) -> Filter:
        """One of the place's microphones: what it does to the sound that reaches it."""
        tilt_db = self.scene.tilt_db
        return Filter(spectrum([(100, -tilt_db / 2), (8000, tilt_db / 2)], 256))

    def fail(self, failure: str, severity: float = 1.0) -> None:
        """Let the machine have a failure.

        Raises:
            UsageError: no such failure, or a severity out of range.
        """
        if self._machine is not None:
            self._machine.fail(failure, severity)
        self._failures[failure] = severity

    def repair(self) -> None:
        """Heal the machine."""
        self._failures.clear()
        if self._machine is not None:
            self._machine.repair()

    def check_setting(self, setting: Mapping[str, str] | None) -> None:
        """Refuse a setting that the machine does not have.

        Raises:
            UsageError: names the attribute and its values.
        """
        self._unit.rates_hz({**self.scene.attributes, **(setting or {})})

    def run_at(self, setting: Mapping[str, str] | None) -> None:
        """Let the machine run at another setting, or (None) stand still; over the next second that is made. Its failures stay.

        Raises:
            UsageError: an attribute or value that the machine does not have.
        """
        machine = None
        if setting is not None:
            machine = self._unit.stream(self._rng, {**self.scene.attributes, **setting})
            for failure, severity in self._failures.items():
                machine.fail(failure, severity)
        self._before, self._machine, self._is_changing = self._machine, machine, True

    def next_chunk(self) -> F32:
        """Make the next second."""
        machine, noise = self.gains
        whole = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        if machine > 0:
            whole += machine * self.machine_chunk()
        if noise > 0:
            whole += noise * self.noise_chunk()
        return limit(self.microphone(whole))

    def noise_chunk(self) -> F32:
        """The next second of the noise."""
        return self._noise.next_chunk()

    def machine_chunk(self) -> F32:
        """The next second of the machine: as it runs, or fading from what it did before."""
        silence = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        now = silence if self._machine is None else self._machine.next_chunk()
        if not self._is_changing:
            return now
        before = silence if self._before is None else self._before.next_chunk()
        share = np.linspace(0, 1, CHUNK_SAMPLES, dtype=np.float32)
        self._before, self._is_changing = None, False
        return np.asarray(share * now + (1 - share) * before, np.float32)
