"""Windows of machines in simulated halls with two microphones, and the ways to judge them by one or both.

Owns what a window is (machine and noise apart, so that the truth is known) and the ways; it counts nothing and prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.hear.simulator import SimulatedMachine, render_noise
from asd_daemon.hear.simulator.scene import DOMAINS, DomainName
from asd_daemon.hear.simulator.two_microphones import HeardApart, TwoMicrophones, draw_two_microphones, hear_in_hall
from asd_daemon.judge.features.views import VIEW_NAMES, view_vectors
from asd_daemon.judge.hall.cancelling import without_hall
from asd_daemon.judge.hall.crosstalk import NO_CROSSTALK, Crosstalk, learn_crosstalk
from asd_daemon.judge.hall.short_time_spectra import power_of, sound_of, spectra_of
from asd_daemon.learn.learning import learn
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.waveform import WINDOW_S, WINDOW_SAMPLES

F32 = NDArray[np.float32]
CALM_EVERY, CALM_DB = 6, 15.0
"""Every sixth window is learned from a calm hall, in which the machine is so much louder than the noise."""
SNR_SPREAD_DB = 5.0
"""A hall is now louder, now softer than its figure says, by so much at most."""
NOISE_PLACES = 2


@dataclass(frozen=True)
class Clip:
    """One window, machine and noise apart."""

    heard: HeardApart
    split: str
    """train or test."""
    domain: DomainName
    anomalous: bool = False
    spread_db: float = 0.0
    calm: bool = False

    def at(self, snr_db: float) -> HeardApart:
        """The window at a ratio of machine and noise at the near microphone, give or take its spread."""
        return self.heard.mixed(CALM_DB if self.calm else snr_db + self.spread_db)


Sounds = Callable[[bool, DomainName, np.random.Generator], tuple[F32, list[F32]]]
"""(anomalous, domain, generator) → a window of the machine (160 000,), and of one or two noises."""


def simulated(machine: str, noises: tuple[int, int] = (1, NOISE_PLACES)) -> Sounds:
    """Sounds of a simulated machine in the settings and noises of its domains, at least and at most so many noises at once."""
    unit = SimulatedMachine(machine)

    def sounds(anomalous: bool, domain: DomainName, rng: np.random.Generator) -> tuple[F32, list[F32]]:
        place = DOMAINS[machine][domain]
        setting = place.settings[int(rng.integers(len(place.settings)))]
        failure = unit.failures[int(rng.integers(len(unit.failures)))] if anomalous else None
        own = unit.render(WINDOW_S, rng, setting, failure, float(rng.uniform(0.5, 1.0)))
        kinds = rng.choice(place.noises, int(rng.integers(noises[0], noises[1] + 1)))
        return own, [render_noise(str(kind), WINDOW_S, rng) for kind in kinds]

    return sounds


@dataclass(frozen=True)
class Plan:
    """How many windows: each a pair, of the source and the target domain."""

    train: tuple[int, int] = (42, 8)
    normal: tuple[int, int] = (10, 10)
    anomalous: tuple[int, int] = (10, 10)
    moving_share: float = 0.25
    """Of the windows, those in which the first noise passes by."""


def clips(sounds: Sounds, rng: np.random.Generator, plan: Plan) -> list[Clip]:
    """Windows of one machine: its hall and its microphones stay where they are, noises come from anywhere."""
    places = draw_two_microphones(rng, NOISE_PLACES)
    found = []
    groups = (("train", False, plan.train), ("test", False, plan.normal), ("test", True, plan.anomalous))
    for split, anomalous, numbers in groups:
        for domain, number in zip(("source", "target"), numbers, strict=True):
            for n in range(number):
                own, noises = sounds(anomalous, domain, rng)
                heard = hear_in_hall(_with_other_noises(places, rng, plan.moving_share), own, noises)
                spread = float(rng.uniform(-SNR_SPREAD_DB, SNR_SPREAD_DB))
                calm = split == "train" and n % CALM_EVERY == 0
                found.append(Clip(heard, split, domain, anomalous, spread, calm))
    return found


def _with_other_noises(places: TwoMicrophones, rng: np.random.Generator, moving_share: float) -> TwoMicrophones:
    """The same hall, in which noises come from other places."""
    while True:
        other = draw_two_microphones(rng, NOISE_PLACES, moving=int(rng.random() < moving_share))
        size = np.array(places.hall.size_m) / np.array(other.hall.size_m)
        noises = tuple(
            replace(way, start_m=_scaled(way.start_m, size), end_m=_scaled(way.end_m, size)) for way in other.noises
        )
        far_enough = [
            np.hypot(way.start_m[0] - places.machine_m[0], way.start_m[1] - places.machine_m[1]) >= 3 for way in noises
        ]
        if all(far_enough):
            return replace(places, noises=noises)


def _scaled(point: tuple[float, float, float], by: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(point[0] * by[0]), float(point[1] * by[1]), point[2]


def si_sdr_db(found: F32, truth: F32) -> float:
    """Scale-invariant signal-to-distortion ratio."""
    scale = float(found @ truth) / float(truth @ truth)
    error = found - scale * truth
    return 10 * float(np.log10(scale**2 * (truth @ truth) / (error @ error)))


def nlms(near: F32, far: F32, step: float = 0.02, taps: int = 512) -> F32:
    """The far microphone, adaptively filtered and taken away: normalised LMS in blocks, in the frequency domain."""
    weights, power = np.zeros(taps + 1, complex), np.full(taps + 1, 1e-6)
    left, before = near.copy(), np.zeros(taps)
    for start in range(0, near.shape[0] - taps + 1, taps):
        now = far[start : start + taps]
        spectrum = np.fft.rfft(np.concatenate([before, now]))
        before = now
        error = near[start : start + taps] - np.fft.irfft(spectrum * weights)[taps:]
        left[start : start + taps] = error
        power = 0.9 * power + 0.1 * np.abs(spectrum) ** 2
        gradient = np.fft.irfft(spectrum.conj() * np.fft.rfft(np.concatenate([np.zeros(taps), error])) / (power + 1e-9))
        gradient[taps:] = 0
        weights = weights + step * np.fft.rfft(gradient)
    return left


def spectral_subtraction(near: F32, far: F32, floor: float = 0.1) -> F32:
    """The far microphone's power taken from the near one's, at the ratio of their medians over time."""
    own, other = spectra_of(near), spectra_of(far)
    power, far_power = power_of(own), power_of(other)
    ratio = np.minimum(1, np.median(power, axis=0) / (np.median(far_power, axis=0) + 1e-12))
    mask = np.sqrt(np.maximum(floor**2, 1 - ratio * far_power / (power + 1e-12)))
    return sound_of((own * mask).astype(np.complex64), near.shape[0])


def leaky_least_squares(near: F32, far: F32, crosstalk: Crosstalk, constant_s: float = 2.0) -> F32:
    """As the product cancels, but with weights that know the past alone and forget it: what a stream without windows would have."""
    own, other = spectra_of(near), spectra_of(far)
    hall = crosstalk.far_without_machine(own, other)
    keep = float(np.exp(-0.064 / constant_s))
    power, both, far_power = (np.zeros(own.shape[1], t) for t in (np.float64, complex, np.float64))
    removed = np.zeros_like(own)
    for n in range(own.shape[0]):
        power = keep * power + np.abs(hall[n]) ** 2
        both = keep * both + own[n] * hall[n].conj()
        far_power = keep * far_power + np.abs(other[n]) ** 2
        weight = both / (1.01 * power + 0.02 * far_power + 1e-20)
        removed[n] = weight * np.minimum(1, 1.2 / crosstalk.hall_gain / np.maximum(np.abs(weight), 1e-20)) * hall[n]
    return near - sound_of(removed, near.shape[0])


SOUND_WAYS = ("near", "cancelled", "least squares", "leaky", "nlms", "subtraction")
"""Ways that give a sound which is then judged."""


def sounds_by_way(both: F32, crosstalk: Crosstalk, ways: Sequence[str] = SOUND_WAYS) -> Iterator[tuple[str, F32]]:
    """What is left of a window (N, 2) by each way."""
    near, far = (np.ascontiguousarray(both[:, column]) for column in (0, 1))
    made: Mapping[str, Callable[[], F32]] = {
        "near": lambda: near,
        "cancelled": lambda: without_hall(near, far, crosstalk).sound,
        "least squares": lambda: without_hall(near, far, NO_CROSSTALK).sound,
        "leaky": lambda: leaky_least_squares(near, far, crosstalk),
        "nlms": lambda: nlms(near, far),
        "subtraction": lambda: spectral_subtraction(near, far),
        "far": lambda: far,
    }
    for way in ways:
        yield way, made[way]()


def crosstalk_of(windows: Sequence[F32]) -> Crosstalk:
    """Learned from windows (N, 2) as the product learns it."""
    return learn_crosstalk([lambda window=window: window for window in windows])  # type: ignore[misc]


def hall_share(both: F32, crosstalk: Crosstalk) -> float:
    """Of a window's power (N, 2), what the hall made."""
    near, far = (np.ascontiguousarray(both[:, column]) for column in (0, 1))
    return without_hall(near, far, crosstalk).share


