"""The files that the challenge wants of a system: scores and decisions of every section, and what the system is.

Owns their names, their rows and the meta yaml. It scores nothing and decides nothing; the same rows feed the official evaluator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from asd_daemon.errors import DataSetError, UsageError
from asd_daemon.waveform import WINDOW_S
from asd_trainer.data.fetch import FOLDERS
from asd_trainer.data.naming import MisnamedError, parse_name

if TYPE_CHECKING:
    from asd_trainer.data.clip import Clip, MachineSection
    from asd_trainer.evaluate.backend import ScoredClip
    from asd_trainer.evaluate.evaluation import MachineResult
    from asd_trainer.evaluate.threshold import SectionDecisions
    from asd_trainer.networks.complexity import Complexity

EVALUATION_FOLDER = FOLDERS["eval"]
PREFIXES = ("anomaly_score_", "decision_result_")
_SECTION_NUMBER = re.compile(r"(\d+)$")


class Entry(BaseModel):
    """Base of the parts of a description: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Affiliation(Entry):
    """Where an author works."""

    abbreviation: str = ""
    institute: str
    department: str = ""
    location: str = ""


class Author(Entry):
    """One author; exactly one of a submission is corresponding."""

    lastname: str
    firstname: str
    email: str
    corresponding: bool = False
    affiliation: Affiliation


class SystemEntry(Entry):
    """What the system is, in the words that the challenge's tables use."""

    input_sampling_rate: str = "16 kHz"
    data_augmentation: str | None = None
    front_end_system: str | None = None
    acoustic_features: str = "log-mel energies"
    embeddings: str | None = None
    machine_learning_method: str = "EAT, ArcFace, k-nearest neighbours"
    ensemble_method_subsystem_count: int | None = None
    domain_generalization: str | None = None
    decision_making: str = "gamma distribution of training scores, 90th percentile"
    external_data_usage: str | None = None


class Description(Entry):
    """Who submits what; read from a YAML file that its authors write."""

    label: str = Field("Unnamed_NONE_task2_1", pattern=r"^[A-Za-z-]+_[A-Za-z0-9-]+_task2_[1-4]$")
    name: str = "asd-edge"
    abbreviation: str = Field("asd-edge", max_length=10)
    authors: tuple[Author, ...] = ()
    system: SystemEntry = SystemEntry()
    total_parameters: int | None = Field(None, ge=0, description="of all networks; counted where it is not said")
    macs: int | None = Field(
        None, ge=0, description="multiply-accumulates for ten seconds of sound; counted where it is not said"
    )
    external_datasets: tuple[Mapping[str, str], ...] = ()
    source_code: str | None = None


def read_description(path: Path) -> Description:
    """Read a description.

    Raises:
        UsageError: the file can't be read, is no YAML, or has keys or values that are not allowed; names the key.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Description.model_validate(data or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UsageError(f"{path}: can't be read as YAML: {' '.join(str(e).split())}") from e
    except ValidationError as e:
        first = e.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path}: {key}: {first['input']!r} is not allowed: {first['msg']}") from e


def write_submission(
    folder: Path,
    sections: Sequence[SectionDecisions],
    results: Mapping[str, MachineResult],
    description: Description | None = None,
    complexity: Complexity | None = None,
) -> tuple[Path, ...]:
    """Write a submission's csv files and meta yaml.

    Args:
        folder: made if it is missing; files of the same names are replaced.
        sections: every section's test clips with scores and decisions.
        results: by machine (or machine_section), as fractions; empty for data without labels. Those of clips of an evaluation set stand
            apart from those of the development set.
        description: who submits what; by default a nameless one to be filled in.
        complexity: what the networks cost, where the description does not say it.

    Returns:
        The files written.

    Raises:
        UsageError: the folder can't be written, or holds result files of machines that are not in these sections.
        DataSetError: there are no clips, a score is not finite, or two clips of a section have one name.
    """
    description = description or Description()
    texts: dict[str, str] = {}
    for section in sections:
        for name, text in _result_files(section):
            if name in texts:
                raise DataSetError(
                    f"{name} would be written twice, for {section.title} of several years; give the data of one year"
                )
            texts[name] = text
    if not texts:
        raise DataSetError("there are no test clips to submit")
    held_back = {one.clip.unit for section in sections for one in section.scored if is_of_evaluation_set(one.clip)}
    content = meta_data(description, results, held_back, complexity)
    meta = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stale = sorted(p.name for p in folder.iterdir() if p.name.startswith(PREFIXES) and p.name not in texts)
        if stale:
            raise UsageError(
                f"--submission {folder}: holds {stale[0]}, which this run does not replace; give an empty folder"
            )
        for name, text in {**texts, f"{description.label}.meta.yaml": meta}.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as e:
        raise UsageError(f"--submission {folder}: can't be written: {e.strerror}") from e
    return tuple(folder / name for name in (*texts, f"{description.label}.meta.yaml"))


def meta_data(
    description: Description,
    results: Mapping[str, MachineResult],
    held_back: Collection[MachineSection] = (),
    complexity: Complexity | None = None,
) -> dict[str, Any]:
    """What the meta yaml holds: submission, system and results, the latter in percent; those of units held back as an evaluation set."""
    said = description.model_dump(mode="json")
    if complexity is not None:
        counted = {
            "total_parameters": complexity.parameters,
            "macs": round(WINDOW_S * complexity.macs_per_second),
        }
        said |= {key: number for key, number in counted.items() if said[key] is None}
    sets: dict[str, dict[str, dict[str, float]]] = {"development_dataset": {}}
    for name, result in results.items():
        of_set = "evaluation_dataset" if result.unit in held_back else "development_dataset"
        figures = {figure: round(100 * value, 2) for figure, value in result.figures().items()}
        sets.setdefault(of_set, {})[name] = figures
    return {
        "submission": {key: said[key] for key in ("label", "name", "abbreviation", "authors")},
        "system": {
            "description": said["system"],
            "complexity": {"total_parameters": said["total_parameters"], "MACS": said["macs"]},
            "external_datasets": said["external_datasets"],
            "source_code": said["source_code"],
        },
        "results": sets,
    }


def is_of_evaluation_set(clip: Clip) -> bool:
    """Whether a test clip was published without its label: it lies below eval_data, or its name is anonymous."""
    if EVALUATION_FOLDER in clip.path.parts:
        return True
    try:
        name = parse_name(clip.path.stem, "test")
    except MisnamedError:
        return False  # a plain folder: names mean nothing there
    return name.label is None and not name.of_2020


def _result_files(section: SectionDecisions) -> Iterator[tuple[str, str]]:
    """The section's files by name: two, in 2021 two a domain, in 2020 the scores alone."""
    rows: dict[str, list[tuple[str, float, bool]]] = {}
    for one, anomalous in zip(section.scored, section.anomalous, strict=True):
        if not math.isfinite(one.score):
            raise DataSetError(f"{one.clip.path}: its score is {one.score}; a submission needs finite scores")
        rows.setdefault(_subject(one), []).append((f"{one.clip.path.stem}.wav", one.score, anomalous))
    for subject, of_file in rows.items():
        of_file.sort()
        names = [name for name, _, _ in of_file]
        if len(set(names)) < len(names):
            raise DataSetError(
                f"{subject}: two test clips are called {next(n for n in names if names.count(n) > 1)}; give one data set"
            )
        yield f"{PREFIXES[0]}{subject}.csv", "".join(f"{name},{score!r}\n" for name, score, _ in of_file)
        if not _is_2020(section.scored[0]):
            yield f"{PREFIXES[1]}{subject}.csv", "".join(f"{name},{int(anomalous)}\n" for name, _, anomalous in of_file)


def _subject(one: ScoredClip) -> str:
    clip = one.clip
    number = _SECTION_NUMBER.search(clip.section)
    if number is None:
        raise DataSetError(
            f"{clip.path}: section {clip.section!r} ends in no number, which the challenge's file names need"
        )
    if _is_2020(one):
        return f"{clip.machine}_id_{number[1]}"
    domain = f"{clip.domain}_" if clip.year == 2021 and clip.domain else ""
    return f"{clip.machine}_section_{number[1]}_{domain}test"


def _is_2020(one: ScoredClip) -> bool:
    return bool(one.clip.year == 2020)
