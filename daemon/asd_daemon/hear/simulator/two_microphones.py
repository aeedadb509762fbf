"""Two microphones in a hall: one at the machine, one far from it, and noises that stand or pass by.

Any sounds can be put there, simulated or recorded; a simulated machine in its place without end is heard with both. The hall itself is
hall.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from asd_daemon.errors import UsageError
from asd_daemon.hear.simulator.hall import Hall, HallPath, Point, Way
from asd_daemon.hear.simulator.mechanics import CHUNK_SAMPLES, F32, gain, limit
from asd_daemon.hear.simulator.scene import Scene, SceneStream
from asd_daemon.hear.simulator.unit import SimulatedMachine

CROSSTALK_DB = (-20.0, -6.0)
"""How much softer the far microphone hears the machine."""
_SPEED_M_S = (0.7, 2.5)


@dataclass(frozen=True)
class TwoMicrophones:
    """Where in which hall things are."""

    hall: Hall
    machine_m: Point
    near_m: Point
    far_m: Point
    noises: tuple[Way, ...]
    """Where each noise comes from."""
    crosstalk_db: float
    """How much softer the far microphone hears the machine than the near one."""
    far_gain_db: float = 0.0
    """How much louder the far microphone makes all it hears."""

    def machine_paths(self) -> tuple[HallPath, HallPath]:
        """From the machine to both microphones; the near one hears it as loud as it is."""
        way, hall = Way.still(self.machine_m), self.hall
        near, far = (_energy(hall, self.machine_m, microphone_m) for microphone_m in (self.near_m, self.far_m))
        far_level = float(gain(self.crosstalk_db))
        return HallPath(hall, way, self.near_m, 1 / near), HallPath(hall, way, self.far_m, far_level / far)

    def noise_paths(self, number: int) -> tuple[HallPath, HallPath]:
        """From a noise to both microphones; on the mean of its way the near one hears it as loud as it is."""
        way = self.noises[number]
        places = (
            [way.start_m, way.end_m, *(way.at(second) for second in range(0, 20, 2))] if way.moves else [way.start_m]
        )
        level = float(np.sqrt(np.mean([_energy(self.hall, at_m, self.near_m) ** 2 for at_m in places])))
        far = float(gain(self.far_gain_db)) / level
        return HallPath(self.hall, way, self.near_m, 1 / level), HallPath(self.hall, way, self.far_m, far)

    def with_crosstalk(self, crosstalk_db: float) -> TwoMicrophones:
        """The same, the machine heard otherwise by the far microphone."""
        return replace(self, crosstalk_db=crosstalk_db)


def _energy(hall: Hall, source_m: Point, microphone_m: Point) -> float:
    """By how much a hall makes white noise louder on that way, as a factor of its RMS."""
    return float(np.linalg.norm(hall.impulse_response(source_m, microphone_m)))


def draw_two_microphones(rng: np.random.Generator, noises: int = 2, *, moving: int = 0) -> TwoMicrophones:
    """Places by chance: the near microphone 0.3 to 0.7 m from the machine, the far one 3 to 6 m, noises 4 m and more.

    Args:
        rng: draws them.
        noises: how many.
        moving: how many of these pass by, the first ones.
    """
    size = (float(rng.uniform(16, 30)), float(rng.uniform(10, 18)), float(rng.uniform(4.5, 9)))
    hall = Hall(size, float(rng.uniform(0.5, 0.8)))
    machine = (size[0] * float(rng.uniform(0.25, 0.45)), size[1] * float(rng.uniform(0.3, 0.7)), 1.0)
    near = _beside(rng, machine, float(rng.uniform(0.3, 0.7)), size, 1.2)
    far = _beside(rng, machine, float(rng.uniform(3.0, 6.0)), size, 2.5)
    ways = []
    for number in range(noises):
        start = _elsewhere(rng, machine, size)
        end = _elsewhere(rng, machine, size) if number < moving else start
        ways.append(Way(start, end, float(rng.uniform(*_SPEED_M_S)) if number < moving else 0.0))
    return TwoMicrophones(
        hall, machine, near, far, tuple(ways), float(rng.uniform(*CROSSTALK_DB)), float(rng.uniform(-3, 3))
    )


def _beside(rng: np.random.Generator, place_m: Point, distance_m: float, size_m: Point, height_m: float) -> Point:
    """A place in the hall at a distance from another."""
    for _ in range(100):
        angle = float(rng.uniform(0, 2 * np.pi))
        x, y = place_m[0] + distance_m * np.cos(angle), place_m[1] + distance_m * np.sin(angle)
        if 0.3 < x < size_m[0] - 0.3 and 0.3 < y < size_m[1] - 0.3:
            return float(x), float(y), height_m
    return place_m[0], min(size_m[1] - 0.3, place_m[1] + distance_m), height_m


def _elsewhere(rng: np.random.Generator, machine_m: Point, size_m: Point) -> Point:
    """A place 4 m or more from the machine."""
    while True:
        place = (float(rng.uniform(0.5, size_m[0] - 0.5)), float(rng.uniform(0.5, size_m[1] - 0.5)), 1.5)
        if np.hypot(place[0] - machine_m[0], place[1] - machine_m[1]) >= 4:
            return place


@dataclass(frozen=True)
class HeardApart:
    """What two microphones hear, machine and noise apart: each float32 (N, 2), near and far; what they hear is the sum."""

    machine: F32
    noise: F32

    def mixed(self, snr_db: float) -> HeardApart:
        """The same, the noise scaled so that the near microphone hears the machine so much louder (RMS)."""
        levels = [
            float(np.sqrt(np.mean(np.square(part[:, 0], dtype=np.float64)))) for part in (self.machine, self.noise)
        ]
        if min(levels) <= 0:
            return self
        return HeardApart(self.machine, self.noise * np.float32(levels[0] / levels[1] * 10 ** (-snr_db / 20)))

    @property
    def both(self) -> F32:
        """What is heard, (N, 2)."""
        return self.machine + self.noise


def hear_in_hall(places: TwoMicrophones, machine: F32, noises: Sequence[F32]) -> HeardApart:
    """Put recordings into a hall.

    Args:
        places: who is where.
        machine: float32 (N,) at 16 kHz.
        noises: each (N,), one for each noise of `places`, or fewer.

    Raises:
        UsageError: recordings that are not equally long, or more noises than places for them.
    """
    if len(noises) > len(places.noises) or any(noise.shape != machine.shape for noise in noises):
        raise UsageError(
            f"{len(noises)} noises of {[noise.shape[0] for noise in noises]} samples beside a machine of {machine.shape[0]}"
            f" in a hall with places for {len(places.noises)}: each needs a place and the machine's length"
        )
    heard = np.zeros((2, *machine.shape, 2), np.float32)
    far_gain = gain(places.far_gain_db)
    for column, path in enumerate(places.machine_paths()):
        heard[0, :, column] = _through(path, machine) * (far_gain if column else 1)
    for number, noise in enumerate(noises):
        for column, path in enumerate(places.noise_paths(number)):
            heard[1, :, column] += _through(path, noise)
    return HeardApart(heard[0], heard[1])


def _through(path: HallPath, sound: F32) -> F32:
    whole = np.pad(sound, (0, -sound.shape[0] % CHUNK_SAMPLES)).reshape(-1, CHUNK_SAMPLES)
    return np.concatenate([path(chunk) for chunk in whole])[: sound.shape[0]]


class HallStream(SceneStream):
    """A machine in its place without end, as the near microphone hears it; `far` holds what the far one heard of the same second.

    With blocks of whole seconds only: the far microphone's sound belongs to the second that was made last.
    """

    def __init__(
        self,
        machine: SimulatedMachine,
        scene: Scene,
        places: TwoMicrophones,
        rng: np.random.Generator,
        only: Literal["machine", "noise"] | None = None,
    ) -> None:
        super().__init__(machine, scene, rng, 1.0, only)
        self._machine_paths, self._noise_paths = places.machine_paths(), places.noise_paths(0)
        self._far_gain = gain(places.far_gain_db)
        self._far_microphone = self.new_microphone()
        self.far: F32 = np.zeros(CHUNK_SAMPLES, np.float32)
        """Float32 (16 000,)."""

    def next_chunk(self) -> F32:
        """Make the next second for both microphones."""
        near, far = np.zeros((2, CHUNK_SAMPLES), np.float32)
        machine, noise = self.gains
        if machine > 0:
            sound = machine * self.machine_chunk()
            near += self._machine_paths[0](sound)
            far += self._far_gain * self._machine_paths[1](sound)
        if noise > 0:
            sound = noise * self.noise_chunk()
            near += self._noise_paths[0](sound)
            far += self._noise_paths[1](sound)
        self.far = limit(self._far_microphone(far))
        return limit(self.microphone(near))
