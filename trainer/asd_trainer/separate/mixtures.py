"""Training examples for the separator, made as they are needed: a machine and a noise at a random ratio and level.

Owns the drawing of pairs from sounds in memory. It reads no file, keeps nothing on disk and never repeats itself: the
same generator gives the same examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError

F32 = NDArray[np.float32]
SILENT_DBFS = -70.0
_ATTEMPTS = 20


@dataclass(frozen=True)
class MixtureRule:
    """How machine and noise meet."""

    crop_samples: int
    snr_db: tuple[float, float]
    """Power of the machine over that of the noise in the crop."""
    level_dbfs: tuple[float, float]
    """RMS of the mixture."""
    second_noise: float = 0.3
    """Share of examples whose noise is two noises on top of each other."""
    noise_speed: tuple[float, float] = (1.0, 1.0)
    """Noises are played at a speed from this range, so that few recordings of noise are not learned by heart."""
    noisy_snr_db: tuple[float, float] = (-2.0, 2.0)
    """Power of a noisy recording over that of the noise added to it."""


@dataclass(frozen=True)
class Material:
    """Sounds to mix, each float32 (samples,) of any length above zero.

    A `noisy` material has no clean machine: its machines are recordings y = m + n with noise of the same kind in them. An
    example then adds a second noise n' about as loud as n, and its truth is written as y − n' for the machine and 2n' for
    the noise. Given their sum, n and n' can't be told apart, so that what is learned on average is m and n + n': the case
    of equal noises of Noisier2Noise (arXiv 1910.11908). These machines must be quieter than their noise, as in a factory.

    Raises:
        DataSetError: nothing to mix.
    """

    machines: tuple[F32, ...]
    noises: tuple[F32, ...]
    noisy: bool = False

    def __post_init__(self) -> None:
        for what, sounds in (("machine", self.machines), ("noise", self.noises)):
            if not any(_level_dbfs(sound) > SILENT_DBFS for sound in sounds):
                raise DataSetError(f"no {what} sound to train a separator with: {len(sounds)} given, none audible")


def draw(material: Material, rule: MixtureRule, rng: np.random.Generator) -> F32:
    """Draw one example: float32 (2, crop), the machine and the noise as they sound in the mixture, which is their sum."""
    machine = _audible_crop(material.machines, rule.crop_samples, rng)
    noise = _noise(material, rule, rng)
    if rng.random() < rule.second_noise:
        other = _noise(material, rule, rng)
        noise = noise + other * _amplitude(_level_dbfs(noise) - _level_dbfs(other) + rng.uniform(-10.0, 10.0))
    snr_db = rng.uniform(*(rule.noisy_snr_db if material.noisy else rule.snr_db))
    noise = noise * _amplitude(_level_dbfs(machine) - snr_db - _level_dbfs(noise))
    machine, noise = machine * rng.choice((-1, 1)), noise * rng.choice((-1, 1))
    sources = np.stack([machine - noise, 2.0 * noise] if material.noisy else [machine, noise])
    gain_db = rng.uniform(*rule.level_dbfs) - _level_dbfs(sources.sum(axis=0))
    return (sources * _amplitude(gain_db)).astype(np.float32)


def draw_batch(material: Material, rule: MixtureRule, size: int, rng: np.random.Generator) -> F32:
    """Draw `size` examples, float32 (size, 2, crop)."""
    return np.stack([draw(material, rule, rng) for _ in range(size)])


def mix(machine: F32, noise: F32, snr_db: float, level_dbfs: float) -> F32:
    """Put two sounds of the same length at a ratio and a level: float32 (2, samples), whose sum is the mixture.

    Raises:
        DataSetError: one of them is silent, so that no ratio exists.
    """
    for what, sound in (("machine", machine), ("noise", noise)):
        if _level_dbfs(sound) <= SILENT_DBFS:
            raise DataSetError(f"a {what} of {_level_dbfs(sound):.0f} dBFS can't be mixed: it is silent")
    noise = noise * _amplitude(_level_dbfs(machine) - snr_db - _level_dbfs(noise))
    sources = np.stack([machine, noise])
    return (sources * _amplitude(level_dbfs - _level_dbfs(sources.sum(axis=0)))).astype(np.float32)


def crop(sound: F32, samples: int, rng: np.random.Generator) -> F32:
    """Cut a random piece; a sound that is shorter goes round."""
    if sound.shape[0] < samples:
        start = int(rng.integers(sound.shape[0]))
        return np.take(sound, np.arange(start, start + samples), mode="wrap")
    start = int(rng.integers(sound.shape[0] - samples + 1))
    return sound[start : start + samples]


def _noise(material: Material, rule: MixtureRule, rng: np.random.Generator) -> F32:
    speed = rng.uniform(*rule.noise_speed)
    if speed == 1.0:
        return _audible_crop(material.noises, rule.crop_samples, rng)
    piece = _audible_crop(material.noises, math.ceil(rule.crop_samples * speed) + 1, rng)
    played = np.interp(np.arange(rule.crop_samples) * speed, np.arange(piece.shape[0]), piece)
    return np.asarray(played, dtype=np.float32)


def _audible_crop(sounds: Sequence[F32], samples: int, rng: np.random.Generator) -> F32:
    """Draw until the piece holds sound: recordings of everyday noises pause, and a ratio to nothing does not exist."""
    for _ in range(_ATTEMPTS):
        piece = crop(sounds[int(rng.integers(len(sounds)))], samples, rng)
        if _level_dbfs(piece) > SILENT_DBFS:
            return piece
    audible = [sound for sound in sounds if _level_dbfs(sound) > SILENT_DBFS]
    sound = audible[int(rng.integers(len(audible)))]
    loudest = int(np.argmax(np.abs(sound)))
    return np.take(sound, np.arange(loudest - samples // 2, loudest - samples // 2 + samples), mode="wrap")


def _amplitude(gain_db: float) -> np.float32:
    return np.float32(10.0 ** (gain_db / 20.0))


def _level_dbfs(sound: F32) -> float:
    return float(10.0 * np.log10(np.mean(np.square(sound, dtype=np.float64)) + 1e-20))
