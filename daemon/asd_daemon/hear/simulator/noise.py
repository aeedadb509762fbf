"""Background noise families: what else is heard where machines stand.

Owns the noises only; it knows no machine. Each family is an endless sound in its own scale, made second by second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from asd_daemon.hear.simulator.machine import NamedGenerators
from asd_daemon.hear.simulator.mechanics import (
    CHUNK_SAMPLES,
    F32,
    F64,
    ColouredNoise,
    Filter,
    Shaft,
    SlowDrift,
    decaying_orders,
    gain,
    harmonics,
    impulses,
    modes,
    path,
    random_moments,
    spectrum,
)
from asd_daemon.waveform import SAMPLE_RATE_HZ

_AIR = [(30.0, 6.0), (100.0, 4.0), (400.0, -2.0), (1600.0, -10.0), (8000.0, -22.0)]  # a hall that breathes


class Noise(ABC):
    """One place with one kind of noise; each run differs in what stands there and where the microphone hangs."""

    def __init__(self, run: NamedGenerators) -> None:
        self._run = run
        self._air = ColouredNoise(run.of("air"), spectrum(_AIR))
        self._path = Filter(path(run.of("path")))
        self._build()

    @abstractmethod
    def _build(self) -> None:
        """Draw what is peculiar to this run."""

    @abstractmethod
    def chunk(self) -> F32:
        """The next second, shape (CHUNK_SAMPLES,)."""


class Hum(Noise):
    """Factory hum: several motors and transformers with harmonics over a floor of air."""

    def _build(self) -> None:
        place = self._run.of("motors")
        rates_hz = [50.0, 100.0, *place.uniform(17, 80, 3)]
        self._motors = [
            (
                Shaft(place),
                SlowDrift(place, 6.0),
                rate,
                decaying_orders(place, 16, 2.5, 5.0),
                gain(float(place.uniform(-10, 0))),
            )
            for rate in rates_hz
        ]

    def chunk(self) -> F32:
        """The next second of hum."""
        sound = 0.7 * self._air.chunk()
        for shaft, wander, rate_hz, orders, level in self._motors:
            turns = shaft.chunk(rate_hz * (1 + 0.001 * wander.chunk()))
            sound += level * harmonics(turns, orders)
        return self._path(sound)


class Pink(Noise):
    """Air handling: pink noise that swells and ebbs."""

    def _build(self) -> None:
        tilt = float(self._run.of("tilt").normal(0, 1.5))
        slope = [(40.0, 0.0), (80.0, 0.0), (8000.0, -20.0 + tilt)]  # -3 dB an octave
        self._pink = ColouredNoise(self._run.of("pink"), spectrum(slope, 2048))
        self._swell = SlowDrift(self._run.of("swell"), 1.5)

    def chunk(self) -> F32:
        """The next second of moving air."""
        return self._path(self._pink.chunk() * gain_over_time(1.2 * self._swell.chunk()))


class Clanks(Noise):
    """Metal on metal, near and far, over a quiet hall."""

    def _build(self) -> None:
        place = self._run.of("metal")
        self._rng = self._run.of("clanks")
        self._rate_hz = float(place.uniform(0.6, 2.5))
        self._pieces = [
            Filter(modes(place.uniform(300, 6000, 8), place.uniform(0.006, 0.04, 8), place.uniform(-12, 0, 8)))
            for _ in range(3)
        ]

    def chunk(self) -> F32:
        """The next second: clanks come by chance and often bounce."""
        sound = 0.6 * self._air.chunk()
        for piece in self._pieces:
            moments = random_moments(self._rng, self._rate_hz / len(self._pieces))
            strength = 17 * 10 ** (self._rng.normal(0, 4, moments.shape) / 20)
            bounced = moments + SAMPLE_RATE_HZ * self._rng.uniform(0.03, 0.12, moments.shape)
            near = bounced < CHUNK_SAMPLES - 1
            sound += piece(impulses(moments, strength) + impulses(bounced[near], 0.4 * strength[near]))
        return self._path(sound)


class Vehicles(Noise):
    """Forklifts and lorries that come, pass and go: engine firing, tyres, Doppler."""

    def _build(self) -> None:
        self._rng = self._run.of("traffic")
        self._tyres = ColouredNoise(self._run.of("tyres"), spectrum([(40, -6), (300, 0), (1000, -3), (8000, -26)]))
        self._engine = Shaft(self._run.of("engine"))
        self._clock_s = 0.0
        self._meet(first=True)

    def _meet(self, first: bool = False) -> None:
        """The next vehicle: when it is nearest, how near, how fast."""
        wait_s = self._rng.uniform(-2.0, 6.0) if first else self._rng.uniform(3.5, 9.0)
        self._nearest_s = self._clock_s + float(wait_s)
        self._speed_m_s = float(self._rng.uniform(3, 11))
        self._distance_m = float(self._rng.uniform(4, 12))
        self._firing_hz = float(self._rng.uniform(22, 60))
        self._orders = decaying_orders(self._rng, 14, 1.8, 4.0)

    def chunk(self) -> F32:
        """The next second of traffic; a vehicle is replaced by the next when it is far behind."""
        time_s: F64 = self._clock_s + np.arange(CHUNK_SAMPLES) / SAMPLE_RATE_HZ - self._nearest_s
        along_m = self._speed_m_s * time_s
        away_m = np.hypot(along_m, self._distance_m)
        near = ((5.0 / away_m) ** 2 * np.exp(-((along_m / 45) ** 2))).astype(np.float32)
        doppler = 1 - self._speed_m_s * along_m / away_m / 343.0
        engine = harmonics(self._engine.chunk(self._firing_hz * doppler), self._orders)
        sound = 0.35 * self._air.chunk() + near * (2.0 * engine + 1.6 * self._tyres.chunk())
        self._clock_s += CHUNK_SAMPLES / SAMPLE_RATE_HZ
        if along_m[-1] > 90:
            self._meet()
        return self._path(sound)


class Chatter(Noise):
    """People talking somewhere: voiced and unvoiced bands that open and close at the pace of syllables."""

    def _build(self) -> None:
        place = self._run.of("voices")
        self._voices = [
            (
                Shaft(place),
                SlowDrift(place, 0.25),
                SlowDrift(place, 0.07),
                SlowDrift(place, 1.2),
                float(place.uniform(95, 240)),
                Filter(modes(np.sort(place.uniform(300, 3200, 4)), np.full(4, 0.004), np.array([0.0, -3, -6, -9]))),
                decaying_orders(place, 24, 0.6, 1.0),
            )
            for _ in range(3)
        ]
        self._breath = ColouredNoise(self._run.of("breath"), spectrum([(800, -20), (2500, 0), (5000, -2), (8000, -10)]))

    def chunk(self) -> F32:
        """The next second of voices."""
        sound = 0.25 * self._air.chunk()
        breath = self._breath.chunk()
        for shaft, melody, syllable, phrase, pitch_hz, mouth, orders in self._voices:
            beat = syllable.chunk()
            turns = shaft.chunk(pitch_hz * (1 + 0.09 * melody.chunk()))
            talking = np.clip(0.7 + phrase.chunk(), 0, 1.5)
            voiced = (np.clip(beat, 0, None) * talking).astype(np.float32)
            hissed = (np.clip(-beat - 1.0, 0, None) * talking).astype(np.float32)
            sound += mouth(voiced * harmonics(turns, orders)) + 0.5 * hissed * breath
        return self._path(sound)


class Compressor(Noise):
    """A piston compressor that runs, stops, hisses off its pressure, and starts again."""

    def _build(self) -> None:
        place = self._run.of("compressor")
        self._rng = self._run.of("cycle")
        self._shaft = Shaft(place)
        self._rate_hz = float(place.uniform(11, 17))
        self._orders = decaying_orders(place, 24, 0.9, 4.0)
        self._case = Filter(modes(place.uniform(150, 1600, 7), place.uniform(0.005, 0.02, 7), place.uniform(-9, 0, 7)))
        self._vent = ColouredNoise(self._run.of("vent"), spectrum([(300, -25), (2000, -4), (5000, 0), (8000, -5)]))
        self._running = bool(place.random() < 0.65)
        self._left_s = int(place.integers(1, 7))
        self._speed = float(self._running)
        self._pressure = 0.0

    def chunk(self) -> F32:
        """The next second of the cycle."""
        if self._left_s == 0:
            self._running = not self._running
            self._left_s = int(self._rng.integers(3, 8))
            if not self._running:
                self._pressure = 1.0
        self._left_s -= 1
        time_s = np.arange(1, CHUNK_SAMPLES + 1) / SAMPLE_RATE_HZ
        target, constant_s = (1.0, 0.25) if self._running else (0.0, 0.35)
        speed = target + (self._speed - target) * np.exp(-time_s / constant_s)
        blow = self._pressure * np.exp(-time_s / 0.5)
        self._speed, self._pressure = float(speed[-1]), float(blow[-1])
        turns = self._shaft.chunk(self._rate_hz * np.maximum(speed, 0.02))
        strokes = (speed**1.5).astype(np.float32) * harmonics(turns, self._orders)
        sound = 0.4 * self._air.chunk() + self._case(strokes) + 0.8 * strokes
        return self._path(sound + 0.9 * blow.astype(np.float32) * self._vent.chunk())


class Rain(Noise):
    """Rain on a tin roof: a wash, and drops that each ring a little."""

    def _build(self) -> None:
        place = self._run.of("roof")
        self._rng = self._run.of("drops")
        self._wash = ColouredNoise(self._run.of("wash"), spectrum([(100, -22), (800, -8), (3000, 0), (8000, -3)]))
        self._roof = Filter(modes(place.uniform(500, 5500, 9), place.uniform(0.001, 0.006, 9), place.uniform(-8, 0, 9)))
        self._shower = SlowDrift(self._run.of("shower"), 2.0)
        self._drops_hz = float(place.uniform(60, 250))

    def chunk(self) -> F32:
        """The next second of rain."""
        drops = random_moments(self._rng, self._drops_hz)
        ringing = self._roof(impulses(drops, 6 * self._rng.exponential(1.0, drops.shape)))
        return self._path((0.8 * self._wash.chunk() + ringing) * gain_over_time(1.5 * self._shower.chunk()))


def gain_over_time(level_db: F64) -> F32:
    """Decibels sample by sample → factors of amplitude."""
    return np.asarray(10 ** (level_db / 20), dtype=np.float32)


FAMILIES: dict[str, type[Noise]] = {
    "hum": Hum,
    "pink": Pink,
    "clanks": Clanks,
    "vehicles": Vehicles,
    "chatter": Chatter,
    "compressor": Compressor,
    "rain": Rain,
}
