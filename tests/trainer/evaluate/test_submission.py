"""The challenge's files, read back as its evaluator reads them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from asd_daemon.errors import DataSetError, UsageError
from asd_trainer.data.dataset import Clip, MachineSection
from asd_trainer.data.naming import Domain, Label, Split
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.evaluation import MachineResult
from asd_trainer.evaluate.submission import Affiliation, Author, Description, read_description, write_submission
from asd_trainer.evaluate.threshold import SectionDecisions, decide_sections, decision_threshold
from asd_trainer.networks.complexity import Complexity

RESULTS = {"fan": MachineResult(auc_source=0.5644, auc_target=0.586, pauc=0.5205)}


def scored(
    name: str,
    score: float,
    *,
    section: str = "00",
    domain: Domain | None = "source",
    label: Label | None = "normal",
    split: Split = "test",
    year: int | None = 2025,
    machine: str = "fan",
) -> ScoredClip:
    clip = Clip(
        path=Path("raw") / machine / split / name, machine=machine, section=section, split=split, domain=domain, label=label,
        attributes=(), supplement=None, year=year,
    )  # fmt: skip
    return ScoredClip(clip, score)


def normal_scores(count: int = 50, **where: str | int | None) -> list[ScoredClip]:
    draws = np.random.default_rng(0).gamma(9.0, 0.02, size=count)
    return [scored(f"t{i}.wav", float(s), split="train", **where) for i, s in enumerate(draws)]  # type: ignore[arg-type]


def drawn_clips() -> list[ScoredClip]:
    """A hundred test clips in no order, anomalies higher on average."""
    rng = np.random.default_rng(1)
    domains: tuple[Domain, ...] = ("source", "target")
    shapes: dict[Label, float] = {"normal": 9.0, "anomaly": 14.0}
    clips = [
        scored(f"section_00_{d}_test_{w}_{i:04d}_m-n_W.flac", float(rng.gamma(shape, 0.02)), domain=d, label=w)
        for d in domains
        for w, shape in shapes.items()
        for i in range(25)
    ]
    return [clips[i] for i in rng.permutation(len(clips))]


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_write_submission_gives_the_evaluator_every_clip_once_with_its_exact_score(tmp_path: Path) -> None:
    clips = drawn_clips()
    written = write_submission(tmp_path / "team", decide_sections(clips, normal_scores()), RESULTS)
    assert [p.name for p in written] == [
        "anomaly_score_fan_section_00_test.csv",
        "decision_result_fan_section_00_test.csv",
        "Unnamed_NONE_task2_1.meta.yaml",
    ]
    scores, decisions = rows(written[0]), rows(written[1])
    by_name = {one.clip.path.with_suffix(".wav").name: one for one in clips}
    assert [name for name, _ in scores] == [name for name, _ in decisions] == sorted(by_name)
    assert {name: float(score) for name, score in scores} == {name: one.score for name, one in by_name.items()}
    threshold = decision_threshold(np.array([one.score for one in normal_scores()]))
    assert dict(decisions) == {name: "1" if one.score > threshold else "0" for name, one in by_name.items()}
    assert {decision for _, decision in decisions} == {"0", "1"}
    truth = [by_name[name].clip.label == "anomaly" for name, _ in scores]
    assert roc_auc_score(truth, [float(s) for _, s in scores]) == roc_auc_score(
        [one.clip.label == "anomaly" for one in clips], [one.score for one in clips]
    )


@pytest.mark.parametrize(
    ("year", "section", "expected"),
    [
        (2020, "id_01", ["anomaly_score_fan_id_01.csv"]),
        (
            2021,
            "03",
            [
                f"{kind}_fan_section_03_{d}_test.csv"
                for d in ("source", "target")
                for kind in ("anomaly_score", "decision_result")
            ],
        ),
        (2022, "section_05", ["anomaly_score_fan_section_05_test.csv", "decision_result_fan_section_05_test.csv"]),
        (2026, "00", ["anomaly_score_fan_section_00_test.csv", "decision_result_fan_section_00_test.csv"]),
        (None, "00", ["anomaly_score_fan_section_00_test.csv", "decision_result_fan_section_00_test.csv"]),
    ],
)
def test_write_submission_names_files_as_each_year_wants_them(
    tmp_path: Path, year: int | None, section: str, expected: list[str]
) -> None:
    clips = [
        scored("a.wav", 0.3, section=section, domain=None if year == 2020 else "source", year=year),
        scored("b.wav", 0.2, section=section, domain=None if year == 2020 else "target", year=year),
    ]
    written = write_submission(tmp_path, decide_sections(clips, normal_scores(year=year)), {})
    assert sorted(p.name for p in written if p.suffix == ".csv") == sorted(expected)


def test_decide_sections_counts_each_domains_own_anomalies_against_its_own_normals() -> None:
    clips = drawn_clips()
    (section,) = decide_sections(clips, normal_scores())
    for domain in ("source", "target"):
        own = [one for one in clips if one.clip.domain == domain]
        hits = sum(one.clip.label == "anomaly" and one.score > section.threshold for one in own)
        decided = sum(one.score > section.threshold for one in own)
        assert section.quality[domain].precision == pytest.approx(hits / decided)
        assert section.quality[domain].recall == pytest.approx(hits / 25)


def test_decide_sections_uses_each_sections_own_training_scores() -> None:
    low, high = (
        normal_scores(section="00"),
        [ScoredClip(one.clip, one.score + 1) for one in normal_scores(section="01")],
    )
    clips = [scored("a.wav", 0.9, section="00"), scored("b.wav", 0.9, section="01"), scored("c.wav", 0.9, section="02")]
    thresholds = [s.threshold for s in decide_sections(clips, low + high)]
    assert thresholds[0] < 0.5 < 1 < thresholds[1]
    assert thresholds[2] == decision_threshold(np.array([one.score for one in low + high]))


def test_decide_sections_of_a_machine_without_training_scores_names_it() -> None:
    with pytest.raises(DataSetError, match="pump: a threshold needs the scores of at least 2 normal clips, got 0"):
        decide_sections([scored("a.wav", 0.5, machine="pump")], normal_scores())


def test_decide_sections_of_anonymous_clips_decides_without_a_quality() -> None:
    (section,) = decide_sections([scored("section_00_0001.wav", 0.9, domain=None, label=None)], normal_scores())
    assert (section.anomalous, section.quality) == ((True,), {})


def test_write_submission_describes_authors_system_and_results_in_the_meta_file(tmp_path: Path) -> None:
    author = Author(
        lastname="Zhong",
        firstname="G.",
        email="x@example.org",
        corresponding=True,
        affiliation=Affiliation(institute="USTC"),
    )
    description = Description(
        label="Zhong_USTC_task2_2", authors=(author,), total_parameters=88_000_000, macs=43_700_000_000
    )
    *_, meta = write_submission(tmp_path, decide_sections(drawn_clips(), normal_scores()), RESULTS, description)
    assert meta.name == "Zhong_USTC_task2_2.meta.yaml"
    data = yaml.safe_load(meta.read_text())
    assert data["submission"]["authors"][0]["affiliation"]["institute"] == "USTC"
    assert data["system"]["complexity"] == {"total_parameters": 88_000_000, "MACS": 43_700_000_000}
    assert data["results"]["development_dataset"] == {"fan": {"auc_source": 56.44, "auc_target": 58.6, "pauc": 52.05}}


def test_figures_of_clips_without_published_labels_stand_apart(tmp_path: Path) -> None:
    anonymous = [
        replace(one, clip=replace(one.clip, path=Path("eval_data/raw/fan/test") / f"section_00_{number:04d}.wav"))
        for number, one in enumerate(drawn_clips())
    ]
    found = {"fan": replace(RESULTS["fan"], unit=MachineSection("fan", 2025, "00"))}
    *_, meta = write_submission(tmp_path, decide_sections(anonymous, normal_scores()), found)
    results = yaml.safe_load(meta.read_text())["results"]
    assert results["development_dataset"] == {}
    assert results["evaluation_dataset"] == {"fan": {"auc_source": 56.44, "auc_target": 58.6, "pauc": 52.05}}


def test_complexity_is_what_was_counted_where_the_description_is_silent(tmp_path: Path) -> None:
    sections = decide_sections(drawn_clips(), normal_scores())
    *_, meta = write_submission(
        tmp_path, sections, RESULTS, Description(macs=7), complexity=Complexity(1234, macs_per_second=5e6)
    )
    assert yaml.safe_load(meta.read_text())["system"]["complexity"] == {"total_parameters": 1234, "MACS": 7}


def test_read_description_of_what_authors_wrote_is_what_they_wrote(tmp_path: Path) -> None:
    file = tmp_path / "us.yaml"
    file.write_text("label: Doe_INST_task2_3\nname: Ours\nsystem: {data_augmentation: mixup}\n")
    description = read_description(file)
    assert (description.label, description.system.data_augmentation) == ("Doe_INST_task2_3", "mixup")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label: nonsense\n", "us.yaml: label: 'nonsense' is not allowed"),
        ("abbreviation: much too long a name\n", "us.yaml: abbreviation: "),
        ("labell: x\n", "us.yaml: labell: "),
        ("a: [", "us.yaml: can't be read as YAML"),
    ],
)
def test_read_description_with_a_mistake_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "us.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_description(tmp_path / "us.yaml")


def test_write_submission_over_another_machines_files_is_refused(tmp_path: Path) -> None:
    sections = decide_sections(drawn_clips(), normal_scores())
    write_submission(tmp_path, sections, RESULTS)
    write_submission(tmp_path, sections, RESULTS)
    (tmp_path / "anomaly_score_valve_section_00_test.csv").write_text("a.wav,1\n")
    with pytest.raises(UsageError, match="holds anomaly_score_valve_section_00_test.csv"):
        write_submission(tmp_path, sections, RESULTS)


def test_write_submission_of_several_years_with_one_machine_is_refused(tmp_path: Path) -> None:
    clips = [scored("a.wav", 0.1, year=2023), scored("a.wav", 0.2, year=2024)]
    sections = decide_sections(clips, [*normal_scores(year=2023), *normal_scores(year=2024)])
    assert [section.title for section in sections] == ["fan 2023", "fan 2024"]
    with pytest.raises(
        DataSetError, match="anomaly_score_fan_section_00_test.csv would be written twice, for fan 2024 of several"
    ):
        write_submission(tmp_path, sections, {})


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([scored("a.wav", float("nan"))], "a.wav: its score is nan"),
        ([scored("a.wav", 0.1), scored("a.flac", 0.2)], "two test clips are called a.wav"),
        ([scored("a.wav", 0.1, section="none")], "section 'none' ends in no number"),
    ],
)
def test_write_submission_of_what_the_evaluator_could_not_read_is_refused_and_writes_nothing(
    tmp_path: Path, clips: list[ScoredClip], message: str
) -> None:
    section = SectionDecisions("fan", 2025, "00", "fan", 0.5, (0.1, 0.2), tuple(clips), (False,) * len(clips), {})
    with pytest.raises(DataSetError, match=message):
        write_submission(tmp_path, [section], {})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataSetError, match="no test clips to submit"):
        write_submission(tmp_path, [], {})
