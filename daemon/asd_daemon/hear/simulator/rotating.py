"""Machines that turn all the time: fan, gearbox, bearing.

Owns their physics only; what they share with others lies in mechanics.py, and unit.py is what others use. Defect rates follow the
usual kinematics of rolling bearings (Randall & Antoni, "Rolling element bearing diagnostics – a tutorial", MSSP 25, 2011).
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
    spectrum,
)


class Fan(Machine):
    """Blade-pass harmonics, turbulence that beats with the blades, motor hum, a duct that colours it all."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {"m-n": ("W", "X", "Y", "Z"), "load": ("0", "50", "100")}
    failures: ClassVar[tuple[str, ...]] = ("unbalance", "blade_chip", "rubbing")

    def _build(self) -> None:
        model = self._unit.of(f"model {self._setting['m-n']}")
        load = float(self._setting["load"]) / 100
        self._blades = int(model.integers(5, 10))
        self._shaft_hz = float(model.uniform(21, 29)) * (1 - 0.06 * load)
        self.rates_hz = {"shaft": self._shaft_hz, "blade_pass": self._blades * self._shaft_hz}
        duct = sorted(model.uniform(180, 3200, 6))
        self._blade_orders = decaying_orders(model, 10, 4.0)
        self._shaft_orders = decaying_orders(model, 12, 1.0)
        self._hum_orders = decaying_orders(model, 6, 5.0)
        self._shaft, self._mains = Shaft(self._run.of("shaft")), Shaft(self._run.of("mains"))
        self._gusts = SlowDrift(self._run.of("gusts"), 0.4)
        flow = [
            (40, -14),
            (150, -3),
            (float(model.uniform(300, 900)), 0),
            (2500, -9 + 4 * load),
            (8000, -24 + 6 * load),
        ]
        self._flow = ColouredNoise(self._run.of("flow"), spectrum(flow))
        self._edge = ColouredNoise(self._run.of("edge"), spectrum([(300, -40), (1500, -8), (3500, 0), (8000, -12)]))
        self._metal = Filter(modes(model.uniform(900, 5200, 6), model.uniform(0.004, 0.02, 6), model.uniform(-8, 0, 6)))
        self._scrape = self._run.of("scrape")
        self._contact = SlowDrift(self._run.of("contact"), 0.5)
        self._duct = Filter(modes(duct, model.uniform(0.004, 0.012, 6), model.uniform(-6, 0, 6)))
        self._path = Filter(path(self._unit.of("path")))
        self._levels = {
            "blade": self._vary("blade", -7 + 2 * load),
            "shaft": self._vary("shaft", -21),
            "hum": self._vary("hum", -13),
            "flow": self._vary("flow", 0 + 3 * load),
            "duct": self._vary("duct", -6),
        }

    def chunk(self, condition: Condition) -> F32:
        """The next second of the fan."""
        rate_hz = self._shaft_hz * self._offset * (1 + 0.003 * self._speed.chunk())
        turns = self._shaft.chunk(rate_hz)
        level = self._levels
        blade = harmonics(turns * self._blades, self._blade_orders)
        gust = (1 + 0.12 * self._gusts.chunk()).astype(np.float32)
        flow = self._flow.chunk() * gust * (1 + 0.25 * blade / np.abs(blade).max())
        unbalance = condition.of("unbalance")
        once = harmonics(turns, self._shaft_orders)
        if unbalance is not None:  # the rotor sways: shaft orders rise, and the gap to the duct swings with each turn
            swing = np.cos(2 * np.pi * turns).astype(np.float32)
            flow = flow * (1 + 0.8 * unbalance * swing)
            blade = blade * (1 + 0.6 * unbalance * swing)
            once = once * (1 + 9.0 * unbalance)
        sound = level["flow"] * flow + level["blade"] * blade + level["shaft"] * once
        sound = sound + level["duct"] * self._duct(sound)
        sound += level["hum"] * harmonics(self._mains.chunk(np.full(CHUNK_SAMPLES, 100.0)), self._hum_orders)
        sound += self._broken(condition, turns)
        return self._path(sound)

    def _broken(self, condition: Condition, turns: F64) -> F32:
        """A chipped blade whistles once a turn; a rub scrapes over a part of each turn, now more, now less."""
        sound: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        chip = condition.of("blade_chip")
        if chip is not None:
            sound += 3.2 * chip * pulse(turns, 0.6 / self._blades) * self._edge.chunk()
            sound += 0.6 * chip * (pulse(turns, 0.7 / self._blades) - 0.12)
        rub = condition.of("rubbing")
        if rub is not None:
            contact = np.clip(0.8 + 0.6 * self._contact.chunk(), 0, 2).astype(np.float32)
            touch = self._scrape.standard_normal(CHUNK_SAMPLES, dtype=np.float32) * pulse(turns + 0.3, 0.15)
            sound += 3.3 * self._metal(rub * contact * touch)
        return sound


