"""A run that learns from some years is measured on these years, unless other recordings are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from asd_trainer.cli.program import main
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.training.run_folder import claim_run
from rig.recordings import write_recordings, write_trained_run

pytestmark = pytest.mark.torch


def test_evaluate_run_of_one_year_leaves_the_others_out(tmp_path: Path) -> None:
    raw = "dev_data/raw"
    older = write_recordings(tmp_path / "dcase2023t2" / raw, {"fan": 0.0})
    write_recordings(tmp_path / "dcase2025t2" / raw, {"fan": 1.0})
    claim_run(tmp_path / "run", load_recipe("smoke", ["years=[2025]"]))
    run = write_trained_run(tmp_path / "run", tmp_path)

    def machines(*words: object) -> set[str]:
        result = CliRunner().invoke(main, ["evaluate", str(run), "--json", "--threads", "1", *map(str, words)])
        assert result.exit_code == 0, result.output
        return set(json.loads(result.stdout)["machines"])

    assert machines() == {"fan"}
    figures = json.loads((run / "evaluation.json").read_text())
    assert "2025" in json.dumps(figures)
    assert "2023" not in json.dumps(figures["machines"])
    assert machines("--data", tmp_path) == {"fan_2023", "fan_2025"}
    assert older.is_dir()
