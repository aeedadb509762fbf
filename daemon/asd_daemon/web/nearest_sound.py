"""Which kept normal window sounds most like the window that opened an alert: a process of its own, since it needs NumPy for seconds.

    python -m asd_daemon.web.nearest_sound STATE_FOLDER MACHINE CLIP WINDOW_END_S

prints one line of JSON: `{"file": …, "gain": …, "compared": …}`, or `{}` where no normal window is kept. Compared are the normal windows
of the last hours and those the machine was learned from, by their mean level in each band, in the spread that the band has among them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import AsdError
from asd_daemon.judge.features.spectral_difference import LEAST_STD, coarse_spectrum
from asd_daemon.learn.kept_sound import SOUND_FOLDER, read_window, window_files
from asd_daemon.tell.storage.clips import NORMAL
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES, fit_length, read_waveform

F32 = NDArray[np.float32]
_MOST_LEARNED = 24
"""Windows of the enrolment, evenly chosen: a second of one slow core."""


def normal_windows(folder: Path, machine: str) -> list[tuple[Path, float, F32]]:
    """What is kept of normal sound: its file, how much softer than in the file it was, float32 (160 000,)."""
    found = []
    for file in sorted((folder / "clips" / machine).glob(f"*{NORMAL}.flac")):
        try:
            samples = read_waveform(file)
        except AsdError:  # deleted meanwhile, since newer ones are kept
            continue
        if samples.shape == (WINDOW_SAMPLES,):
            found.append((file, 1.0, samples))
    learned = [
        f for sound in sorted((folder / "enrolled" / machine).glob(f"*/{SOUND_FOLDER}")) for f in window_files(sound)
    ]
    places = np.unique(np.linspace(0, len(learned) - 1, min(len(learned), _MOST_LEARNED)).round().astype(int))
    for place in places if learned else ():
        file = learned[int(place)]
        found.append((file, 2.0 ** -int(file.stem.rsplit("-", 1)[1]), read_window(file)))
    return found


def nearest(window: F32, normal: list[F32]) -> int:
    """The place of the normal window, each float32 (160 000,), whose spectrum is nearest to this one's."""
    means = np.stack([_mean(sound) for sound in normal])  # (N, G)
    std = np.maximum(means.std(axis=0), LEAST_STD)
    return int(np.argmin(np.square((means - _mean(window)) / std).sum(axis=1)))


def _mean(sound: F32) -> F32:
    return np.asarray(np.log(np.exp(coarse_spectrum(sound)).mean(axis=0)), np.float32)


def main(words: list[str]) -> int:
    """The program."""
    os.nice(19)
    folder, machine, clip, end_s = Path(words[0]), words[1], Path(words[2]), float(words[3])
    sound = read_waveform(clip)
    end = min(len(sound), max(WINDOW_SAMPLES, round(end_s * SAMPLE_RATE_HZ)))
    window = fit_length(sound[max(0, end - WINDOW_SAMPLES) : end])
    normal = normal_windows(folder, machine)
    if not normal:
        print("{}")  # noqa: T201
        return 0
    file, gain, _ = normal[nearest(window, [samples for *_, samples in normal])]
    print(json.dumps({"file": str(file), "gain": gain, "compared": len(normal)}))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
