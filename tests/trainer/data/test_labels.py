"""Published lists of what anonymous clips are: applied to test clips, checked against themselves, and never near training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from asd_daemon.errors import DataSetError
from asd_trainer.cli.program import main
from asd_trainer.data.dataset import ClipTable, class_labels, read_dataset, training_clips
from asd_trainer.data.labels import read_ground_truth, read_label_list, with_labels
from asd_trainer.run.stage_clips import pretraining_clips
from rig.tones import write_tones

# As the challenge publishes them: 2023 and later, 2020 with a label of its own, 2021 with domains in anonymous names.
LIST = """hummer
section_00_0000.wav,section_00_source_test_normal_0003_pitch_s.wav
section_00_0001.wav,section_00_target_test_anomaly_0007_noAttribute.wav
singer
section_00_0000.wav,section_00_target_test_normal_0001_weight15_BckgF.wav
"""


def anonymous(root: Path) -> Path:
    """A data set whose test clips have anonymous names."""
    write_tones(root, train=2, test=1)
    for machine in ("hummer", "singer"):
        for number, path in enumerate(sorted((root / machine / "test").glob("*.wav"))):
            path.rename(path.with_name(f"section_00_{number:04d}.wav"))
    return root


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def told(table: ClipTable, machine: str) -> dict[str, tuple[str | None, str | None]]:
    return {clip.path.stem: (clip.domain, clip.label) for clip in table.select(split="test", machine=machine)}


def test_test_clips_get_the_labels_and_domains_of_the_list(tmp_path: Path) -> None:
    table = read_dataset([anonymous(tmp_path / "data")])
    labelled = with_labels(table, [write(tmp_path / "list.csv", LIST)])
    assert told(labelled, "hummer") == {
        "section_00_0000": ("source", "normal"), "section_00_0001": ("target", "anomaly"),
        "section_00_0002": (None, None), "section_00_0003": (None, None),
    }  # fmt: skip
    assert told(labelled, "singer")["section_00_0000"] == ("target", "normal")
    assert labelled.select(split="train") == table.select(split="train")
    (problem,) = labelled.problems
    assert problem.used
    assert "does not tell what 5 of the machines' test clips are" in problem.reason


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("id_01_00000004.wav,anomaly_id_01_00000011.wav,1", ("01", None, "anomaly")),
        ("section_03_source_test_0000.wav,section_03_source_test_normal_0007.wav", ("03", "source", "normal")),
        ("section_00_test_0012.wav,raw/x/section_00_target_test_anomaly_0001_v_1.wav,1", ("00", "target", "anomaly")),
        ("section_00_0003.wav,section_00_target_anomaly_0059_weight25_BckgE.wav", ("00", "target", "anomaly")),  # 2024
    ],
)
def test_lines_of_every_year_are_understood(tmp_path: Path, row: str, expected: tuple[str, str | None, str]) -> None:
    listed = read_label_list(write(tmp_path / "list.csv", f"fan\n{row}\n"))
    assert not listed.problems
    ((_, name),) = listed.names.items()
    assert (name.section, name.domain, name.label) == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("section_00_0001.wav,section_00_source_test_normal_0001.wav,1", "the line's label is 1"),
        ("section_00_0001.wav,section_01_source_test_normal_0001.wav", "is of another section"),
        ("section_00_target_test_0001.wav,section_00_source_test_normal_0001.wav", "is of another domain"),
        ("section_00_0001.wav,section_00_test_0001.wav", "has no label in it"),
        ("section_00_0001.wav,section_00_source_train_normal_0001.wav", "its name says train"),
        ("section_00_0000.wav,section_00_source_test_anomaly_0001.wav", "is listed before as something else"),
    ],
)
def test_lines_that_contradict_themselves_are_named_and_their_clips_have_no_label(
    tmp_path: Path, row: str, reason: str
) -> None:
    sound = [
        "section_00_0000.wav,section_00_source_test_normal_0003.wav",
        "section_00_0009.wav,section_00_source_test_normal_0004.wav",
    ]
    listed = read_label_list(write(tmp_path / "list.csv", "\n".join(["fan", *sound, row])))
    (problem,) = listed.problems
    assert reason in problem.reason
    assert ("fan", "section_00_0009") in listed.names
    assert ("fan", Path(row.split(",", maxsplit=1)[0]).stem) not in listed.names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("section_00_0000.wav,section_00_source_test_normal_0003.wav\n", "line 1 comes before any machine's name"),
        ("", "names no clip"),
        ("fan\na.wav,b.wav\n", "fits no DCASE layout"),
        ("kettle\nsection_00_0000.wav,section_00_source_test_normal_0003.wav\n", "list of another year"),
    ],
)
def test_files_that_are_no_list_of_this_data_are_refused(tmp_path: Path, text: str, message: str) -> None:
    table = read_dataset([anonymous(tmp_path / "data")])
    with pytest.raises(DataSetError, match=message):
        with_labels(table, [write(tmp_path / "list.csv", text)])
    with pytest.raises(DataSetError, match=r"gone\.csv: can't be read"):
        with_labels(table, [tmp_path / "gone.csv"])


def write_truth(root: Path, truth: dict[str, str], domains: dict[str, str]) -> Path:
    """A folder like that of an official evaluator; files by their name without ground_truth_."""
    for folder, files in (("ground_truth_data", truth), ("ground_truth_domain", domains)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write(root / folder / f"ground_truth_{name}", text)
    return root


def test_test_clips_get_the_labels_and_domains_of_an_evaluators_folder(tmp_path: Path) -> None:
    table = read_dataset([anonymous(tmp_path / "data")])
    lines = ["section_00_0000.wav,0", "section_00_0001.wav,1", "section_00_0002.wav,0.0", "section_00_0003.wav,1.0"]
    in_target = ["section_00_0000.wav,0", "section_00_0001.wav,0", "section_00_0002.wav,1", "section_00_0003.wav,1"]
    evaluator = write_truth(
        tmp_path / "evaluator",
        {
            "hummer_section_00_test.csv": "\n".join(lines),
            "singer_section_00_test.csv": "\n".join(lines),
            "README.csv": "of no machine",
        },
        {"hummer_section_00_test.csv": "\n".join(in_target)},
    )
    labelled = with_labels(table, [evaluator])
    assert told(labelled, "hummer") == {
        "section_00_0000": ("source", "normal"), "section_00_0001": ("source", "anomaly"),
        "section_00_0002": ("target", "normal"), "section_00_0003": ("target", "anomaly"),
    }  # fmt: skip
    assert told(labelled, "singer")["section_00_0003"] == (None, "anomaly")
    (problem,) = labelled.problems
    assert "does not tell the domain of 4 clips, first section_00_0000" in problem.reason
    assert problem.used


def test_an_evaluators_folder_of_2021_names_the_domain_in_its_files(tmp_path: Path) -> None:
    truth = {
        f"fan_section_03_{domain}_test.csv": f"section_03_{domain}_test_0000.wav,1" for domain in ("source", "target")
    }
    listed = read_ground_truth(write_truth(tmp_path, truth, {}))
    assert not listed.problems
    found = {key: (name.section, name.domain, name.label) for key, name in listed.names.items()}
    assert found == {
        ("fan", "section_03_source_test_0000"): ("03", "source", "anomaly"),
        ("fan", "section_03_target_test_0000"): ("03", "target", "anomaly"),
    }


def test_a_folder_that_is_no_evaluators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="holds no ground_truth_data/ground_truth_<machine>"):
        read_ground_truth(tmp_path)
    wrong = write_truth(tmp_path, {"fan_section_00_test.csv": "section_00_0000.wav,0\nsection_00_0001.wav,maybe"}, {})
    with pytest.raises(DataSetError, match=r"fan_section_00_test\.csv: line 2 must be a file name and 0 or 1"):
        read_ground_truth(wrong)


def test_a_name_that_two_years_have_is_refused(tmp_path: Path) -> None:
    roots = [anonymous(tmp_path / f"dcase{year}t2") for year in (2023, 2024)]
    with pytest.raises(DataSetError, match="hummer section_00_0000 fits several clips"):
        with_labels(read_dataset(roots), [write(tmp_path / "list.csv", LIST)])


TINY = [
    word
    for key in (
        "pretrain.steps=2",
        "pretrain.batch_clips=4",
        "pretrain.mask.clones=2",
        "pretrain.crop_frames=64",
        "finetune.epochs=1",
        "finetune.batch_clips=4",
        "finetune.kept_patches=0.05",
    )
    for word in ("--set", key)
]
OPENED: list[str] | None = None
HOOKED: list[bool] = []


def note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and OPENED is not None:
        OPENED.append(str(arguments[0]))


def test_training_opens_no_table_of_hidden_truth_and_learns_nothing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published truth of withheld attributes and of test clips may lie beside the recordings: training does not look."""
    data = write_tones(tmp_path / "data", train=3, test=1)
    for path in sorted((data / "singer").glob("*/*.wav")):
        path.rename(path.with_name(path.name.replace("_pitch_s", "_noAttribute").replace("_pitch_t", "_noAttribute")))
    before = read_dataset([data])
    names = [path.stem for path in sorted((data / "singer" / "train").glob("*.wav"))]
    truth = "source_file_name,d1p,d1v,target_file_name\n" + "".join(f"{n},pitch,{i},{n}\n" for i, n in enumerate(names))
    hidden = [
        write(data / "singer" / name, truth)
        for name in ("attributes_00_train_correspondence.csv", "attributes_00_test_correspondence.csv")
    ]
    hidden.append(write(data / "eval_data_list_2025.csv", LIST))
    if not HOOKED:  # a hook stays for the life of the process; it does nothing while OPENED is None
        sys.addaudithook(note_opened)
        HOOKED.append(True)
    opened: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "OPENED", opened)
    table = read_dataset([data])
    clips = training_clips(table)
    words = ["run", "smoke", "--data", str(data), "--out", str(tmp_path / "run"), "--threads", "1", *TINY]
    ran = CliRunner().invoke(main, words)
    assert ran.exit_code == 0, ran.output
    learned = [*clips, *pretraining_clips(table)]
    assert any(path.endswith(".npy") for path in opened)  # the hook was there
    assert not {str(path) for path in hidden} & set(opened)
    classes = json.loads((tmp_path / "run" / "stages" / "finetune" / "classes.json").read_text())
    assert [name for name in classes if name.startswith("singer")] == ["singer/00/source", "singer/00/target"]
    assert any("pitch=" in name for name in classes if name.startswith("hummer"))
    assert not any("correspondence" in path for path in opened)
    assert all(not clip.attributes for clip in learned if clip.machine == "singer")
    assert all(clip.split != "test" for clip in learned)
    assert class_labels(clips)[1] == class_labels(training_clips(before))[1]
