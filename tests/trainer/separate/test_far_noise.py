"""The far microphone as the separator's noise: less the machine, counted in the mixtures, refused where there is none."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.data.dataset import load_clip, read_dataset, training_clips
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.devices import device_here
from asd_trainer.run.forecast import forecast
from asd_trainer.run.stages import run_stage
from asd_trainer.separate import far_noise
from asd_trainer.separate.far_noise import chosen_clips, far_sounds
from asd_trainer.separate.guidance import choose, materials
from asd_trainer.separate.mixtures import MixtureRule, draw
from asd_trainer.separate.stage import separated_machines
from rig.tones import PITCH_HZ, add_far_microphone, write_tones

F32 = NDArray[np.float32]
HALL_HZ = {"hummer": 2500.0, "singer": 4000.0}
SUPPLEMENT_HZ = 5500.0
CROSSTALK = 0.1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each machine hums in a hall that hums at another pitch; the far microphone hears the hall, and the machine 20 dB softer."""

    def hall_of(path: Path, time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        return np.asarray(0.2 * np.sin(2 * np.pi * HALL_HZ[path.parts[-3]] * time_s + rng.uniform(0, 6)))

    return add_far_microphone(write_tones(tmp_path_factory.mktemp("stereo") / "dcase2026t2"), hall_of, CROSSTALK)


def power_at(sound: F32, pitch_hz: float) -> float:
    """By correlation with a tone, 0.5 for a tone of amplitude 1."""
    turning = np.exp(-2j * np.pi * pitch_hz * np.arange(len(sound)) / 16_000)
    return 2 * float(abs(np.mean(sound * turning)) ** 2)


def test_the_machine_is_taken_out_of_the_far_microphone_and_the_hall_stays(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = training_clips(read_dataset([root]))
    with caplog.at_level(logging.INFO):
        found = far_sounds(clips, 1)
    assert set(found) == set(clips)
    for clip, sound in found.items():
        raw = load_clip(clip, 1)[:80_000]
        own_hz = PITCH_HZ[clip.machine] * (1.12 if clip.domain == "target" else 1.0)
        assert power_at(sound[:80_000], own_hz) < 0.1 * power_at(raw, own_hz), clip.path.name
        hall_hz = HALL_HZ[clip.machine]
        assert power_at(sound[:80_000], hall_hz) == pytest.approx(power_at(raw, hall_hz), rel=0.1)
    assert "hummer 00: the far microphone of 8 clips is noise" in caplog.text


def write_supplement(root: Path, machine: str, what: str, pitch_hz: float, count: int) -> None:
    folder = root / machine / "supplemental"
    folder.mkdir(exist_ok=True)
    sound = 0.2 * np.sin(2 * np.pi * pitch_hz * np.arange(80_000) / 16_000)
    for number in range(count):
        soundfile.write(folder / f"section_00_source_{what}_normal_{number:04d}.wav", sound, 16_000)


def test_mixtures_hold_the_far_microphone_beside_noise_only_clips(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "dcase2026t2"
    shutil.copytree(root, own)
    write_supplement(own, "hummer", "noise", SUPPLEMENT_HZ, 8)
    write_supplement(own, "singer", "machine", PITCH_HZ["singer"], 2)
    table = read_dataset([own])
    assert {name: one.kind for name, one in choose(table).items()} == {"hummer": "noise", "singer": "clean"}
    made = materials(choose(table, far=True).values())
    assert (made["hummer"].noisy, len(made["hummer"].noises)) == (True, 8 + 8)
    assert (made["singer"].noisy, len(made["singer"].noises)) == (False, 8 + 2 * 8)  # of all machines
    rule = MixtureRule(8000, (0.0, 0.0), (-20.0, -20.0), second_noise=0.0)
    rng = np.random.default_rng(0)

    def heard(noise: F32) -> float:
        return max((SUPPLEMENT_HZ, *HALL_HZ.values()), key=lambda pitch_hz: power_at(noise, pitch_hz))

    of_hummer = [heard(draw(made["hummer"], rule, rng)[1]) for _ in range(200)]
    of_singer = [heard(draw(made["singer"], rule, rng)[1]) for _ in range(200)]
    assert 70 < of_hummer.count(HALL_HZ["hummer"]) < 130  # 8 of 16
    assert of_hummer.count(HALL_HZ["singer"]) == 0
    assert 100 < of_singer.count(HALL_HZ["hummer"]) + of_singer.count(HALL_HZ["singer"]) < 165  # 16 of 24
    without = materials(choose(table).values())["hummer"]
    assert {heard(draw(without, rule, rng)[1]) for _ in range(30)} == {SUPPLEMENT_HZ}


@pytest.mark.torch
def test_the_stage_separates_machines_that_have_two_microphones_and_nothing_else(root: Path, tmp_path: Path) -> None:
    keys = ["separate.enabled=true", "separate.steps=2", "separate.batch_mixtures=1", "separate.crop_s=0.25"]
    table = read_dataset([root])
    with pytest.raises(DataSetError, match=r"no machine has clean .*separate\.noise=far"):
        run_stage("separate", load_recipe("smoke", keys), table, tmp_path / "without")
    run_stage("separate", load_recipe("smoke", [*keys, "separate.noise=far"]), table, tmp_path / "run")
    assert {name: one.guidance for name, one in separated_machines(tmp_path / "run").items()} == {
        "hummer": "noise",
        "singer": "noise",
    }


def test_recordings_without_a_far_microphone_are_refused_by_key_and_file(root: Path, tmp_path: Path) -> None:
    mono = read_dataset([write_tones(tmp_path / "mono")])
    with pytest.raises(DataSetError, match=r"separate\.noise: far, .*far_channel: 1: .*hummer.*no channel 1") as told:
        materials(choose(mono, far=True).values())
    assert str(told.value).count(".wav") == 1
    with pytest.raises(DataSetError, match=r"separate\.far_channel: 3: .*no channel 3"):
        materials(choose(read_dataset([root]), far=True).values(), far_channel=3)
    with pytest.raises(DataSetError, match=r"separate\.noise: far"):  # before anything is trained
        forecast(
            load_recipe("smoke", ["separate.enabled=true", "separate.noise=far"]), mono, tmp_path / "run", device_here()
        )
    few = read_dataset([root]).select(split="train", machine="singer")[:3]
    with pytest.raises(DataSetError, match=r"separate\.noise: far: singer 00: 3 windows"):
        far_sounds(few, 1)


@pytest.mark.parametrize("gain", [1.0, 0.25])
def test_two_channels_of_one_microphone_are_refused(tmp_path: Path, gain: float) -> None:
    root = write_tones(tmp_path / "copies", test=1)
    for path in root.rglob("*.wav"):
        sound, rate_hz = soundfile.read(path)
        soundfile.write(path, np.stack([sound, gain * sound], axis=1), rate_hz)
    with pytest.raises(DataSetError, match="hummer 00: both channels hold the same sound"):
        far_sounds(training_clips(read_dataset([root])), 1)


def test_of_many_clips_some_are_chosen_evenly(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = training_clips(read_dataset([root]))
    assert chosen_clips(clips) == clips
    monkeypatch.setattr(far_noise, "MOST_CLIPS", 3)
    assert [clips.index(clip) for clip in chosen_clips(clips)] == [0, 4, 7, 8, 12, 15]
