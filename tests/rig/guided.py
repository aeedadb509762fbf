"""Humming machines with supplemental clips: one has its clean sound, the other its noise, as DCASE 2025 gives them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from asd_daemon.waveform import SAMPLE_RATE_HZ
from rig.tones import PITCH_HZ, write_tones


def write_guided_tones(root: Path, train: int = 2, test: int = 1, seconds: float = 5.0) -> Path:
    """As `write_tones`, with two clean clips of the hummer and two noise-only clips of the singer; gives the root."""
    write_tones(root, train, test, seconds)
    rng = np.random.default_rng(23)
    time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    for number in range(2):
        clean = 0.2 * np.sin(2 * np.pi * PITCH_HZ["hummer"] * time_s + number)
        noise = 0.05 * rng.standard_normal(time_s.shape)
        for machine, what, sound in (("hummer", "machine", clean), ("singer", "noise", noise)):
            folder = root / machine / "supplemental"
            folder.mkdir(parents=True, exist_ok=True)
            name = f"section_00_source_{what}_normal_{number:04d}.wav"
            soundfile.write(folder / name, sound.astype(np.float32), SAMPLE_RATE_HZ)
    return root
