"""Toy vehicles: a car on a roller bench, a train on a loop of track.

Owns their physics only; what they share with others lies in mechanics.py, and unit.py is what others use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from asd_daemon.hear.simulator.machine import Condition, Machine
from asd_daemon.hear.simulator.mechanics import (
    CHUNK_SAMPLES,
    F32,
    F64,
    ColouredNoise,
    Filter,
    Impacts,
    Shaft,
    SlowDrift,
    decaying_orders,
    gain,
    harmonics,
    impulses,
    modes,
    path,
    pulse,
    random_moments,
    spectrum,
    unit_energy,
)


class ToyCar(Machine):
    """A brushed motor, pinion and spur gear, four wheels on rollers, a thin plastic body that rattles."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "car": ("A1", "B1", "C1", "D1"),
        "spd": ("31V", "28V", "34V", "37V", "40V"),
        "mic": ("1", "2"),
    }
    failures: ClassVar[tuple[str, ...]] = ("bent_shaft", "damaged_gear", "deformed_tyre")

    def _build(self) -> None:
        car, mic = self._unit.of(f"car {self._setting['car']}"), self._unit.of(f"mic {self._setting['mic']}")
        volt = float(self._setting["spd"].removesuffix("V"))
        motor_hz = float(car.uniform(2.6, 3.4)) * volt
        self._pinion, self._spur = int(car.integers(8, 12)), int(car.integers(38, 52))
        self._ratio = self._pinion / self._spur
        self.rates_hz = {"motor": motor_hz, "mesh": motor_hz * self._pinion, "wheel": motor_hz * self._ratio}
        self._shaft = Shaft(self._run.of("shaft"))
        self._road = SlowDrift(self._run.of("road"), 0.5)
        self._motor_orders, self._mesh_orders = decaying_orders(car, 14, 1.2, 4.0), decaying_orders(car, 6, 5.0)
        self._wheel_orders = decaying_orders(car, 8, 2.0)
        hump_hz = float(car.uniform(600, 1400))
        self._rollers = ColouredNoise(
            self._run.of("rollers"), spectrum([(80, -14), (hump_hz, 0), (3500, -10), (8000, -22)])
        )
        self._body = Filter(modes(car.uniform(350, 3800, 8), car.uniform(0.003, 0.012, 8), car.uniform(-8, 0, 8)))
        self._rattle = self._run.of("rattle")
        self._rattle_hz = float(car.uniform(2, 7))
        self._tooth, self._knock = Impacts(self._run.of("tooth"), 0.006), Impacts(self._run.of("knock"), 0.02)
        self._strength = self._run.of("strength")
        self._gear_ring = Filter(
            modes(car.uniform(1200, 5200, 5), car.uniform(0.0015, 0.005, 5), car.uniform(-6, 0, 5))
        )
        self._scuff = ColouredNoise(self._run.of("scuff"), spectrum([(60, -6), (350, 0), (1200, -6), (8000, -25)]))
        self._path = Filter(path(mic, float(mic.uniform(-5, 3)), 8))
        loud_db = 6 * np.log2(volt / 31)
        self._levels = {
            "mesh": self._vary("mesh", -4 + loud_db),
            "motor": self._vary("motor", -6 + loud_db),
            "rollers": self._vary("rollers", -2 + loud_db),
            "rattle": 6 * self._vary("rattle", loud_db),
        }

    def chunk(self, condition: Condition) -> F32:
        """The next second of the car."""
        road = self._road.chunk()
        turns = self._shaft.chunk(
            self.rates_hz["motor"] * self._offset * (1 + 0.006 * self._speed.chunk() + 0.002 * road)
        )
        wheel = turns * self._ratio
        mesh_turns, pull = turns * self._pinion, 1 + 0.1 * np.cos(2 * np.pi * wheel)
        bent = condition.of("bent_shaft")
        if bent is not None:  # the axle wobbles: gears go in and out of mesh with each turn of the wheel
            mesh_turns = mesh_turns + 0.5 * bent * np.sin(2 * np.pi * wheel)
            pull = pull + 0.75 * bent * np.cos(2 * np.pi * wheel + 0.7)
        mesh = harmonics(mesh_turns, self._mesh_orders) * pull.astype(np.float32)
        rolling = self._rollers.chunk() * (1 + 0.15 * harmonics(wheel, self._wheel_orders) + 0.1 * road).astype(
            np.float32
        )
        sound = self._levels["mesh"] * mesh + self._levels["motor"] * harmonics(turns, self._motor_orders)
        sound += self._levels["rollers"] * rolling
        loose = random_moments(self._rattle, self._rattle_hz)
        rattles = self._levels["rattle"] * impulses(loose, self._rattle.exponential(1.0, loose.shape))
        blows, scuffs = self._broken(condition, wheel)
        if bent is not None:
            at = self._knock.chunk(wheel)
            rattles = rattles + impulses(
                at, 14 * bent[at.astype(np.int64)] * self._strength.uniform(0.2, 1.0, at.shape)
            )
        return self._path(0.6 * sound + 0.6 * self._body(sound + rattles) + blows + scuffs)

    def _broken(self, condition: Condition, wheel: F64) -> tuple[F32, F32]:
        """A broken tooth clacks once a turn of the spur gear; a flat tyre scuffs once a turn."""
        blows: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        scuffs = blows
        damaged = condition.of("damaged_gear")
        if damaged is not None:
            at = self._tooth.chunk(wheel + 0.37)
            strength = 32 * damaged[at.astype(np.int64)] * 10 ** (self._strength.normal(0, 1.5, at.shape) / 20)
            blows = self._gear_ring(impulses(at, strength))
        flat = condition.of("deformed_tyre")
        if flat is not None:
            scuffs = 3.5 * flat * pulse(wheel + 0.2, 0.2) * self._scuff.chunk()
        return blows, scuffs


