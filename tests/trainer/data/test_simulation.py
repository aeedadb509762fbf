"""The simulated data set: layout, names, attributes, determinism over processes, going on after a break."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_daemon.errors import DataSetError, UsageError
from asd_daemon.hear.simulator import MACHINES, SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS
from asd_trainer.data.dataset import read_dataset
from asd_trainer.data.simulation import write_dataset
from asd_trainer.data.simulation_plan import CLEAN_MACHINES, SMOKE, WITHOUT_ATTRIBUTES, SimulationPlan, plan_clips
from asd_trainer.separate.guidance import choose

SMALL = SimulationPlan(
    machines=("fan", "bearing", "valve"), source_train=5, target_train=3, test=3, supplemental=2, seconds=0.4
)
CLIPS = 3 * (5 + 3 + 4 * 3 + 2)
NAME = re.compile(r"section_00_(source|target)_(train|test)_(normal|anomaly)_(\d{4})_(.+)\.wav")


def hashes(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def attributes_in(words: str) -> dict[str, str]:
    parts = words.split("_")
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated")
    summary = write_dataset(out, SMALL)
    assert (summary.written, summary.kept, dict(summary.clips)) == (CLIPS, 0, dict.fromkeys(SMALL.machines, 22))
    return out


def test_write_dataset_lays_out_every_split_with_names_that_parse(small_set: Path) -> None:
    raw = small_set / "dev_data" / "raw"
    assert sorted(path.name for path in raw.iterdir()) == sorted(SMALL.machines)
    for machine in SMALL.machines:
        there = {p.relative_to(raw / machine).as_posix() for p in (raw / machine).rglob("*") if p.is_file()}
        wavs = [name for name in there if name.endswith(".wav")]
        assert there == {*wavs, "attributes_00.csv"}
        counts: Counter[tuple[str, ...]] = Counter()
        for name in wavs:
            split, file = name.split("/")
            if split == "supplemental":
                assert ("_machine_" in file) == (machine in CLEAN_MACHINES)
                assert ("_noise_" in file) == (machine not in CLEAN_MACHINES)
                counts["supplemental",] += 1
                continue
            match = NAME.fullmatch(file)
            assert match is not None, file
            domain, named_split, label, _, words = match.groups()
            assert named_split == split
            counts[domain, split, label] += 1
            if machine in WITHOUT_ATTRIBUTES:
                assert words == "noAttribute"
            else:
                assert attributes_in(words) in DOMAINS[machine]["source" if domain == "source" else "target"].settings
        wanted: dict[tuple[str, ...], int] = {("source", "train", "normal"): 5, ("target", "train", "normal"): 3}
        wanted |= {(domain, "test", label): 3 for domain in ("source", "target") for label in ("normal", "anomaly")}
        assert counts == {**wanted, ("supplemental",): 2}


def test_write_dataset_writes_16_bit_mono_that_holds_sound(small_set: Path) -> None:
    for path in (small_set / "dev_data").rglob("*.wav"):
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16_000, 1, 6400, "PCM_16")
        samples = soundfile.read(str(path))[0]
        assert 1e-4 < samples.std() < 0.5
        assert np.abs(samples).max() < 0.999


def test_attributes_csv_agrees_with_the_names_and_lists_every_clip(small_set: Path) -> None:
    raw = small_set / "dev_data" / "raw"
    for machine in SMALL.machines:
        with (raw / machine / "attributes_00.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["file_name"] for row in rows} == {
            p.relative_to(raw).as_posix() for p in (raw / machine).rglob("*.wav")
        }
        for row in rows:
            pairs = {row[f"d{i}p"]: row[f"d{i}v"] for i in (1, 2) if row.get(f"d{i}p")}
            match = NAME.fullmatch(row["file_name"].split("/")[-1])
            if machine in WITHOUT_ATTRIBUTES:
                assert pairs == {"noAttribute": ""}
            elif match is not None:
                assert pairs == attributes_in(match.group(5))


def test_simulation_json_knows_what_the_test_clips_hold(small_set: Path) -> None:
    report = json.loads((small_set / "simulation.json").read_text())
    raw = small_set / "dev_data" / "raw"
    assert set(report["test"]) == {
        f"{p.parent.parent.name}/test/{p.name}" for p in raw.rglob("*.wav") if p.parent.name == "test"
    }
    for name, truth in report["test"].items():
        machine = name.split("/")[0]
        if "_normal_" in name:
            assert (truth["failure"], truth["severity"]) == (None, 0.0)
        else:
            assert truth["failure"] in SimulatedMachine(machine).failures
            assert SMALL.severity[0] <= truth["severity"] <= SMALL.severity[1]
        domain = DOMAINS[machine]["source" if "_source_" in name else "target"]
        assert truth["noise"] in domain.noises
        assert SMALL.source_snr_db[0] <= truth["snr_db"] <= SMALL.source_snr_db[1]
    heard = {truth["failure"] for name, truth in report["test"].items() if name.startswith("fan/")}
    assert heard == {None, *SimulatedMachine("fan").failures}


def test_write_dataset_in_two_processes_gives_the_same_bytes(small_set: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_dataset(tmp_path, SMALL, jobs=2, progress=lambda done, total: calls.append((done, total)))
    assert hashes(tmp_path) == hashes(small_set)
    assert calls == [(done, CLIPS) for done in range(CLIPS + 1)]


def test_write_dataset_again_makes_only_what_is_missing_or_cut_short(small_set: Path, tmp_path: Path) -> None:
    plan = replace(SMALL, machines=("fan",))
    write_dataset(tmp_path, plan)
    whole = hashes(tmp_path)
    train = sorted((tmp_path / "dev_data/raw/fan/train").glob("*.wav"))
    train[0].unlink()
    train[1].write_bytes(train[1].read_bytes()[:3000])
    train[2].write_bytes(b"")
    before = {path: path.stat().st_mtime_ns for path in train[3:]}
    summary = write_dataset(tmp_path, plan)
    assert (summary.written, summary.kept) == (3, 19)
    assert hashes(tmp_path) == whole
    assert {path: path.stat().st_mtime_ns for path in train[3:]} == before


def test_write_dataset_broken_off_goes_on_to_the_same_end(small_set: Path, tmp_path: Path) -> None:
    def stop_after_four(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, SMALL, progress=stop_after_four)
    assert len(list(tmp_path.rglob("*.wav"))) == 4
    assert not list(tmp_path.rglob("*.part"))
    assert write_dataset(tmp_path, SMALL).kept == 4
    assert hashes(tmp_path) == hashes(small_set)


def test_write_dataset_grown_plan_keeps_the_clips_that_are_there(tmp_path: Path) -> None:
    plan = replace(SMALL, machines=("slider",), source_train=2, test=1, supplemental=1)
    write_dataset(tmp_path, plan)
    early = {name: digest for name, digest in hashes(tmp_path).items() if name.endswith(".wav")}
    grown = replace(plan, source_train=4, machines=("slider", "ToyTrain"))
    assert write_dataset(tmp_path, grown).kept == len(early)
    late = hashes(tmp_path)
    assert {name: late[name] for name in early} == early
    with pytest.raises(DataSetError, match="source_train = 4, not 2"):
        write_dataset(tmp_path, replace(grown, source_train=2))


def test_write_dataset_into_another_plan_s_folder_is_refused(small_set: Path) -> None:
    with pytest.raises(DataSetError, match=r"simulation\.json: this set was made with seed = 0, not 1"):
        write_dataset(small_set, replace(SMALL, seed=1))
    with pytest.raises(DataSetError, match="machines"):
        write_dataset(small_set, replace(SMALL, machines=("fan",)))


def test_supplement_both_gives_every_machine_alone_and_its_noise_alone(tmp_path: Path) -> None:
    plan = replace(SMALL, machines=("fan", "valve"), source_train=1, target_train=0, test=0, supplemental=3, seconds=5)
    write_dataset(tmp_path, replace(plan, supplement="both"))
    guided = choose(read_dataset([tmp_path]))
    assert {machine: one.kind for machine, one in guided.items()} == {"fan": "clean", "valve": "clean"}
    for machine, one in guided.items():
        assert [clip.path.name.split("_")[2:4] for clip in one.machines] == [["machine", "0001"], ["machine", "0003"]]
        assert sorted(clip.machine for clip in one.noises) == ["fan", "valve"]
        assert all(clip.attributes for clip in one.machines) or machine in WITHOUT_ATTRIBUTES


def test_a_set_of_an_earlier_version_grows_as_it_was_and_takes_no_other_supplement(tmp_path: Path) -> None:
    plan = replace(SMALL, machines=("fan",), source_train=1, target_train=0, test=0)
    write_dataset(tmp_path, plan)
    note = json.loads((tmp_path / "simulation.json").read_text())
    for name in ("sections", "supplement"):
        del note["parameters"][name]
    (tmp_path / "simulation.json").write_text(json.dumps(note))
    with pytest.raises(DataSetError, match="supplement = either, not both"):
        write_dataset(tmp_path, replace(plan, supplement="both"))
    assert write_dataset(tmp_path, replace(plan, source_train=2)).written == 1


def test_write_dataset_over_a_broken_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "simulation.json").write_text('{"parameters": {}}')
    with pytest.raises(DataSetError, match=r"simulation\.json: can't be read"):
        write_dataset(tmp_path, SMALL)


def test_write_dataset_where_a_file_is_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataSetError, match="can't be written"):
        write_dataset(tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"machines": ()}, "no machine"),
        ({"machines": ("pump",)}, "'pump'"),
        ({"source_train": -1}, "source_train is -1"),
        ({"seconds": 0.0}, "seconds is 0.0"),
        ({"severity": (0.0, 0.5)}, "severity is 0.0 to 0.5"),
        ({"severity": (0.5, 1.5)}, "severity is 0.5 to 1.5"),
        ({"supplement": "all"}, "supplement is 'all'"),
        ({"target_snr_db": (5.0, 1.0)}, "target_snr_db is 5.0 to 1.0"),
    ],
)
def test_plan_that_can_not_be_made_is_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        write_dataset(tmp_path / "out", replace(SMALL, **change))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_write_dataset_with_no_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="jobs is 0"):
        write_dataset(tmp_path, SMALL, jobs=0)


@pytest.mark.parametrize("machine", MACHINES)
def test_plan_few_target_clips_still_hold_every_setting_or_differ(machine: str) -> None:
    clips = [clip for clip in plan_clips(SMOKE, machine) if (clip.split, clip.domain) == ("train", "target")]
    settings = DOMAINS[machine]["target"].settings
    heard = {tuple(clip.setting.items()) for clip in clips}
    assert len(heard) == min(len(settings), SMOKE.target_train)
    assert len({clip.seed for clip in plan_clips(SMOKE, machine)}) == len(list(plan_clips(SMOKE, machine)))


def test_write_dataset_of_another_serial_is_another_machine(tmp_path: Path, small_set: Path) -> None:
    other = replace(SMALL, serial=1)
    write_dataset(tmp_path, other)
    first, second = hashes(small_set), hashes(tmp_path)
    assert set(first) == set(second)
    assert not [name for name in first if name.endswith(".wav") and first[name] == second[name]]
