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
from rig.tones import PITCH_HZ, write_tones

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
        "pretrain.years=[2025]",
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
    more = write_tones(tmp_path / "more", train=2, test=0)
    extra = {
        "eval_data_ToyPet_train.zip": zip_of(
            {f"ToyPet/train/{p.name}": p.read_bytes() for p in sorted((more / "hummer").rglob("*.wav"))}
        )
    }
    with running_archive() as state:
        state.publish(RECORDS[2025]["dev"], zips, title="Dev 2025")
        state.publish(RECORDS[2025]["train"], extra, title="Additional 2025")
        for year, parts in RECORDS.items():
            if year != 2025:
                state.publish(parts["dev"], {"dev_fan.zip": b"zip"}, title=f"dev {year}")
                state.publish(parts["train"], {"eval_data_fan_train.zip": b"zip"}, title=f"train {year}")
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
    assert (tmp_path / "data" / "dcase2025t2" / "eval_data" / "raw" / "ToyPet" / "train").is_dir()
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
    assert "missing: 3" in result.stderr
    assert (
        "not all is fetched yet: planned for 2025 of the challenge (dev, train), by the sizes that are known"
        in result.stderr
    )
    assert result.stdout.splitlines()[1].split()[0] == "separate"
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "run").exists()


def test_fetch_for_a_recipe_without_years_is_refused(tmp_path: Path) -> None:
    result = invoke("--fetch", tmp_path / "data", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "--fetch: the recipe names no years to fetch" in result.stderr


def test_pre_training_on_all_years_fetches_every_year(server: ArchiveServer, tmp_path: Path) -> None:
    call = ("--fetch", tmp_path / "data", "--base-url", server.url, "--out", tmp_path / "run", "--dry-run", *TINY)
    result = invoke(*call, "--set", "pretrain.years=[]")
    assert result.exit_code == 0, result.output
    asked = {int(request.path.rsplit("/", 1)[1]) for request in server.requests if "/files/" not in request.path}
    assert asked == {parts[part] for parts in RECORDS.values() for part in ("dev", "train")}
    assert "together: " in result.stderr
    assert "planned for 2020, 2021, 2022, 2023, 2024, 2025, 2026 of the challenge" in result.stderr
    # Without pre-training nothing learns from other years.
    invoke(*call, "--set", "pretrain.years=[]", "--set", "pretrain.steps=0")
    later = server.requests[-2:]
    assert {int(request.path.rsplit("/", 1)[1]) for request in later} == {RECORDS[2025]["dev"], RECORDS[2025]["train"]}


def test_parts_that_are_named_are_fetched_alone(server: ArchiveServer, tmp_path: Path) -> None:
    call = ("--fetch", tmp_path / "data", "--base-url", server.url, "--out", tmp_path / "run", "--dry-run", *TINY)
    assert "missing: 2" in invoke(*call, "--part", "dev").stderr
    refused = invoke("--data", tmp_path, "--out", tmp_path / "run", "--part", "dev")
    assert (refused.exit_code, "--part dev: is for what is fetched" in refused.stderr) == (2, True)


def test_disk_without_room_for_all_years_is_refused_before_anything_is_fetched(
    server: ArchiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asd_trainer.data.fetch.UNPACKED_RATIO", 1e9)
    call = ("--fetch", tmp_path / "data", "--base-url", server.url, "--out", tmp_path / "run", *TINY)
    result = invoke(*call, "--set", "pretrain.years=[]")
    assert result.exit_code == 2
    assert "GB are free; make room, fetch fewer years, or give another folder" in result.stderr
    assert not any("/files/" in request.path for request in server.requests)


def test_year_that_is_not_in_the_data_is_an_error_that_names_its_key(tmp_path: Path) -> None:
    data = tmp_path / "dcase2025t2"
    write_guided_tones(data / "dev_data" / "raw")
    result = invoke("--data", data, "--out", tmp_path / "run", *TINY, "--set", "pretrain.years=[2024, 2025]")
    assert result.exit_code == 2
    assert "pretrain.years: 2024 is not in the data, which has 2025" in result.stderr
    assert not (tmp_path / "run").exists()
    unknown = invoke("--fetch", tmp_path, "--out", tmp_path / "run", "--set", "years=[2019]")
    assert "years: 2019 has no public data; there are 2020 to 2026" in unknown.stderr


def test_report_of_data_without_test_clips_says_so_after_training(tmp_path: Path) -> None:
    data = write_guided_tones(tmp_path / "data", test=0)
    call = ("--set", "finetune.epochs=1", "--set", "finetune.batch_clips=4", "--set", "finetune.kept_patches=0.05")
    result = invoke("--data", data, "--out", tmp_path / "run", "--report", *call)
    assert result.exit_code == 0, result.output
    assert "no evaluation and no report: the data has no test clips" in result.stderr
    assert not (tmp_path / "run" / "report.html").exists()
