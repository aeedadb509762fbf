"""What the command line makes of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from asd_daemon.errors import SettingsError
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.settings.plan import CommandLineOptions, make_plan


@pytest.mark.parametrize(
    ("configured", "on_command_line", "goes_on"),
    [
        ({"device": "default"}, None, True),
        ({"simulate": "fan"}, None, True),
        ({"device": "default"}, "device:default", True),
        ({"device": "default"}, "command:arecord", True),
        ({"device": "default"}, "simulate:fan?fail=blade_chip", False),
        ({"simulate": "fan"}, "simulate:fan?fail=blade_chip", False),
        ({"device": "default"}, "file:/tmp/a.wav", False),
        ({"folder": "/tmp"}, None, False),
    ],
)
def test_recordings_and_simulations_that_are_tried_out_are_not_the_machine_of_the_run_before(
    configured: dict[str, str], on_command_line: str | None, goes_on: bool, tmp_path: Path
) -> None:
    file = tmp_path / "asd.yaml"
    file.write_text(yaml.safe_dump({"machines": {"fan": {"source": configured}}}))
    plan = make_plan(CommandLineOptions(config=file, machines=("fan",), source=on_command_line))
    assert plan.goes_on_with("fan") is goes_on


def test_simulation_without_a_configuration_is_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    plan = make_plan(CommandLineOptions(machines=("fan",), source="simulate:fan"))
    assert not plan.goes_on_with("fan")


def test_scoring_of_a_machine_goes_before_that_for_all_and_the_command_line_before_both(tmp_path: Path) -> None:
    file = tmp_path / "asd.yaml"
    machines = {"fan": {"source": {"simulate": "fan"}}, "mill": {"source": {"simulate": "fan"}, "scoring": "auto"}}

    def scorings(content: dict[str, object], command_line: Scoring | None = None) -> list[str]:
        file.write_text(yaml.safe_dump(content))
        plan = make_plan(CommandLineOptions(config=file, scoring=command_line))
        return [plan.scoring_of(name) for name in plan.machines]

    assert scorings({"machines": machines}) == ["auto", "auto"]
    assert scorings({"machines": machines, "scoring": "paper"}) == ["paper", "auto"]
    assert scorings({"machines": machines, "scoring": "paper"}, "auto") == ["auto", "auto"]
    assert scorings({"machines": machines}, "paper") == ["paper", "paper"]
    with pytest.raises(SettingsError, match=r"asd\.yaml:3: machines\.fan\.scoring: .*'auto' or 'paper'"):
        scorings({"machines": {"fan": {"scoring": "nearest"}}})
