"""asd-train run from fetching to the report with one command, against a local archive over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asd_trainer.cli.program import main
from asd_trainer.data.fetch import RECORDS
from rig.archive import ArchiveServer, running_archive, zip_of
from rig.guided import write_guided_tones
from rig.tones import PITCH_HZ

pytestmark = pytest.mark.torch

TINY = [
    word
    for key in (
        "years=[2025]",
        "separate.enabled=true",
        "separate.steps=2",
        "separate.batch_mixtures=1",
        "separate.crop_s=0.25",
        "synthesize.clips=10",
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


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["run", "smoke", *map(str, arguments), "--threads", "1"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ArchiveServer]:
    tones = write_guided_tones(tmp_path / "tones")
    zips = {
        f"dev_{machine}.zip": zip_of(
            {str(p.relative_to(tones)): p.read_bytes() for p in sorted((tones / machine).rglob("*.wav"))}
        )
        for machine in PITCH_HZ
    }
    with running_archive() as state:
        state.publish(RECORDS[2025]["dev"], zips, title="Dev 2025")
        yield state


def test_one_command_fetches_trains_evaluates_and_reports_and_does_nothing_twice(
    server: ArchiveServer, tmp_path: Path
) -> None:
    call = ("--fetch", tmp_path / "data", "--base-url", server.url, "--out", tmp_path / "run", "--report", *TINY)
    first = invoke(*call)
    assert first.exit_code == 0, first.output
    assert "Dev 2025" in first.stderr
    assert [line.split()[0] for line in first.stderr.splitlines() if " MB" in line and "steps" in line] == [
        "separate",
        "pretrain",
        "finetune",
    ]
    assert "total score" in first.stdout
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert set(figures["machines"]) == {"hummer", "singer"}
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{100 * figures['omega']:.2f}" in page
    again = invoke(*call)
    assert again.exit_code == 0, again.output
    assert "missing: none" in again.stderr
    assert again.stderr.count("done already") >= 4
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == figures


def test_dry_run_tells_what_would_be_fetched_and_fetches_nothing(server: ArchiveServer, tmp_path: Path) -> None:
    call = ("--fetch", tmp_path / "data", "--base-url", server.url, "--out", tmp_path / "run", "--dry-run", *TINY)
    result = invoke(*call)
    assert result.exit_code == 0, result.output
    assert "missing: 2" in result.stderr
    assert "the plan of the stages needs the recordings" in result.stderr
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "run").exists()


def test_fetch_for_a_recipe_without_years_is_refused(tmp_path: Path) -> None:
    result = invoke("--fetch", tmp_path / "data", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "--fetch: the recipe names no years to fetch" in result.stderr


def test_report_of_data_without_test_clips_says_so_after_training(tmp_path: Path) -> None:
    data = write_guided_tones(tmp_path / "data", test=0)
    call = ("--set", "finetune.epochs=1", "--set", "finetune.batch_clips=4", "--set", "finetune.kept_patches=0.05")
    result = invoke("--data", data, "--out", tmp_path / "run", "--report", *call)
    assert result.exit_code == 0, result.output
    assert "no evaluation and no report: the data has no test clips" in result.stderr
    assert not (tmp_path / "run" / "report.html").exists()
