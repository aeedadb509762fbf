"""Folders of recordings → one table of clips: the layouts of every year, plain folders, and what can't be used."""

from __future__ import annotations

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_daemon.errors import DataSetError, RecordingError
from asd_trainer.data.dataset import Clip, ClipTable, class_labels, load_clip, read_dataset
from asd_trainer.data.naming import MisnamedError, parse_name

SHARED = Path(__file__).resolve().parents[3].parent / "shared"


def _wav(samples: int = 80_000, rate_hz: int = 16_000) -> bytes:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, samples)
    memory = io.BytesIO()
    soundfile.write(memory, sound, rate_hz, format="WAV", subtype="PCM_16")
    return memory.getvalue()


SHORT_WAV = _wav()


def lay(root: Path, *names: str) -> None:
    """Write short recordings at relative paths."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SHORT_WAV)


def only(table: ClipTable) -> Clip:
    assert not table.problems, table.report()
    (clip,) = table.clips
    return clip


def reasons(table: ClipTable) -> dict[str, str]:
    return {problem.path.name: problem.reason for problem in table.problems}


@pytest.mark.parametrize(
    ("name", "domain", "label", "attributes", "year"),
    [
        ("dcase2025t2/dev_data/raw/fan/train/section_00_source_train_normal_0040_m-n_X.wav", "source", "normal", (("m-n", "X"),), 2025),
        (
            "dcase2023t2/dev_data/raw/ToyCar/test/section_00_target_test_anomaly_0028_car_C2_spd_34V_mic_1.wav",
            "target", "anomaly", (("car", "C2"), ("spd", "34V"), ("mic", "1")), 2023,
        ),
        (
            "raw/slider/test/section_00_target_test_normal_0013_vel_620_ac_0.08.wav",
            "target", "normal", (("vel", "620"), ("ac", "0.08")), None,
        ),
        ("raw/bearing/train/section_00_target_train_normal_0009_noAttribute.wav", "target", "normal", (), None),
        (
            "raw/fan/train/section_02_source_train_normal_0000_strength_1_ambient.wav",
            "source", "normal", (("strength", "1"), ("ambient", "")), None,
        ),
        (
            "dcase2024t2/eval_data/raw/RoboticArm/train/section_00_target_normal_0091_weight35_BckgE.wav",
            "target", "normal", (("weight35", "BckgE"),), 2024,
        ),
        ("raw/fan/test/section_00_0001.wav", None, None, (), None),
        ("raw/fan/test/section_00_test_0001.wav", None, None, (), None),
        ("raw/fan/test_rename/section_00_source_test_anomaly_0001_m-n_W.wav", "source", "anomaly", (("m-n", "W"),), None),
        ("dev_data/ToyCar/train/normal_id_01_00000000.wav", None, "normal", (), 2020),
        ("dev_data/ToyCar/test/anomaly_id_04_00000132.wav", None, "anomaly", (), 2020),
        ("eval_data/ToyCar/test/id_05_00000001.wav", None, None, (), 2020),
        ("dev_data/valve/source_test/section_00_source_test_normal_0000.wav", "source", "normal", (), 2021),
        ("dev_data/valve/target_test/section_03_target_test_0000.wav", "target", None, (), 2021),
    ],
)  # fmt: skip
def test_a_clip_of_each_layout_is_understood(
    tmp_path: Path, name: str, domain: str | None, label: str | None, attributes: object, year: int | None
) -> None:
    lay(tmp_path, name)
    clip = only(read_dataset([tmp_path]))
    machine, folder = Path(name).parts[-3:-1]
    assert (clip.machine, clip.domain, clip.label, clip.attributes, clip.year) == (
        machine,
        domain,
        label,
        attributes,
        year,
    )
    assert clip.split == ("train" if folder == "train" else "test")
    assert clip.path == tmp_path / name
    assert clip.supplement is None


@pytest.mark.parametrize(
    ("stem", "holds", "attributes"),
    [
        ("section_00_machine_0001_", "machine", ()),
        ("section_00_noise_0100_", "noise", ()),
        ("section_00_machine_0000_dir_ccw", "machine", (("dir", "ccw"),)),
        ("section_00_source_supplemental_machine_0000", "machine", ()),
        ("section_00_noise_supplemental_normal_0000", "noise", ()),
        ("section_00_machine_0003_car_A1_noise_1", "machine", (("car", "A1"), ("noise", "1"))),
    ],
)
def test_supplemental_clips_are_told_apart_by_a_word_before_the_number(
    tmp_path: Path, stem: str, holds: str, attributes: object
) -> None:
    lay(tmp_path, f"fan/supplemental/{stem}.wav", "fan/train/section_00_source_train_normal_0000.wav")
    (clip,) = read_dataset([tmp_path]).select(split="supplemental")
    assert (clip.supplement, clip.attributes, clip.domain, clip.section) == (holds, attributes, "source", "00")


def test_three_sections_and_ids_are_kept_apart(tmp_path: Path) -> None:
    lay(tmp_path, *(f"raw/fan/train/section_{s}_source_train_normal_0000.wav" for s in ("00", "01", "05")))
    lay(tmp_path, "old/pump/train/normal_id_00_00000000.wav", "old/pump/train/normal_id_02_00000000.wav")
    table = read_dataset([tmp_path])
    assert [(c.machine, c.section) for c in table.clips] == [
        ("fan", "00"),
        ("fan", "01"),
        ("fan", "05"),
        ("pump", "00"),
        ("pump", "02"),
    ]
    assert table.machines == ("fan", "pump")
    assert [c.section for c in table.select(machine="fan", section="01")] == ["01"]


@pytest.mark.parametrize(
    "level", ["", "dcase2025t2", "dcase2025t2/dev_data", "dcase2025t2/dev_data/raw", "dcase2025t2/dev_data/raw/fan"]
)
def test_a_root_at_any_level_gives_the_same_clips(tmp_path: Path, level: str) -> None:
    lay(
        tmp_path,
        *(f"dcase2025t2/dev_data/raw/fan/train/section_00_source_train_normal_{n:04d}_m-n_X.wav" for n in range(3)),
    )
    table = read_dataset([tmp_path / level])
    assert [(c.machine, c.split, c.year) for c in table.clips] == [("fan", "train", 2025)] * 3


def test_a_root_that_is_a_split_belongs_to_the_folder_above(tmp_path: Path) -> None:
    lay(tmp_path, "fan/train/section_00_source_train_normal_0000.wav", "fan/test/section_00_0001.wav")
    clip = only(read_dataset([tmp_path / "fan" / "train"]))
    assert (clip.machine, clip.split) == ("fan", "train")


def test_roots_that_overlap_and_links_in_a_circle_give_each_clip_once(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "raw/fan/train/section_00_source_train_normal_0000.wav",
        "raw/fan/test/section_00_0001.wav",
        "mine/fan 2/a.wav",
    )
    (tmp_path / "raw" / "again").symlink_to(tmp_path)
    table = read_dataset([tmp_path / "raw/fan", tmp_path, tmp_path / "raw/fan/train"])
    assert Counter(c.machine for c in table.clips) == {"fan": 2, "fan 2": 1}
    assert not table.problems


def test_labelled_copies_take_the_place_of_anonymous_test_clips(tmp_path: Path) -> None:
    lay(tmp_path, "fan/test/section_00_0001.wav", "fan/test_rename/section_00_source_test_normal_0001_m-n_W.wav")
    assert only(read_dataset([tmp_path])).label == "normal"


@pytest.mark.parametrize(
    "cell", ["{stem}", "{stem}.wav", "train/{stem}.wav", "fan/train/{stem}.wav", "fan\\train\\{stem}.wav"]
)
def test_the_table_answers_where_the_name_is_silent(tmp_path: Path, cell: str) -> None:
    stem = "section_00_source_train_normal_0000"
    lay(tmp_path, f"fan/train/{stem}.wav")
    rows = f"file_name,d1p,d1v,d2p,d2v\n{cell.format(stem=stem)},vel,6,loc,A\n"
    (tmp_path / "fan/attributes_00.csv").write_text(rows, encoding="utf-8-sig")
    assert only(read_dataset([tmp_path])).attributes == (("vel", "6"), ("loc", "A"))


def test_a_table_that_contradicts_names_is_named_and_the_names_are_used(tmp_path: Path) -> None:
    stems = [f"section_00_source_train_normal_{n:04d}_ac_{v}" for n, v in enumerate(["0.10", "0.20", "0.30"])]
    lay(tmp_path, *(f"slider/train/{stem}.wav" for stem in stems))
    rows = ["file_name,d1p,d1v", f"{stems[0]},ac,0.1", f"{stems[1]},ac,0.25", f"{stems[2]},ac,0.35"]
    (tmp_path / "slider/attributes_00.csv").write_text("\n".join(rows))
    table = read_dataset([tmp_path])
    assert [c.attributes for c in table.clips] == [(("ac", "0.10"),), (("ac", "0.20"),), (("ac", "0.30"),)]
    assert "disagrees with the names of 2 train file(s)" in reasons(table)["attributes_00.csv"]
    assert table.report().startswith("1 doubt(s); the clips are used:\n")


@pytest.mark.parametrize("delimiter", [";", "\t"])
@pytest.mark.parametrize("head", ["file_name,d1p,d1v,d2p,d2v\n", ""])
def test_a_table_as_a_spreadsheet_saves_it_is_read(tmp_path: Path, delimiter: str, head: str) -> None:
    stem = "section_00_source_train_normal_0000"
    lay(tmp_path, f"fan/train/{stem}.wav")
    text = f"{head}{stem}.wav,vel,6,loc,A\n".replace(",", delimiter)
    (tmp_path / "fan/attributes_00.csv").write_text(text)
    table = read_dataset([tmp_path])
    assert only(table).attributes == (("vel", "6"), ("loc", "A"))
    assert not table.problems


def test_a_table_whose_rows_are_no_clips_is_named_and_so_are_clips_without_a_row(tmp_path: Path) -> None:
    stems = [f"section_00_source_train_normal_{number:04d}" for number in range(3)]
    lay(tmp_path, *(f"fan/train/{stem}.wav" for stem in stems), *(f"valve/train/{stem}.wav" for stem in stems))
    (tmp_path / "fan/attributes_00.csv").write_text("file_name,d1p,d1v\nfan_0001.wav,vel,6\nfan_0002.wav,vel,7\n")
    (tmp_path / "valve/attributes_00.csv").write_text(f"file_name,d1p,d1v\n{stems[0]}.wav,vel,6\n")
    table = read_dataset([tmp_path])
    assert len(table.clips) == 6
    told = {problem.path.parent.name: problem for problem in table.problems}
    assert "no row names a clip of fan, the first of its 2 names 'fan_0001'" in told["fan"].reason
    assert f"has no row for 2 training clip(s), first {stems[1]}.wav" in told["valve"].reason
    assert told["fan"].used
    assert told["valve"].used


def test_withheld_attributes_stay_withheld(tmp_path: Path) -> None:
    stem = "section_00_source_train_normal_0000_noAttribute"
    lay(tmp_path, f"bearing/train/{stem}.wav")
    truth = f"source_file_name,d1p,d1v\n{stem},vel,6\n"
    for name in ("attributes_00.csv", "attributes_00_train_correspondence.csv"):
        (tmp_path / "bearing" / name).write_text(truth)
    assert only(read_dataset([tmp_path])).attributes == ()


def test_a_table_that_is_no_text_is_named_once(tmp_path: Path) -> None:
    lay(
        tmp_path, "fan/train/section_00_source_train_normal_0000.wav", "fan/test/section_00_source_test_normal_0000.wav"
    )
    (tmp_path / "fan/attributes_00.csv").write_bytes(b"\xff\xfe\x00\xd8")
    table = read_dataset([tmp_path])
    assert len(table.clips) == 2
    assert [problem.path.name for problem in table.problems] == ["attributes_00.csv"]


def test_a_plain_folder_is_one_machine_in_normal_condition(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "my pump/monday.wav",
        "my pump/tuesday.WAV",
        "my pump/readme.txt",
        "my pump/.hidden.wav",
        "my pump/._monday.wav",
    )
    table = read_dataset([tmp_path / "my pump"])
    assert not table.problems
    assert [(c.machine, c.section, c.split, c.domain, c.label, c.attributes) for c in table.clips] == [
        ("my pump", "00", "train", None, "normal", ())
    ] * 2


def test_normal_and_anomalous_folders_of_a_plain_machine_are_its_test(tmp_path: Path) -> None:
    lay(tmp_path, "lathe/a.wav", "lathe/normal/b.wav", "lathe/abnormal/c.wav", "lathe/anomaly/monday/d.wav")
    lay(tmp_path, "press/train/a.wav", "press/test/normal/b.wav", "press/test/anomaly/c.wav", "press/test/unknown.wav")
    table = read_dataset([tmp_path])
    assert not table.problems
    found = [(c.machine, c.split, c.label, c.path.stem[0]) for c in table.clips]
    assert sorted(found, key=str) == sorted(
        [
            ("lathe", "train", "normal", "a"),
            ("lathe", "test", "normal", "b"),
            ("lathe", "test", "anomaly", "c"),
            ("lathe", "test", "anomaly", "d"),
            ("press", "train", "normal", "a"),
            ("press", "test", "normal", "b"),
            ("press", "test", "anomaly", "c"),
            ("press", "test", None, "u"),
        ],
        key=str,
    )


def test_unfit_clips_that_are_judged_or_of_the_place_alone_stay_and_are_named(tmp_path: Path) -> None:
    lay(
        tmp_path, "fan/train/section_00_source_train_normal_0000.wav", "fan/test/section_00_source_test_normal_0001.wav"
    )
    lay(tmp_path, "press/a.wav")
    silent = [
        tmp_path / "fan/test/section_00_source_test_normal_0002.wav",
        tmp_path / "fan/supplemental/section_00_noise_0003.wav",
        tmp_path / "press/b.wav",
    ]
    silent[1].parent.mkdir()
    for path in silent:
        soundfile.write(path, np.zeros(160_000), 16_000)
    table = read_dataset([tmp_path])
    assert {clip.path for clip in table.clips} >= set(silent), "each clip of a test split has a score"
    assert {(problem.path, problem.reason, problem.used) for problem in table.problems} == {
        (path, "is not usable: silence", True) for path in silent
    }
    assert table.report().startswith("3 doubt(s); the clips are used:\n")


def test_what_cannot_be_used_is_named_with_its_reason_and_the_rest_is_listed(tmp_path: Path) -> None:
    train = "fan/train/section_00_source_train_normal_{:04d}.wav"
    lay(tmp_path, train.format(0), "fan/train/section_00_sauce_train_normal_0001.wav", "fan/train/extra.wav")
    lay(
        tmp_path,
        "fan/train/section_00_source_test_normal_0002.wav",
        "fan/train/section_00_source_train_anomaly_0003.wav",
    )
    lay(
        tmp_path,
        "fan/supplemental/section_00_both_0001.wav",
        "fan/loose.wav",
        "fan/separated/a.wav",
        "fan/test/old/b.wav",
    )
    lay(tmp_path, "fan/source_test/section_00_target_test_normal_0000.wav", "fan/train/notes.txt")
    (tmp_path / train.format(4)).write_bytes(b"")
    (tmp_path / train.format(5)).write_bytes(b"this is no sound at all")
    (tmp_path / train.format(6)).write_bytes(_wav(samples=0))
    (tmp_path / train.format(7)).symlink_to(tmp_path / "gone.wav")
    (tmp_path / "fan/train/section_00_source_train_normal_0008.mp3").write_bytes(b"ID3")
    (tmp_path / "fan/train/section_00_source_train_normal_0009.m4a").write_bytes(b"ftypM4A")
    (tmp_path / train.format(10)).write_bytes(_wav(samples=8_000))
    (tmp_path / train.format(11)).write_bytes(_wav(rate_hz=8_000))
    padded = np.pad(np.random.default_rng(0).uniform(-0.5, 0.5, 100_000), (0, 60_000))
    soundfile.write(tmp_path / train.format(12), padded, 16_000)
    table = read_dataset([tmp_path])
    assert [c.path.name for c in table.clips] == ["section_00_source_train_normal_0000.wav"]
    found = reasons(table)
    expected = {
        "section_00_sauce_train_normal_0001.wav": "fits no DCASE layout",
        "extra.wav": "fits no DCASE layout",
        "section_00_source_test_normal_0002.wav": "its name says test, its folder train",
        "section_00_source_train_anomaly_0003.wav": "named an anomaly",
        "section_00_both_0001.wav": "either _machine_ or _noise_",
        "loose.wav": "beside fan's train and test",
        "separated": "is none of train",
        "old": "a folder inside test; its 1 sound file(s)",
        "section_00_target_test_normal_0000.wav": "its name says target, its folder source",
        "section_00_source_train_normal_0004.wav": "can't be read as sound",
        "section_00_source_train_normal_0005.wav": "can't be read as sound",
        "section_00_source_train_normal_0006.wav": "0 samples",
        "section_00_source_train_normal_0007.wav": "can't be read as sound",
        "section_00_source_train_normal_0008.mp3": "no sound that can be decoded",
        "section_00_source_train_normal_0009.m4a": "convert it",
        "section_00_source_train_normal_0010.wav": "too short: 0.5 s; at least 5 s",
        "section_00_source_train_normal_0011.wav": "too little band: 8000 Hz",
        "section_00_source_train_normal_0012.wav": "not usable: silence",
    }
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        assert part in found[name], (name, found[name])
        assert str(tmp_path) not in found[name]
    report = table.report()
    assert report.startswith("18 file(s) or folder(s) can't be used:\n")
    assert all(name in report for name in expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_rights_is_named(tmp_path: Path) -> None:
    lay(tmp_path, "fan/a.wav", "pump/b.wav")
    (tmp_path / "pump").chmod(0)
    try:
        assert "can't be listed" in reasons(read_dataset([tmp_path]))["pump"]
    finally:
        (tmp_path / "pump").chmod(0o755)


def test_roots_that_are_missing_empty_or_files_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "fan/a.wav", "texts/readme.txt")
    with pytest.raises(DataSetError, match="there is no such folder"):
        read_dataset([tmp_path / "gone"])
    with pytest.raises(DataSetError, match="is a file"):
        read_dataset([tmp_path / "fan/a.wav"])
    with pytest.raises(DataSetError, match=r"texts: no sound file \(\.wav, "):
        read_dataset([tmp_path / "fan", tmp_path / "texts"])


def test_names_that_are_no_utf8_are_read_and_reported_escaped(tmp_path: Path) -> None:
    (tmp_path / "fan").mkdir()
    (tmp_path / "fan" / os.fsdecode(b"caf\xe9.wav")).write_bytes(SHORT_WAV)
    (tmp_path / "fan" / os.fsdecode(b"tea\xe9.wav")).write_bytes(b"no sound")
    (tmp_path / "fan" / "._cafe.wav").write_bytes(b"Mac OS X")
    table = read_dataset([tmp_path])
    assert load_clip(only(ClipTable(table.clips))).shape == (160_000,)
    table.report().encode()
    assert r"tea\xe9.wav: can't be read as sound" in table.report()


def test_an_empty_report_is_empty() -> None:
    assert ClipTable(()).report() == ""


def _clip(path: Path) -> Clip:
    return Clip(path, "fan", "00", "train", "source", "normal", (), None, None)


@pytest.mark.parametrize(
    ("suffix", "subtype", "rate_hz", "seconds"),
    [("wav", "PCM_16", 16_000, 10.0), ("flac", "PCM_24", 16_000, 12.0), ("ogg", "VORBIS", 44_100, 3.0), ("wav", "FLOAT", 48_000, 10.0),
     ("wav", "PCM_U8", 8_000, 1.5), ("flac", "PCM_16", 96_000, 11.0)],
)  # fmt: skip
def test_load_clip_of_any_format_and_rate_is_ten_seconds_of_the_first_channel(
    tmp_path: Path, suffix: str, subtype: str, rate_hz: int, seconds: float
) -> None:
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    stereo = np.stack([0.5 * np.sin(2 * np.pi * 440 * time_s), 0.5 * np.sin(2 * np.pi * 1000 * time_s)], axis=1)
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, stereo, rate_hz, subtype=subtype)
    waveform = load_clip(_clip(path))
    assert waveform.shape == (160_000,)
    assert waveform.dtype == np.float32
    heard_s = min(seconds, 10.0)
    middle = slice(1600, int(heard_s * 16_000) - 1600)  # resampling and codecs blur the ends
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(160_000) / 16_000)
    assert np.abs(waveform[middle] - expected[middle]).max() < 0.03
    again = waveform[int(heard_s * 16_000) + 8 :][:8000]  # a short one is repeated
    assert seconds >= 10 or np.abs(again - waveform[8 : 8 + again.shape[0]]).max() < 0.03


def test_load_clip_of_a_broken_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "broken.wav"
    path.write_bytes(b"RIFF")
    with pytest.raises(RecordingError, match=r"broken\.wav"):
        load_clip(_clip(path))


def test_class_labels_are_machine_domain_and_attributes(tmp_path: Path) -> None:
    lay(
        tmp_path,
        "fan/train/section_00_source_train_normal_0000_m-n_W.wav",
        "fan/train/section_00_source_train_normal_0001_m-n_X.wav",
        "fan/train/section_00_source_train_normal_0002_m-n_W.wav",
        "fan/train/section_00_target_train_normal_0000_m-n_W.wav",
        "bearing/train/section_00_source_train_normal_0000_noAttribute.wav",
        "bearing/train/section_00_target_train_normal_0000_noAttribute.wav",
    )
    labels, names = class_labels(read_dataset([tmp_path]).clips)
    assert names == (
        "bearing/00/source",
        "bearing/00/target",
        "fan/00/source/m-n=W",
        "fan/00/source/m-n=X",
        "fan/00/target/m-n=W",
    )
    assert labels.tolist() == [0, 1, 2, 3, 2, 4]
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    "stem",
    [
        "",
        "section",
        "section_00",
        "section_xx_source_train_normal_0000",
        "normal_01_00000000",
        "id_01_0",
        "section_00_source_0000",
        "section_00_source_anomaly_0000",
    ],
)
def test_names_of_no_layout_are_refused_in_train(stem: str) -> None:
    with pytest.raises(MisnamedError):
        parse_name(stem, "train")


@pytest.mark.realbench
def test_realbench_is_listed_completely() -> None:
    root = SHARED / "realbench"
    if not root.is_dir():
        pytest.skip("no real recordings in ../shared/realbench")
    table = read_dataset([root])
    assert all(problem.used and problem.reason == "is not usable: silence" for problem in table.problems), (
        table.report()
    )
    counts = Counter((c.machine, c.split, c.domain if c.split == "train" else c.label) for c in table.clips)
    assert [counts["lathe", "train", d] for d in ("source", "target")] == [18, 4]
    assert [counts["lathe", "test", label] for label in ("normal", "anomaly")] == [14, 30]
    assert [counts["droneEight", "test", label] for label in ("normal", "anomaly")] == [53, 60]
    holds = Counter((c.machine, c.supplement) for c in table.select(split="supplemental"))
    assert holds == {("droneSquare", "machine"): 12, ("droneEight", "noise"): 20, ("lathe", "noise"): 10}
    assert {name for c in table.select(machine="fan") for name, _ in c.attributes} == {"mic"}


def test_genuine_clips_of_2023_are_understood() -> None:
    root = SHARED / "audio" / "dcase2023_clips"
    if not root.is_dir():
        pytest.skip("no recordings in ../shared/audio")
    table = read_dataset([root])
    assert not table.problems, table.report()
    assert len(table.clips) == 28
    assert len(table.machines) == 7
    assert all(c.attributes and c.year == 2023 and c.section == "00" and c.label and c.domain for c in table.clips)
    assert all(load_clip(c).shape == (160_000,) for c in table.clips[::9])
