"""What a run has to show: gathered from its folder and its scores for the report.

Owns where times, settings and versions are found. It draws nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from asd_daemon.errors import StageError
from asd_trainer.evaluate.threshold import decide_sections
from asd_trainer.report.maps import EmbeddedMachine
from asd_trainer.report.page import ReportData, StageTime
from asd_trainer.training.run_folder import read_run_recipe
from asd_trainer.training.stage_mark import MARK, read_mark

if TYPE_CHECKING:
    from asd_trainer.evaluate.backend import RunScores
    from asd_trainer.evaluate.scoresheet import Scoresheet

PACKAGES = ("asd-edge", "torch", "numpy", "scipy", "scikit-learn", "accelerate", "matplotlib")
STAGES = ("separate", "synthesize", "pretrain", "distil", "finetune")


def report_data(run: Path, scores: RunScores, sheet: Scoresheet | None, now: datetime) -> ReportData:
    """Everything that a report of this run shows; `sheet` is None where the test clips have no labels.

    Raises:
        SettingsError, StageError: the run's recipe can't be read.
        DataSetError: a machine's training scores allow no threshold.
    """
    return ReportData(
        name=str(run),
        created_at=now,
        sections=(sheet.decisions if sheet else ()) or decide_sections(scores.test, scores.training),
        results=sheet.results if sheet else {},
        omega=sheet.omega if sheet else None,
        interval=(sheet.interval.low, sheet.interval.high) if sheet and sheet.interval else None,
        machines=tuple(EmbeddedMachine(m, clips, rows) for m, (clips, rows) in scores.embeddings.items()),
        stages=stage_times(run),
        settings=read_run_recipe(run).model_dump(mode="json"),
        versions=versions(),
        references=sheet.references if sheet else (),
    )


def stage_times(run: Path) -> tuple[StageTime, ...]:
    """How long each stage of a run took, as its done mark says; stages whose marks tell nothing are left out."""
    marks = []
    for path in (run / "stages").glob(f"*/{MARK}"):
        try:
            marks.append(read_mark(path.parent))
        except StageError:
            continue  # a time that is not shown is no reason to show nothing
    order = {name: position for position, name in enumerate(STAGES)}
    told = [StageTime(mark.stage, mark.seconds) for mark in marks if mark is not None and mark.seconds is not None]
    return tuple(sorted(told, key=lambda time: (order.get(time.name, len(STAGES)), time.name)))


def versions() -> Mapping[str, str]:
    """Versions of what figures depend on, and of the machine that they were made on."""
    found = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
