"""Machines that go to and fro or open and close: slider, valve.

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
    spectrum,
    unit_energy,
)
from asd_daemon.waveform import SAMPLE_RATE_HZ

GRAVITY_M_S2 = 9.81


class Slider(Machine):
    """A carriage on a rail: strokes with a trapezoid of speed, ball circulation, a motor that follows, knocks at the ends."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "vel": ("500", "300", "400", "600", "800", "1000"),  # mm/s
        "ac": ("0.10", "0.03", "0.05", "0.20", "0.30"),  # in g
    }
    failures: ClassVar[tuple[str, ...]] = ("no_grease", "rail_damage")

    def _build(self) -> None:
        unit = self._unit.of("slider")
        self._length_m = float(unit.uniform(0.35, 0.5))
        self._accel_m_s2 = float(self._setting["ac"]) * GRAVITY_M_S2
        self._top_m_s = min(float(self._setting["vel"]) / 1000, float(np.sqrt(self._length_m * self._accel_m_s2)))
        self._move_s = self._length_m / self._top_m_s + self._top_m_s / self._accel_m_s2
        self._stroke_s = self._move_s + float(unit.uniform(0.12, 0.25))  # and a rest
        self._pitch_m = float(unit.uniform(0.004, 0.007))  # ball to ball
        self._pole_m = float(unit.uniform(0.0008, 0.0016))  # motor step along the rail
        self.rates_hz = {
            "stroke": 1 / self._stroke_s,
            "ball": self._top_m_s / self._pitch_m,
            "motor": self._top_m_s / self._pole_m,
        }
        self._strokes = Shaft(self._run.of("strokes"))
        self._starts, self._stops = Impacts(self._run.of("starts")), Impacts(self._run.of("stops"))
        self._ball_orders, self._motor_orders = decaying_orders(unit, 16, 1.5), decaying_orders(unit, 6, 5.0)
        hump_hz = float(unit.uniform(500, 1200))
        self._rolling = ColouredNoise(
            self._run.of("rolling"), spectrum([(80, -12), (hump_hz, 0), (3000, -10), (8000, -20)])
        )
        self._frame = Filter(modes(unit.uniform(120, 2600, 8), unit.uniform(0.008, 0.03, 8), unit.uniform(-9, 0, 8)))
        self._dry = ColouredNoise(self._run.of("dry"), spectrum([(500, -30), (1800, -6), (3800, 0), (8000, -8)]))
        self._squeak = Filter(modes(unit.uniform(1800, 4200, 2), [0.012, 0.012], [0.0, -4.0]))
        self._sticking = SlowDrift(self._run.of("sticking"), 0.15)
        self._spots_m = unit.uniform(0.25, 0.75, 2) * self._length_m
        self._rough = ColouredNoise(self._run.of("rough"), spectrum([(200, -18), (900, 0), (2500, -2), (8000, -14)]))
        self._pits = [Impacts(self._run.of(f"pit {i}")) for i in range(4)]
        self._pit_ring = Filter(
            modes(unit.uniform(700, 4800, 6), unit.uniform(0.002, 0.008, 6), unit.uniform(-6, 0, 6))
        )
        self._strength = self._run.of("strength")
        self._path = Filter(path(self._unit.of("path")))
        self._levels = {
            "rolling": self._vary("rolling", 0),
            "ball": self._vary("ball", -7),
            "motor": self._vary("motor", -9),
            "knock": 14 * self._vary("knock", 0),
        }

    def chunk(self, condition: Condition) -> F32:
        """The next second of strokes."""
        pace = self._offset * (1 + 0.003 * self._speed.chunk())
        strokes = self._strokes.chunk(pace / self._stroke_s)
        clock_s = (strokes - np.floor(strokes)) * self._stroke_s
        speed, along_m = self._motion(clock_s)
        travel_m = np.floor(strokes) * self._length_m + along_m
        share = (speed / 0.5).astype(np.float32)  # of half a metre a second
        rolling = self._rolling.chunk() * share**0.8
        ball = harmonics(travel_m / self._pitch_m, self._ball_orders) * share
        moving = np.clip(share * 8, 0, 1)
        motor = harmonics(travel_m / self._pole_m, self._motor_orders) * moving
        ends = impulses(self._starts.chunk(strokes), 0.6 * self._accel_m_s2**0.5)
        ends += impulses(self._stops.chunk(strokes + 1 - self._move_s / self._stroke_s), self._accel_m_s2**0.5)
        sound = self._levels["rolling"] * rolling + self._levels["ball"] * ball
        sound = sound + 0.5 * self._frame(sound + self._levels["knock"] * ends) + self._levels["motor"] * motor
        return self._path(sound + self._broken(condition, share, travel_m))

    def _motion(self, clock_s: F64) -> tuple[F64, F64]:
        """Speed (m/s) and way (m) at a time since the start of a stroke: speed up, cruise, slow down, rest."""
        left_s = np.maximum(self._move_s - clock_s, 0)
        accel = self._accel_m_s2
        speed = np.minimum(np.minimum(accel * clock_s, accel * left_s), self._top_m_s)
        ramp_s = self._top_m_s / accel
        cruise_m = self._top_m_s * (clock_s - ramp_s / 2)
        along_m = np.where(clock_s < ramp_s, accel * clock_s**2 / 2, cruise_m)
        return speed, np.where(left_s < ramp_s, self._length_m - accel * left_s**2 / 2, along_m)

    def _broken(self, condition: Condition, share: F32, travel_m: F64) -> F32:
        """Dry balls grate and squeak where they move; pits in the rail knock where the carriage passes, both ways."""
        sound: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
        dry = condition.of("no_grease")
        if dry is not None:
            stick = np.clip(self._sticking.chunk() - 0.5, 0, 2).astype(np.float32)
            grate = self._dry.chunk() * share
            sound += 1.1 * dry * grate + self._squeak(1.6 * dry * stick * grate)
        pits = condition.of("rail_damage")
        if pits is not None:
            lap_m = 2 * self._length_m
            spots_m = [*self._spots_m, *(lap_m - self._spots_m)]
            train: F32 = np.zeros(CHUNK_SAMPLES, dtype=np.float32)
            for spot_m, impacts in zip(spots_m, self._pits, strict=True):
                at = impacts.chunk((travel_m - spot_m) / lap_m)
                near = at.astype(np.int64)
                train += impulses(at, pits[near] * share[near] * 10 ** (self._strength.normal(0, 1.5, at.shape) / 20))
            spalled = np.sum([pulse((travel_m - spot_m) / lap_m, 0.05) for spot_m in spots_m], axis=0)
            sound += 90 * self._pit_ring(train) + 1.2 * pits * spalled * share * self._rough.chunk()
        return sound


