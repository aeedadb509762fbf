"""Machines that turn all the time: fan, gearbox, bearing.

Owns their physics only; what they share with others lies in mechanics.py, and simulator.py is the door. Defect rates follow the
usual kinematics of rolling bearings (Randall & Antoni, "Rolling element bearing diagnostics – a tutorial", MSSP 25, 2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from asd_daemon.hear.machine import Condition, Machine
from asd_daemon.hear.mechanics import (
    CHUNK_SAMPLES,
    F32,
    F64,
    Filter,
    Hiss,
    Shaft,
    Wander,
    decaying_orders,
    harmonics,
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
        self._gusts = Wander(self._run.of("gusts"), 0.4)
        flow = [
            (40, -14),
            (150, -3),
            (float(model.uniform(300, 900)), 0),
            (2500, -9 + 4 * load),
            (8000, -24 + 6 * load),
        ]
        self._flow = Hiss(self._run.of("flow"), spectrum(flow))
        self._edge = Hiss(self._run.of("edge"), spectrum([(300, -40), (1500, -8), (3500, 0), (8000, -12)]))
        self._metal = Filter(modes(model.uniform(900, 5200, 6), model.uniform(0.004, 0.02, 6), model.uniform(-8, 0, 6)))
        self._scrape = self._run.of("scrape")
        self._contact = Wander(self._run.of("contact"), 0.5)
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
            flow = flow * (1 + 0.55 * unbalance * swing)
            blade = blade * (1 + 0.6 * unbalance * swing)
            once = once * (1 + 5.0 * unbalance)
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
            sound += 1.6 * chip * pulse(turns, 0.6 / self._blades) * self._edge.chunk()
            sound += 0.3 * chip * (pulse(turns, 0.7 / self._blades) - 0.12)
        rub = condition.of("rubbing")
        if rub is not None:
            contact = np.clip(0.8 + 0.6 * self._contact.chunk(), 0, 2).astype(np.float32)
            touch = self._scrape.standard_normal(CHUNK_SAMPLES, dtype=np.float32) * pulse(turns + 0.3, 0.15)
            sound += 1.5 * self._metal(rub * contact * touch)
        return sound


ROTATING: dict[str, type[Machine]] = {"fan": Fan}