class ToyTrain(Machine):
    """A locomotive on a loop of track: motor and worm gear, rail joints under every axle, louder in the bends."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "car": ("A1", "B1", "C1", "D1"),
        "spd": ("8", "6", "7", "9", "10"),
        "mic": ("1", "2"),
    }
    failures: ClassVar[tuple[str, ...]] = ("flat_wheel", "broken_shaft", "dislocated_rail")

    def _build(self) -> None:
        car, mic = self._unit.of(f"car {self._setting['car']}"), self._unit.of(f"mic {self._setting['mic']}")
        track = self._unit.of("track")
        speed_m_s = 0.11 * float(self._setting["spd"])
        self._rail_m, self._rails = float(track.uniform(0.22, 0.30)), int(track.integers(10, 15))
        self._wheel_m = float(car.uniform(0.045, 0.06))  # circumference
        self._gear = float(car.integers(11, 17))
        self._axles_m = np.array([0.0, 0.03, 0.09, 0.12]) + car.uniform(-0.006, 0.006, 4)
        self.rates_hz = {
            "wheel": speed_m_s / self._wheel_m,
            "joint": speed_m_s / self._rail_m,
            "lap": speed_m_s / self._rail_m / self._rails,
            "motor": speed_m_s / self._wheel_m * self._gear,
        }
        self._speed_m_s = speed_m_s
        self._way = Shaft(self._run.of("way"))  # metres, rather than turns
        self._start_m = float(self._run.of("start").uniform(0, self._rail_m * self._rails))
        self._joints = [Impacts(self._run.of(f"joint {i}")) for i in range(4)]
        self._bad_joints = [Impacts(self._run.of(f"bad joint {i}")) for i in range(4)]
        self._unevenness = self._run.of("unevenness")
        self._motor_orders = decaying_orders(car, 14, 1.5, 4.0)
        hump_hz = float(car.uniform(900, 2200))
        self._rolling = ColouredNoise(
            self._run.of("rolling"), spectrum([(100, -20), (hump_hz, 0), (4500, -8), (8000, -18)])
        )
        self._rail = Filter(modes(track.uniform(500, 5500, 8), track.uniform(0.002, 0.008, 8), track.uniform(-8, 0, 8)))
        self._bad_rail = Filter(
            modes(track.uniform(400, 4500, 8), track.uniform(0.002, 0.01, 8), track.uniform(-8, 0, 8))
        )
        self._flange_hz = float(car.uniform(2600, 4200))
        self._flange = Filter(modes([self._flange_hz, self._flange_hz * 1.3], [0.008, 0.006], [0.0, -5.0]))
        self._flat, self._clack = Impacts(self._run.of("flat"), 0.004), Impacts(self._run.of("clack"), 0.06)
        shaking = np.exp(-np.arange(3200) / 900) * track.standard_normal(3200)  # 56 ms
        self._shaken = Filter(unit_energy(shaking))
        self._strength = self._run.of("strength")
        self._jerk = SlowDrift(self._run.of("jerk"), 0.04)
        self._path = Filter(path(mic, float(mic.uniform(-5, 3)), 8))
        loud_db = 6 * np.log2(speed_m_s / 0.88)
        self._levels = {
            "rolling": self._vary("rolling", -2 + loud_db),
            "motor": self._vary("motor", -7 + loud_db),
            "joint": 8 * self._vary("joint", loud_db),
            "bend": self._vary("bend", -6 + loud_db),
            "fault": gain(loud_db),
        }

    def chunk(self, condition: Condition) -> F32:
        """The next second on the track."""
        pace = self._speed_m_s * self._offset * (1 + 0.012 * self._speed.chunk())
        lap_m = self._rail_m * self._rails
        shaft = condition.of("broken_shaft")
        if shaft is not None:
            pace = pace * (1 + 0.10 * shaft * np.clip(self._jerk.chunk(), -2.5, 2.5))
        way_m = self._start_m + self._way.chunk(pace)
        lap = way_m / lap_m
        bend = 0.5 - 0.5 * np.tanh(6 * np.cos(4 * np.pi * lap)).astype(np.float32)  # two bends a lap
        rolling = self._rolling.chunk() * (0.8 + 0.5 * bend)
        wheel = way_m / self._wheel_m
        motor = harmonics(wheel * self._gear, self._motor_orders)
        train = self._joint_blows(way_m) + self._fault_blows(condition, wheel)
        sound = self._levels["rolling"] * rolling + self._levels["motor"] * motor + self._rail(train)
        sound += self._dislocated(condition, way_m)
        return self._path(sound + self._levels["bend"] * self._flange(0.7 * rolling * bend))

    def _joint_blows(self, way_m: F64) -> F32:
        """Every axle strikes every joint."""
        train: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        for axle_m, joint in zip(self._axles_m, self._joints, strict=True):
            at = joint.chunk((way_m - axle_m) / self._rail_m)
            train += impulses(at, float(self._levels["joint"]) * 10 ** (self._unevenness.normal(0, 2.5, at.shape) / 20))
        return train

    def _dislocated(self, condition: Condition, way_m: F64) -> F32:
        """A rail out of place: every axle strikes it hard once a lap, and the whole train shakes after it."""
        train: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        off = condition.of("dislocated_rail")
        if off is None:
            return train
        for axle_m, joint in zip(self._axles_m, self._bad_joints, strict=True):
            at = joint.chunk((way_m - axle_m) / (self._rail_m * self._rails))
            train += impulses(at, 70 * float(self._levels["fault"]) * off[at.astype(np.int64)])
        return 0.7 * self._bad_rail(train) + self._shaken(train)

    def _fault_blows(self, condition: Condition, wheel: F64) -> F32:
        """A flat strikes the rail each turn of its wheel; a broken shaft clacks in its seat about twice a turn."""
        train: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        flat = condition.of("flat_wheel")
        if flat is not None:
            at = self._flat.chunk(wheel)
            strength = 28 * flat[at.astype(np.int64)] * 10 ** (self._strength.normal(0, 1.5, at.shape) / 20)
            train += impulses(at, strength * float(self._levels["fault"]))
        shaft = condition.of("broken_shaft")
        if shaft is not None:
            at = self._clack.chunk(2 * wheel)
            strength = 13 * shaft[at.astype(np.int64)] * self._strength.exponential(1.0, at.shape)
            train += impulses(at, strength * float(self._levels["fault"]))
        return train


TOYS: dict[str, type[Machine]] = {"ToyCar": ToyCar, "ToyTrain": ToyTrain}
