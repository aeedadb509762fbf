"""asd-train run --dry-run and asd-train recipes: plans without recordings, for devices that are not here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from asd_trainer.cli.program import main
from asd_trainer.data.known_sets import known_clips
from asd_trainer.recipe.recipe import shipped_recipes
from rig.waiting import PATIENT_S

pytestmark = pytest.mark.torch

WITH_MEMORY = """
import atexit, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_DATA, (400_000_000, 400_000_000))
from asd_trainer.cli.program import main
status = Path(sys.argv.pop(1))
atexit.register(lambda: status.write_text(Path("/proc/self/status").read_text()))
main()
"""


def plan(recipe: str, out: Path, *words: object) -> Result:
    given = ["run", recipe, "--out", str(out / "run"), "--dry-run", "--threads", "1", *map(str, words)]
    result = CliRunner().invoke(main, given)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_plan_of_the_last_submission_needs_neither_recordings_nor_a_card(tmp_path: Path) -> None:
    words = ["run", "paper-20k-all", "--out", str(tmp_path / "run"), "--dry-run", "--device", "h100", "--json"]
    command = [sys.executable, "-c", WITH_MEMORY, str(tmp_path / "status"), *words]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # a second thread of OpenMP costs torch 65 MB, whatever it computes
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=alone)
    assert done.returncode == 0, done.stderr
    most = next(line for line in (tmp_path / "status").read_text().splitlines() if line.startswith("VmHWM:"))
    # What it allocates is held to 400 MB above. Pages of libraries, which all processes share, are 103 to 176 MB beside it, as many as
    # the kernel maps at a time.
    assert int(most.split()[1]) * 1024 < 400e6 + 150e6
    assert "planned for 2020, 2021, 2022, 2023, 2024, 2025 of the challenge (dev, train)" in done.stderr
    told = json.loads(done.stdout)
    rows = {row["stage"]: row for row in told["stages"]}
    assert list(rows) == ["separate", "synthesize", "pretrain", "finetune"]
    assert told["device"] == {"name": "NVIDIA H100 SXM", "memory_bytes": 75_200_000_000, "measured": False}
    assert all(row["memory_bytes"] < 75.2e9 and not row["remark"] for row in rows.values())
    # Separated twins of the machines with clean clips, original and synthetic clips: 30 passes of batches of 32.
    assert rows["finetune"]["steps"] == 30 * ((15_000 + 8_000 + 20_000) // 32)
    assert rows["pretrain"]["steps"] == 11_000
    assert rows["finetune"]["macs_of_a_step"] == pytest.approx(
        32 * 3 * 12 * 513 * (12 * 768**2 + 2 * 513 * 768), rel=0.1
    )
    assert 3600 < sum(row["seconds"] for row in rows.values()) < 200 * 3600
    assert not (tmp_path / "run").exists()


def test_plan_tells_a_measurement_from_a_table(tmp_path: Path) -> None:
    table, measured = plan("smoke", tmp_path), plan("smoke", tmp_path, "--measure")
    assert "time reckoned from a table, 60% of its arithmetic" in table.stdout
    assert "time reckoned from a measurement" in measured.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "abacus"], "--device abacus: no such device; known: here, cpu, h200, h100"),
        (["--device", "h100", "--measure"], "--measure: measures the device here, not h100"),
    ],
)
def test_device_that_can_not_be_planned_for_is_refused(words: list[str], told: str, tmp_path: Path) -> None:
    result = plan("smoke", tmp_path, *words)
    assert result.exit_code == 2
    assert told in result.stderr


def test_plan_for_recordings_that_are_not_there_says_so(tmp_path: Path) -> None:
    result = plan("smoke", tmp_path, "--data", tmp_path / "gone")
    assert result.exit_code == 0, result.output
    assert f"{tmp_path / 'gone'} is not there: planned for 2025 of the challenge" in result.stderr


def test_plan_ends_at_a_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asd_trainer", "run", "paper", "--out", str(tmp_path / "run"), "--dry-run"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as running:
        assert running.stderr is not None
        assert "planned for 2025" in running.stderr.readline()
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENT_S) == 143


def test_known_sizes_are_those_of_the_challenge() -> None:
    # 2020: 20 119 training clips of six machines. 2025: seven machines of 1 000 and 100 supplemental clips, and eight more.
    assert len(known_clips([2020], ["dev"])) == 20_119
    of_2025 = known_clips([2025], ["dev", "train"])
    assert (len(of_2025.select(split="train")), len(of_2025.select(split="supplemental"))) == (15_000, 1_500)
    assert len(of_2025.machines) == 15
    assert len(known_clips([2022], ["dev"])) == 7 * 3 * 1_000


def test_recipes_are_listed_with_what_they_are_for() -> None:
    listed = CliRunner().invoke(main, ["recipes"]).stdout
    assert [line.split()[0] for line in listed.splitlines()] == list(shipped_recipes())
    rows = json.loads(CliRunner().invoke(main, ["recipes", "--json"]).stdout)
    assert all(row["description"] for row in rows)