PATTERNS: dict[str, tuple[tuple[float, float], ...]] = {  # open from … to … as parts of a cycle
    "00": ((0.00, 0.45),),
    "01": ((0.00, 0.20), (0.45, 0.70)),
    "02": ((0.00, 0.12), (0.25, 0.37), (0.50, 0.62)),
    "03": ((0.00, 0.50), (0.65, 0.75)),
}


class Valve(Machine):
    """A solenoid valve that opens and closes by a pattern: clicks, the rush and flow of air, the hum of the coil."""

    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {"pat": tuple(PATTERNS), "v-number": ("0", "1", "2")}
    failures: ClassVar[tuple[str, ...]] = ("leak", "sticking", "contamination")

    def _build(self) -> None:
        unit = self._unit.of(f"valve {self._setting['v-number']}")
        cycle_s = float(self._unit.of("cycle").uniform(1.8, 2.4))
        self.rates_hz = {"cycle": 1 / cycle_s}
        self._cycle = Shaft(self._run.of("cycle"))
        pattern = PATTERNS[self._setting["pat"]]
        self._orders_given = [  # (part of the cycle, open or close, its own counter)
            (part, opens, Impacts(self._run.of(f"command {i} {opens}")))
            for i, window in enumerate(pattern)
            for part, opens in zip(window, (True, False), strict=True)
        ]
        self._due: list[tuple[float, bool]] = []  # moves that still come, in samples from the start of the chunk
        self._is_open = self._is_driven = False
        self._delays, self._stuck, self._bounces = (self._run.of(name) for name in ("delays", "stuck", "bounces"))
        time_s = np.arange(2000) / SAMPLE_RATE_HZ
        self._spool = Filter((np.exp(-time_s / 0.006) / np.exp(-time_s / 0.006).sum()).astype(np.float32))
        self._tank = Filter((np.exp(-time_s / 0.05) / np.exp(-time_s / 0.05).sum()).astype(np.float32))
        self._body = Filter(modes(unit.uniform(600, 6200, 9), unit.uniform(0.002, 0.009, 9), unit.uniform(-8, 0, 9)))
        jet_hz = float(unit.uniform(2200, 4500))
        self._air = ColouredNoise(self._run.of("air"), spectrum([(150, -26), (800, -10), (jet_hz, 0), (8000, -6)]))
        self._hum_orders, self._buzz_orders = decaying_orders(unit, 8, 3.0), decaying_orders(unit, 40, 0.3)
        self._choked = ColouredNoise(self._run.of("choked"), spectrum([(100, -12), (600, 0), (1500, -3), (8000, -30)]))
        self._mains = Shaft(self._run.of("mains"))
        self._floor = ColouredNoise(self._run.of("floor"), spectrum([(60, 0), (500, -8), (8000, -25)]))
        whistle_hz = float(unit.uniform(2800, 5500))
        self._whistle = Filter(
            unit_energy(modes([whistle_hz, whistle_hz * 1.51], [0.006, 0.004], [0, -6]).astype(float))
        )
        self._gap = ColouredNoise(self._run.of("gap"), spectrum([(400, -30), (3000, -3), (6000, 0), (8000, -2)]))
        self._gurgle = SlowDrift(self._run.of("gurgle"), 0.025)
        self._path = Filter(path(self._unit.of("path")))
        self._levels = {
            "click": 15 * self._vary("click", 0),
            "air": self._vary("air", -2),
            "hum": self._vary("hum", -16),
            "floor": self._vary("floor", -24),
            "gap": gain(-21),
            "choked": gain(-2),
            "buzz": gain(-11),
        }

    def chunk(self, condition: Condition) -> F32:
        """The next second of the pattern."""
        cycles = self._cycle.chunk(self.rates_hz["cycle"] * self._offset * (1 + 0.001 * self._speed.chunk()))
        clicks, wanted, strain = self._moves(condition, cycles)
        opening = self._spool(wanted)
        settled = self._tank(opening)
        rush = np.clip(opening - settled, 0, None)
        puff = np.clip(settled - opening, 0, None)
        flow = 0.35 * opening + 2.2 * rush + 1.4 * puff
        sound = self._levels["air"] * self._air.chunk()
        dirt = condition.of("contamination")
        if dirt is not None:  # the passage is narrowed: the jet loses its brightness, and what flows gurgles
            gurgle = np.clip(0.5 + 0.7 * self._gurgle.chunk(), 0, 3).astype(np.float32)
            sound = (1 - 0.7 * dirt) * sound + self._levels["choked"] * dirt * gurgle * self._choked.chunk()
        sound *= flow
        mains = self._mains.chunk(np.full(CHUNK_SAMPLES, 100.0))
        hum = harmonics(mains, self._hum_orders)
        sound += self._levels["hum"] * hum * opening + self._levels["floor"] * self._floor.chunk()
        sound += self._levels["click"] * self._body(clicks)
        sticking = condition.of("sticking")
        if sticking is not None:  # the coil pulls at a spool that does not come: it buzzes
            buzz = harmonics(mains, self._buzz_orders)
            sound += self._levels["buzz"] * self._body(sticking * strain * buzz)
        leak = condition.of("leak")
        if leak is not None:
            gap = self._gap.chunk() * leak * (1 - 0.8 * opening)
            sound += self._levels["gap"] * (gap + 0.9 * self._whistle(gap))
        return self._path(sound)

    def _moves(self, condition: Condition, cycles: F64) -> tuple[F32, F32, F32]:
        """Commands of this chunk → clicks of the spool, the opening it moves to (0 or 1), and whether it is behind its command.

        A sticking spool follows late and by chance, clicks less cleanly and bounces.
        """
        sticking = condition.of("sticking")
        commands: list[tuple[float, bool]] = []
        for part, opens, counter in self._orders_given:
            for at in counter.chunk(cycles - part):
                delay_s = 0.012 + 0.001 * float(np.clip(self._delays.standard_normal(), -3, 3))
                if sticking is not None:
                    delay_s += float(sticking[int(at)]) * 0.16 * float(self._stuck.random())
                commands.append((float(at), opens))
                self._due.append((at + delay_s * SAMPLE_RATE_HZ, opens))
        self._due.sort()
        now = [move for move in self._due if move[0] < CHUNK_SAMPLES]
        self._due = [(at - CHUNK_SAMPLES, opens) for at, opens in self._due[len(now) :]]
        wanted, driven = _switched(self._is_open, now), _switched(self._is_driven, sorted(commands))
        self._is_open, self._is_driven = bool(wanted[-1]), bool(driven[-1])
        positions = np.array([at for at, _ in now])
        strengths = np.array([1.0 if opens else 0.6 for _, opens in now])
        clicks = impulses(positions, strengths)
        if sticking is not None and now:
            clicks *= 1 - 0.6 * sticking
            for at, strength in zip(positions, strengths, strict=True):
                bounces = at + SAMPLE_RATE_HZ * np.cumsum(self._bounces.uniform(0.006, 0.022, 5))
                bounces = bounces[bounces < CHUNK_SAMPLES - 1]
                clicks += 0.6 * sticking * impulses(bounces, strength * 0.75 ** np.arange(bounces.shape[0]))
        return clicks, wanted, np.abs(driven - wanted)


def _switched(state: bool, moves: list[tuple[float, bool]]) -> F32:
    """0 or 1 per sample: a state, changed at each of the moves."""
    track: F32 = np.full(CHUNK_SAMPLES, state, dtype=np.float32)
    for at, new in moves:
        track[int(at) :] = new
    return track


STROKING: dict[str, type[Machine]] = {"slider": Slider, "valve": Valve}