def scores_by_way(
    vectors: Mapping[str, Sequence[dict[str, F32]]], train: NDArray[np.bool_], domains: NDArray[np.int64]
) -> dict[str, F32]:
    """What each way makes of the windows that were not learned from.

    Args:
        vectors: way → of each window view → (1 + P, D); with `near` and `far` the residual of views is a way too.
        train: (N,), which windows are learned.
        domains: (N,).
    """
    stacked = {
        way: {view: np.stack([own[view] for own in rows]) for view in VIEW_NAMES} for way, rows in vectors.items()
    }
    if "far" in stacked:
        far = stacked.pop("far")
        stacked["residual"] = {view: x - np.float32(0.5) * far[view] for view, x in stacked["near"].items()}
    scores = {}
    for way, own in stacked.items():
        sound = NormalSound({view: x[train] for view, x in own.items()}, {}, domains[train])
        fusion = learn(sound).fusion
        scores[way] = fusion.score({view: x[~train, 0] for view, x in own.items()})
    if "cancelled" in scores:
        scores["near + cancelled"] = np.asarray((scores["near"] + scores["cancelled"]) / 2, np.float32)
    return scores


def described(sound: F32) -> dict[str, F32]:
    """A window's views, with its thirds."""
    return view_vectors(sound[:WINDOW_SAMPLES])


def recorded(
    recordings: Sequence[tuple[F32, str, DomainName, bool]],
    noises: Sequence[F32],
    rng: np.random.Generator,
    moving_share: float = 0.25,
) -> list[Clip]:
    """Recordings of a machine, put into a simulated hall among recorded noises.

    Args:
        recordings: each sound (160 000,), train or test, domain, and whether it is anomalous.
        noises: (160 000,) each, drawn from.
        rng: draws places, noises and ratios.
        moving_share: of the windows, those in which the first noise passes by.
    """
    places = draw_two_microphones(rng, NOISE_PLACES)
    found, calm_number = [], 0
    for own, split, domain, anomalous in recordings:
        some = [noises[int(n)] for n in rng.integers(0, len(noises), int(rng.integers(1, NOISE_PLACES + 1)))]
        heard = hear_in_hall(_with_other_noises(places, rng, moving_share), own, some)
        calm_number += split == "train"
        calm = split == "train" and calm_number % CALM_EVERY == 0
        spread = float(rng.uniform(-SNR_SPREAD_DB, SNR_SPREAD_DB))
        found.append(Clip(heard, split, domain, anomalous, spread, calm))
    return found
