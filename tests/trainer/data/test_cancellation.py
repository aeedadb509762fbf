"""Data sets of two microphones, as in 2026, written anew without the hall: same names, same tables, and a machine that is heard better."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.hear.simulator import SimulatedMachine, render_noise
from asd_daemon.hear.simulator.two_microphones import draw_two_microphones, hear_in_hall
from asd_trainer.cli.program import main
from asd_trainer.data.cancellation import NOTE, cancel_hall, parse_channels
from asd_trainer.data.dataset import read_dataset

F32 = NDArray[np.float32]
SECONDS = 12  # as the longer clips of 2026


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of 2026: clips of two channels, near left, far right, 10 to 12 s."""
    root = tmp_path_factory.mktemp("data") / "dcase2026t2"
    rng = np.random.default_rng(3)
    for machine in ("fan", "bearingEmu"):
        raw = root / "dev_data" / "raw" / machine
        places = draw_two_microphones(rng, 1)
        names = [f"train/section_00_source_train_normal_{n:04d}_vel_{n % 2}.wav" for n in range(5)]
        names += ["train/section_00_target_train_normal_0000_vel_9.wav"]
        names += [
            f"test/section_00_{domain}_test_{label}_0000_vel_1.wav"
            for domain in ("source", "target")
            for label in ("normal", "anomaly")
        ]
        for name in names:
            path = raw / name
            path.parent.mkdir(parents=True, exist_ok=True)
            own = SimulatedMachine(machine.removesuffix("Emu")).render(SECONDS, rng)
            heard = hear_in_hall(places, own, [render_noise("compressor", SECONDS, rng)]).mixed(
                float(rng.uniform(-6, 8))
            )
            soundfile.write(path, heard.both, 16_000)
            np.save(path.with_suffix(".truth.npy"), heard.machine[:, 0])
        (raw / "attributes_00.csv").write_text("file_name,d1p,d1v\n")
    return root


def si_sdr_db(found: F32, truth: F32) -> float:
    scale = float(found @ truth) / float(truth @ truth)
    error = found - scale * truth
    return 10 * float(np.log10(scale**2 * (truth @ truth) / (error @ error)))


def test_a_set_of_2026_is_the_same_set_without_the_hall(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "dcase2026t2"
    told: list[tuple[int, int]] = []
    done = cancel_hall(data, out, progress=lambda *each: told.append(each))
    assert (done.written, done.kept, done.problems) == (20, 0, ())
    assert (told[0], told[-1]) == ((0, 20), (20, 20))
    before, after = read_dataset([data]), read_dataset([out])
    names = [
        [(c.path.name, c.machine, c.split, c.domain, c.label, c.attributes, c.year) for c in t.clips]
        for t in (before, after)
    ]
    assert names[0] == names[1]
    assert {clip.year for clip in after.clips} == {2026}
    gains = []
    for clip in after.clips:
        sound, rate_hz = soundfile.read(clip.path, dtype="float32")
        both, _ = soundfile.read(data / clip.path.relative_to(out), dtype="float32")
        truth = np.load((data / clip.path.relative_to(out)).with_suffix(".truth.npy"))
        assert (sound.shape, rate_hz) == ((SECONDS * 16_000,), 16_000)
        gains.append(si_sdr_db(sound, truth) - si_sdr_db(both[:, 0], truth))
    assert np.mean(gains) > 1.5
    assert (out / "dev_data" / "raw" / "fan" / "attributes_00.csv").exists()
    assert set(json.loads((out / NOTE).read_text())["shares"]) == {"fan 00", "bearingEmu 00"}


def test_what_is_done_is_kept_and_what_is_missing_is_made(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "dcase2026t2"
    cancel_hall(data, out)
    gone = sorted(out.rglob("*.wav"))[3]
    content = gone.read_bytes()
    gone.unlink()
    done = cancel_hall(data, out)
    assert (done.written, done.kept) == (1, 19)
    assert gone.read_bytes() == content
    with pytest.raises(DataSetError, match="was made of other recordings, channels or by another version"):
        cancel_hall(data, out, near=1, far=0)


def test_what_cannot_be_done_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="dcase2026t2"):
        cancel_hall(data, tmp_path / "clean")
    with pytest.raises(DataSetError, match="would be read as a part of it"):
        cancel_hall(data, data / "clean")
    with pytest.raises(DataSetError, match="fan 00: .*no channel 5"):
        cancel_hall(data, tmp_path / "dcase2026t2", far=5)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "dcase2026t2").mkdir()
    (tmp_path / "full" / "dcase2026t2" / "mine.txt").touch()
    with pytest.raises(DataSetError, match="is not empty"):
        cancel_hall(data, tmp_path / "full" / "dcase2026t2")


def test_any_folder_of_stereo_recordings_by_command(data: Path, tmp_path: Path) -> None:
    plain = tmp_path / "recordings" / "press"
    plain.mkdir(parents=True)
    for number, file in enumerate(sorted((data / "dev_data" / "raw" / "fan" / "train").glob("*.wav"))):
        both, rate_hz = soundfile.read(file)
        soundfile.write(plain / f"{number}.flac", both[:, ::-1], rate_hz)
    words = ["cancel", str(tmp_path / "recordings"), "--to", str(tmp_path / "clean"), "--channels", "1,0"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "6 clips written, 0 kept" in done.output
    assert "softer by the far microphone, the hall makes" in done.output
    assert len(read_dataset([tmp_path / "clean"]).clips) == 6
    shutil.rmtree(tmp_path / "clean")


@pytest.mark.parametrize("words", ["0", "0,0,1", "a,b", "0;1", "-1,0", "0,64", ""])
def test_channels_that_are_no_two_numbers_are_refused(words: str) -> None:
    with pytest.raises(DataSetError, match="must be NEAR,FAR"):
        parse_channels(words)
