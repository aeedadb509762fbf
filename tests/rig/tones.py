"""A data set of two humming machines in the DCASE layout, made in a moment: a machine hums at a pitch, an anomaly at another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asd_daemon.waveform import SAMPLE_RATE_HZ

PITCH_HZ = {"hummer": 300.0, "singer": 1100.0}
DOMAIN_FACTOR = {"source": 1.0, "target": 1.12}
ANOMALY_FACTOR = 1.9


def write_tones(root: Path, train: int = 4, test: int = 3, seconds: float = 5.0) -> Path:
    """Write `train` clips of each domain and `test` of each domain and condition, for two machines; gives the root."""
    rng = np.random.default_rng(17)
    for machine, pitch_hz in PITCH_HZ.items():
        for split, label, count in (("train", "normal", train), ("test", "normal", test), ("test", "anomaly", test)):
            folder = root / machine / split
            folder.mkdir(parents=True, exist_ok=True)
            for domain, factor in DOMAIN_FACTOR.items():
                for number in range(count):
                    tone_hz = pitch_hz * factor * (ANOMALY_FACTOR if label == "anomaly" else 1.0)
                    time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
                    sound = 0.2 * np.sin(2 * np.pi * tone_hz * time_s + rng.uniform(0, 6))
                    sound += 0.01 * rng.standard_normal(sound.shape)
                    name = f"section_00_{domain}_{split}_{label}_{number:04d}_pitch_{domain[0]}.wav"
                    soundfile.write(folder / name, sound.astype(np.float32), SAMPLE_RATE_HZ)
    return root


def add_far_microphone(
    root: Path,
    hall_of: Callable[[Path, NDArray[np.float64], np.random.Generator], NDArray[np.float64]],
    crosstalk: float = 0.1,
) -> Path:
    """Make every clip one of two microphones, the near one with half of a hall and the far one with all of it; gives the root.

    Args:
        root: of the data set.
        hall_of: a clip's file and times in s, (N,), to the hall, (N,).
        crosstalk: how much of the machine the far microphone hears.
    """
    rng = np.random.default_rng(5)
    for path in sorted(root.rglob("*.wav")):
        machine, rate_hz = soundfile.read(path, dtype="float32")
        hall = hall_of(path, np.arange(len(machine)) / rate_hz, rng)
        soundfile.write(path, np.stack([machine + 0.5 * hall, hall + crosstalk * machine], axis=1), rate_hz)
    return root