class Gearbox(Machine):
    """A small motor and two stages of gears: mesh tones with side bands from every wheel, in a case that rings."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "volt": ("1.5", "1.0", "2.0", "2.5", "3.0"),
        "wt": ("0", "50", "100", "150", "200"),
    }
    failures: ClassVar[tuple[str, ...]] = ("tooth_damage", "wear", "misalignment")

    def _build(self) -> None:
        unit = self._unit.of("gears")
        volt, load = float(self._setting["volt"]), float(self._setting["wt"]) / 200
        self._teeth = [int(unit.integers(low, high)) for low, high in ((11, 17), (36, 56), (12, 18), (38, 61))]
        shaft_hz = float(unit.uniform(15, 20)) * volt * (1 - 0.10 * load)
        self._ratios = (self._teeth[0] / self._teeth[1], self._teeth[2] / self._teeth[3])
        second_hz = shaft_hz * self._ratios[0]
        self.rates_hz = {
            "shaft": shaft_hz,
            "second_shaft": second_hz,
            "third_shaft": second_hz * self._ratios[1],
            "first_mesh": shaft_hz * self._teeth[0],
            "second_mesh": second_hz * self._teeth[2],
        }
        self._shaft = Shaft(self._run.of("shaft"))
        self._torque = SlowDrift(self._run.of("torque"), 0.8)
        self._orders = [decaying_orders(unit, 8, slope) for slope in (5.0, 4.0)]
        self._worn_orders = [decaying_orders(unit, 14, 0.5, 4.0) for _ in range(2)]
        self._brush_orders = decaying_orders(unit, 10, 1.5)
        self._eccentric = unit.uniform(0.05, 0.15, 3)
        self._lag = unit.random(3)
        self._case = Filter(modes(unit.uniform(350, 5200, 9), unit.uniform(0.004, 0.02, 9), unit.uniform(-9, 0, 9)))
        self._cracked = Filter(modes(unit.uniform(900, 5200, 5), unit.uniform(0.003, 0.009, 5), unit.uniform(-6, 0, 5)))
        self._hit = Impacts(self._run.of("hit"), 0.004)
        self._strength = self._run.of("strength")
        self._grind = ColouredNoise(self._run.of("grind"), spectrum([(200, -25), (1200, -4), (3000, 0), (8000, -9)]))
        self._brushes = ColouredNoise(self._run.of("brushes"), spectrum([(60, -6), (400, 0), (1500, -6), (8000, -16)]))
        self._path = Filter(path(self._unit.of("path")))
        loud_db = 6 * np.log2(volt / 1.5)
        self._levels = {
            "first": self._vary("first", -3 + 4 * load + loud_db),
            "second": self._vary("second", -5 + 4 * load + loud_db),
            "motor": self._vary("motor", -9 + loud_db),
            "brushes": self._vary("brushes", -8 + loud_db),
            "fault": gain(loud_db + 2 * load),
        }

    def chunk(self, condition: Condition) -> F32:
        """The next second of the gearbox."""
        torque = self._torque.chunk()
        turns = self._shaft.chunk(self.rates_hz["shaft"] * self._offset * (1 + 0.004 * self._speed.chunk()))
        second, third = turns * self._ratios[0], turns * self._ratios[0] * self._ratios[1]
        skew = condition.of("misalignment")
        depth = 1.0 if skew is None else 1.0 + 3.5 * skew
        sways = [
            e * np.sin(2 * np.pi * (t + lag))
            for e, t, lag in zip(self._eccentric, (turns, second, third), self._lag, strict=True)
        ]
        pulls = [1 + depth * 0.9 * sways[0] + depth * sways[1], 1 + depth * sways[1] + depth * sways[2]]
        phases = [
            turns * self._teeth[0] + 0.3 * depth * (sways[0] + sways[1]),
            second * self._teeth[2] + 0.3 * depth * (sways[1] + sways[2]),
        ]
        sound: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        wear = condition.of("wear")
        for stage, name in enumerate(("first", "second")):
            mesh = harmonics(phases[stage], self._orders[stage])
            if wear is not None:
                mesh = mesh + 0.38 * wear * harmonics(phases[stage], self._worn_orders[stage])
                mesh = mesh + 0.28 * wear * self._grind.chunk() * pulse(phases[stage], 0.3)
            sound += self._levels[name] * mesh * pulls[stage].astype(np.float32)
        sound *= (1 + 0.1 * torque).astype(np.float32)
        sound += self._levels["brushes"] * self._brushes.chunk()
        tooth = condition.of("tooth_damage")
        if tooth is not None:  # the wounded tooth of the second wheel meets its partner once a turn
            at = self._hit.chunk(second)
            strength = 13 * tooth[at.astype(np.int64)] * 10 ** (self._strength.normal(0, 1.5, at.shape) / 20)
            sound += self._levels["fault"] * self._cracked(impulses(at, strength))
        sound = 0.6 * sound + 0.8 * self._case(sound)
        return self._path(sound + self._levels["motor"] * harmonics(turns, self._brush_orders))


class Bearing(Machine):
    """A rolling bearing on a driven shaft: rolling noise through the housing, and defects that strike it."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vel": ("6", "2", "10", "14", "18", "22"),
        "loc": ("A", "B", "C", "D"),
    }
    failures: ClassVar[tuple[str, ...]] = ("outer_race", "inner_race", "ball")

    def _build(self) -> None:
        unit, place = self._unit.of("bearing"), self._unit.of(f"location {self._setting['loc']}")
        shaft_hz = float(self._setting["vel"])
        balls, ratio = int(unit.integers(8, 13)), float(unit.uniform(0.18, 0.28))  # ball over pitch diameter
        ratio *= float(np.cos(np.radians(unit.uniform(0, 15))))  # times the cosine of the contact angle
        cage_hz = shaft_hz / 2 * (1 - ratio)
        self.rates_hz = {
            "shaft": shaft_hz,
            "cage": cage_hz,
            "outer_race": balls * cage_hz,
            "inner_race": balls * shaft_hz / 2 * (1 + ratio),
            "ball": shaft_hz / ratio * (1 - ratio**2),  # twice the spin: the spot meets both races
        }
        self._shaft = Shaft(self._run.of("shaft"))
        self._grease = SlowDrift(self._run.of("grease"), 0.7)
        self._motor = Shaft(self._run.of("motor"))
        self._motor_hz = float(unit.uniform(7, 9)) * shaft_hz  # a reducing belt: the motor turns faster
        self._shaft_orders, self._motor_orders = decaying_orders(unit, 14, 1.2), decaying_orders(unit, 10, 2.5)
        hump_hz = float(unit.uniform(700, 1800))
        rolling = [(60, -18), (300, -8), (hump_hz, 0), (4000, -9), (8000, -18)]
        self._rolling = ColouredNoise(self._run.of("rolling"), spectrum(rolling))
        self._housing = Filter(modes(unit.uniform(400, 4500, 6), unit.uniform(0.003, 0.012, 6), unit.uniform(-8, 0, 6)))
        ring_hz = float(unit.uniform(2200, 4200)) * np.array([1.0, 1.37, 0.61])
        self._ring = Filter(modes(ring_hz, unit.uniform(0.0012, 0.004, 3), [0.0, -5.0, -7.0]))
        self._hits = {name: Impacts(self._run.of(f"slip {name}"), 0.012) for name in self.failures}
        self._strength = self._run.of("strength")
        self._path = Filter(path(place, float(place.uniform(-5, 3)), 8))
        loud_db = 4 * np.log2(shaft_hz / 6)
        self._levels = {
            "rolling": self._vary("rolling", 0 + loud_db),
            "shaft": self._vary("shaft", -14 + loud_db),
            "motor": self._vary("motor", -10 + loud_db / 2),
        }
        self._blow = 33 * float(gain(loud_db)) / np.sqrt(shaft_hz / 6)

    def chunk(self, condition: Condition) -> F32:
        """The next second of the bearing."""
        drift = self._offset * (1 + 0.004 * self._speed.chunk())
        turns = self._shaft.chunk(self.rates_hz["shaft"] * drift)
        cage = turns * (self.rates_hz["cage"] / self.rates_hz["shaft"])
        passing = np.cos(2 * np.pi * turns * (self.rates_hz["outer_race"] / self.rates_hz["shaft"]))
        breath = (1 + 0.15 * np.cos(2 * np.pi * cage) + 0.10 * passing + 0.12 * self._grease.chunk()).astype(np.float32)
        rolling = self._rolling.chunk() * breath
        sound = self._levels["rolling"] * (rolling + 0.6 * self._housing(rolling))
        sound += self._levels["shaft"] * harmonics(turns, self._shaft_orders)
        sound += self._levels["motor"] * harmonics(self._motor.chunk(self._motor_hz * drift), self._motor_orders)
        return self._path(sound + self._struck(condition, turns, cage))

    def _struck(self, condition: Condition, turns: F64, cage: F64) -> F32:
        """Blows of the defects; the load zone weighs those that travel with the shaft or the cage."""
        zones = {"outer_race": None, "inner_race": turns, "ball": cage}
        train: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        for name, zone in zones.items():
            severity = condition.of(name)
            if severity is None:
                continue
            at = self._hits[name].chunk(turns * (self.rates_hz[name] / self.rates_hz["shaft"]))
            near = at.astype(np.int64)
            strength = self._blow * severity[near] * 10 ** (self._strength.normal(0, 2, at.shape) / 20)
            if zone is not None:
                strength = strength * (0.2 + 0.8 * (0.5 + 0.5 * np.cos(2 * np.pi * zone[near])) ** 2)
            train += impulses(at, strength)
        return self._ring(train)


ROTATING: dict[str, type[Machine]] = {"fan": Fan, "gearbox": Gearbox, "bearing": Bearing}
