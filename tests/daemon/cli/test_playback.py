"""Sound of an alert is played through a real sound server, and a box without an output says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rig.microphone import VirtualMicrophone, missing
from rig.waiting import wait_until

LACKING = missing()
PLAY = """
import sys
import numpy as np
from asd_daemon.cli.playback import play_sound
from asd_daemon.errors import UsageError
try:
    play_sound((0.3 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(24_000))).astype(np.float32), sys.argv[1])
except UsageError as e:
    print(e)
"""


@pytest.mark.microphone
@pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
def test_sound_comes_out_as_it_is_and_a_wrong_output_is_named(tmp_path: Path) -> None:
    with VirtualMicrophone(tmp_path / "v") as server:
        cards = server.folder / "asound.conf"
        cards.write_text(
            f'{cards.read_text()}\npcm.out {{ type pulse server "unix:{server.folder}/native" device "out" '
            'hint { show on description "output" } }\n'
        )
        environment, recorded = {**os.environ, **server.environment}, tmp_path / "recorded"
        words = ["pactl", "load-module", "module-null-sink", "sink_name=out"]
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
        words = ["parec", "--device=out.monitor", "--rate=16000", "--channels=1", "--format=s16le", str(recorded)]
        with subprocess.Popen(words, env=environment) as recorder:
            wait_until(lambda: recorded.exists() and recorded.stat().st_size > 0, "the output is recorded")
            assert play("out", environment) == ""
            assert "can't be played at 'nowhere'" in (said := play("nowhere", environment))
            assert "there are: " in said
            recorder.terminate()
    samples = np.frombuffer(recorded.read_bytes(), np.int16)
    heard = samples[np.flatnonzero(np.abs(samples) > 1000)[0] :][:16_000]
    assert np.argmax(np.abs(np.fft.rfft(heard))) == 440
    assert np.abs(heard).max() == pytest.approx(0.3 * 32_768, rel=0.1)


def play(device: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PLAY, device], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout
