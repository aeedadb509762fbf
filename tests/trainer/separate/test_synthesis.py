from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, RecordingError, StageError
from asd_daemon.waveform import WINDOW_SAMPLES, read_waveform
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import read_dataset
from asd_trainer.data.naming import Attributes, Domain
from asd_trainer.networks.separator import Separator, SeparatorSize
from asd_trainer.separate.losses import separate
from asd_trainer.separate.separated_clips import SeparatedClip, separate_clips, twin, write_sound
from asd_trainer.separate.synthesis import plan, render, write

pytestmark = pytest.mark.torch

SIZE = SeparatorSize("small", "fourier", 512, 256, 257, 8, 1, 1, 1, 2, 5, 40, dropout=0.0, layer_scale=0.1)


def recording(machine: str, number: int, domain: Domain, attributes: Attributes, snr_db: float = -6.0) -> SeparatedClip:
    name = f"section_00_{domain}_train_normal_{number:04d}.wav"
    clip = Clip(Path("data", machine, "train", name), machine, "00", "train", domain, "normal", attributes, None, 2025)
    return SeparatedClip(clip, twin(clip, Path("separated")), -30.0, -30.0 - snr_db)


FAN = tuple(
    recording("fan", n, "source" if n < 6 else "target", (("speed", str(n % 2)),), snr_db=-6.0 - n) for n in range(8)
)
LATHE = tuple(recording("lathe", n, "source" if n < 3 else "target", ()) for n in range(4))


def sound_of(clip: Clip) -> NDArray[np.float32]:
    """A separated machine is a square wave of its recording's own period; the recording adds noise of its own."""
    number = int(clip.path.stem.split("_")[5])
    square = np.where(np.arange(WINDOW_SAMPLES) // (20 + 3 * number) % 2, 0.1, -0.1)
    noise = np.random.default_rng(number).standard_normal(WINDOW_SAMPLES) if clip.path.parts[0] == "data" else 0.0
    return np.asarray(square + 0.2 * noise, dtype=np.float32)


def test_plan_splits_domains_four_to_one_and_machines_evenly() -> None:
    planned = plan((*FAN, *LATHE), 35, seed=0, folder=Path("out"))
    assert Counter((one.clip.machine, one.clip.domain) for one in planned) == {
        ("fan", "source"): 16,
        ("fan", "target"): 4,
        ("lathe", "source"): 12,
        ("lathe", "target"): 3,
    }


def test_plan_carries_attributes_over_and_keeps_noise_within_the_class() -> None:
    planned = plan(FAN, 200, seed=0, folder=Path("out"))
    for one in planned:
        assert one.clip.attributes == one.machine.clip.attributes
        assert one.clip.domain == one.machine.clip.domain == one.noise.clip.domain
        assert one.noise is not one.machine
        if one.clip.domain == "source":
            assert one.noise.clip.attributes == one.clip.attributes
    assert len({(one.machine.clip.path, one.noise.clip.path) for one in planned}) == 14  # 2·3·2 in source, 2 in target


def test_plan_draws_ratios_from_recordings_of_the_same_domain() -> None:
    planned = plan(FAN, 500, seed=0, folder=Path("out"))
    for domain in ("source", "target"):
        own = {one.snr_db for one in FAN if one.clip.domain == domain}
        drawn = Counter(one.snr_db for one in planned if one.clip.domain == domain)
        assert set(drawn) == own
        assert max(drawn.values()) < 2.5 * min(drawn.values())


def test_plan_follows_from_the_seed_and_does_not_change_with_other_machines() -> None:
    first, again = (plan(FAN, 50, seed=3, folder=Path("out")) for _ in range(2))
    assert first == again != plan(FAN, 50, seed=4, folder=Path("out"))
    both = plan((*FAN, *LATHE), 100, seed=3, folder=Path("out"))
    assert tuple(one for one in both if one.clip.machine == "fan") == first


@pytest.mark.parametrize("clips", [0, 5, 12, 1001])
def test_plan_of_number_that_is_not_four_to_one_is_refused(clips: int) -> None:
    with pytest.raises(DataSetError, match=f"{clips} synthetic clips of 2 machine"):
        plan((*FAN, *LATHE), clips, seed=0, folder=Path("out"))


def test_plan_without_target_clips_names_machine_and_domain() -> None:
    with pytest.raises(DataSetError, match="fan: has no training clip of the target domain"):
        plan(FAN[:6], 10, seed=0, folder=Path("out"))


def test_plan_leaves_out_recordings_in_which_no_machine_was_found() -> None:
    mute = replace(FAN[0], machine_dbfs=-120.0)
    planned = plan((mute, *FAN[1:]), 200, seed=0, folder=Path("out"))
    assert all(mute not in (one.machine, one.noise) for one in planned)


def test_render_has_ratio_and_level_of_the_plan_and_sound_of_both() -> None:
    for one in plan(FAN, 10, seed=1, folder=Path("out")):
        made = render(one, sound_of)
        assert made.shape == (WINDOW_SAMPLES,)
        assert 10 * np.log10(np.mean(made.astype(float) ** 2)) == pytest.approx(one.level_dbfs, abs=0.01)
        machine = sound_of(one.machine.machine).astype(float)
        noise = np.roll(sound_of(one.noise.clip) - sound_of(one.noise.machine), one.noise_shift_samples).astype(float)
        parts, rest, *_ = np.linalg.lstsq(np.stack([machine, noise], axis=1), made.astype(float), rcond=None)
        assert rest[0] < 1e-6 * np.sum(made.astype(float) ** 2)
        assert 20 * np.log10(parts[0] * machine.std() / (parts[1] * noise.std())) == pytest.approx(one.snr_db, abs=0.1)


def test_write_goes_on_where_it_stopped_and_gives_what_render_gives(tmp_path: Path) -> None:
    planned = plan(FAN, 10, seed=1, folder=tmp_path)
    seen: list[int] = []
    assert write(planned[:3], sound_of) == 3
    stamps = [one.clip.path.stat().st_mtime_ns for one in planned[:3]]
    assert write(planned, sound_of, seen.append) == 7
    assert [one.clip.path.stat().st_mtime_ns for one in planned[:3]] == stamps
    assert seen == list(range(1, 11))
    np.testing.assert_allclose(read_waveform(planned[9].clip.path), render(planned[9], sound_of), atol=2e-7)


def test_written_set_reads_as_a_data_set_with_the_same_clips(tmp_path: Path) -> None:
    planned = plan((*FAN, *LATHE), 20, seed=1, folder=tmp_path)
    write(planned, sound_of)
    table = read_dataset([tmp_path])
    assert table.problems == ()
    found = {
        clip.path: (clip.machine, clip.domain, clip.label, clip.attributes) for clip in table.select(split="train")
    }
    assert found == {
        one.clip.path: (one.clip.machine, one.clip.domain, "normal", one.clip.attributes) for one in planned
    }


def test_write_into_a_folder_that_is_a_file_says_where(tmp_path: Path) -> None:
    (tmp_path / "fan").write_text("in the way")
    with pytest.raises(StageError, match=r"fan.*can't be written"):
        write(plan(FAN, 5, seed=0, folder=tmp_path), sound_of)


def real_clips(folder: Path, number: int) -> list[Clip]:
    rng = np.random.default_rng(0)
    clips = []
    for n in range(number):
        path = folder / f"section_00_source_train_normal_{n:04d}.wav"
        folder.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(WINDOW_SAMPLES), 16_000, subtype="FLOAT")
        clips.append(Clip(path, "fan", "00", "train", "source", "normal", (), None, 2025))
    return clips


def test_separate_clips_writes_twins_that_equal_the_separator_and_goes_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, clips = Separator(SIZE).eval(), real_clips(tmp_path / "in", 3)
    separate_clips(network, clips[:2], tmp_path / "out")
    stamps = [twin(clip, tmp_path / "out").path.stat().st_mtime_ns for clip in clips[:2]]
    done = separate_clips(network, clips, tmp_path / "out")
    assert [twin(clip, tmp_path / "out").path.stat().st_mtime_ns for clip in clips[:2]] == stamps
    for one, clip in zip(done, clips, strict=True):
        machine, noise = separate(network, read_waveform(clip.path))
        np.testing.assert_allclose(read_waveform(one.machine.path), machine, atol=2e-7)
        assert one.snr_db == pytest.approx(20 * np.log10(machine.std() / noise.std()), abs=0.01)
        assert (one.clip, one.machine.machine) == (clip, "fan")


def test_separate_clips_of_broken_file_names_it(tmp_path: Path) -> None:
    clips = real_clips(tmp_path / "in", 1)
    clips[0].path.write_bytes(b"no sound")
    with pytest.raises(RecordingError, match="0000"):
        separate_clips(Separator(SIZE), clips, tmp_path / "out")


def test_separate_clips_that_would_share_a_file_are_refused(tmp_path: Path) -> None:
    clips = real_clips(tmp_path / "in", 1)
    other = replace(clips[0], path=tmp_path / "elsewhere" / clips[0].path.name)
    with pytest.raises(StageError, match="would hold both"):
        separate_clips(Separator(SIZE), [*clips, other], tmp_path / "out")


def test_write_sound_beyond_full_scale_is_cut_off(tmp_path: Path) -> None:
    write_sound(tmp_path / "a" / "loud.flac", np.array([0.5, 2.0, -3.0], np.float32))
    np.testing.assert_allclose(read_waveform(tmp_path / "a" / "loud.flac"), [0.5, 1.0, -1.0], atol=2e-7)
