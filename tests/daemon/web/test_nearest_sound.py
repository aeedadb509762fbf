"""Which kept normal sound is shown beside an alert."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asd_daemon.learn.kept_sound import write_window
from asd_daemon.web.nearest_sound import nearest
from rig.daemon import daemon_environment

RATE = 16_000


def hum(hz: float, seed: int, seconds: int = 10) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(0, 0.003, seconds * RATE)
    return (0.1 * np.sin(2 * np.pi * hz * np.arange(seconds * RATE) / RATE) + noise).astype(np.float32)


def find(folder: Path, clip: Path, end_s: float) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "asd_daemon.web.nearest_sound", str(folder), "fan", str(clip), str(end_s)],
        env=daemon_environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_nearest_is_the_one_of_the_same_hum() -> None:
    normal = [hum(400, 1), hum(1000, 2), hum(3000, 3)]
    assert [nearest(hum(hz, 9), normal) for hz in (400, 1000, 3000)] == [0, 1, 2]


def test_recent_windows_and_those_of_the_enrolment_are_compared_by_the_window_that_opened_the_alert(
    tmp_path: Path,
) -> None:
    clips, sound = tmp_path / "clips" / "fan", tmp_path / "enrolled" / "fan" / "20260101T000000" / "sound"
    clips.mkdir(parents=True)
    sound.mkdir(parents=True)
    clip = clips / "alert.flac"
    soundfile.write(clip, np.concatenate([hum(400, 5, 20), hum(3000, 6), hum(400, 7)]), RATE)
    assert find(tmp_path, clip, 30.0) == {}
    soundfile.write(clips / "20260101T000000Z-normal.flac", hum(400, 1), RATE)
    learned = write_window(sound, 3, hum(3000, 2))
    found = find(tmp_path, clip, 30.0)
    assert (found["file"], found["compared"]) == (str(learned), 2)
    assert found["gain"] == 2.0 ** -int(learned.stem.rsplit("-", 1)[1])
    assert find(tmp_path, clip, 40.0)["file"] == str(clips / "20260101T000000Z-normal.flac")
