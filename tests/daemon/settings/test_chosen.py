"""What people chose lies over the configuration, from a table of keys; what can't be used of it is named and stops nobody."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asd_daemon.errors import UsageError
from asd_daemon.run.choosing import changed_choices
from asd_daemon.settings.chosen import Chosen, lay_over, only_writer, read_chosen, write_chosen
from asd_daemon.settings.chosen_keys import CHOOSABLE, MOST_ADDED, Choice, checked_choice, choices_in, content_of
from asd_daemon.settings.file import parse_settings
from asd_daemon.settings.keys import MachineSettings, Settings
from asd_daemon.settings.plan import CommandLineOptions, make_plan
from asd_daemon.settings.value_words import chosen_lines, value_at
from asd_daemon.tell.commands import Command

CONFIGURED = parse_settings(
    "machines: {fan: {source: {simulate: fan}, alarm: {threshold: 1.8, of: 4}}, mill: {source: {simulate: valve}}}", "c"
)


def chosen(tmp_path: Path, text: str) -> Chosen:
    (tmp_path / "chosen.yaml").write_text(text)
    return read_chosen(tmp_path)


def test_choice_is_above_the_configuration_and_touches_nothing_else(tmp_path: Path) -> None:
    laid = lay_over(chosen(tmp_path, "machines: {fan: {alarm: {threshold: 1.4}, title: Big fan}}"), CONFIGURED)
    fan = laid.settings.machines["fan"]
    assert (fan.alarm.threshold, fan.alarm.of, fan.title) == (1.4, 4, "Big fan")
    assert laid.settings.machines["mill"] == CONFIGURED.machines["mill"]
    assert not laid.troubles
    assert not laid.notes


def test_unset_by_choice_is_above_a_configured_value(tmp_path: Path) -> None:
    laid = lay_over(chosen(tmp_path, "machines: {fan: {alarm: {threshold: null}}}"), CONFIGURED)
    assert laid.settings.machines["fan"].alarm.threshold is None


def test_added_machine_has_a_microphone_or_is_simulated_and_takes_settings(tmp_path: Path) -> None:
    text = "machines: {pump: {alarm: {threshold: 2}, source: {device: usb-path:1-1.2, channel: 1}}}"
    laid = lay_over(chosen(tmp_path, text), CONFIGURED)
    assert str(laid.settings.machines["pump"].source.spec()) == "device:usb-path:1-1.2?channel=1"
    assert laid.settings.machines["pump"].alarm.threshold == 2


@pytest.mark.parametrize(
    "source",
    [
        {"command": "touch /tmp/x"},
        {"file": "/etc/passwd"},
        {"folder": "/"},
        {"device": "default", "command": "ls"},
        {"simulate": "fan", "speed": 2},
        "command:ls",
        "file:/etc/passwd",
        ["device"],
        None,
        7,
    ],
)
def test_source_that_runs_a_program_or_opens_a_file_may_not_be_chosen(source: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"machines\.pump\.source: .* device or simulate"):
        checked_choice("pump", "source", source)
    written = yaml.safe_dump({"machines": {"pump": {"source": source}}})
    laid = lay_over(chosen(tmp_path, written), CONFIGURED)
    assert laid.settings == CONFIGURED
    assert "machines.pump.source" in laid.troubles[0]


def test_simulation_that_takes_the_box_for_itself_may_not_be_added() -> None:
    assert checked_choice("pump", "source", "simulate:fan?speed=60").value == {"simulate": "fan?speed=60"}
    for speed in ("61", "max", "0"):
        with pytest.raises(UsageError, match=r"machines\.pump\.source: simulated at .* times real time"):
            checked_choice("pump", "source", f"simulate:fan?speed={speed}")


@pytest.mark.parametrize(
    "key", ["source.command", "quality.below_db", "model", "alarm", "alarm.threshold.x", "", "mqtt.host"]
)
def test_only_keys_of_the_table_may_be_chosen(key: str) -> None:
    with pytest.raises(UsageError, match="may not be chosen"):
        checked_choice("fan", key, 1)
    with pytest.raises(UsageError, match="may not be chosen"):
        checked_choice(None, key, 1)


def test_source_of_a_configured_machine_stays_and_that_is_said(tmp_path: Path) -> None:
    laid = lay_over(chosen(tmp_path, "machines: {fan: {source: {device: default}}}"), CONFIGURED)
    assert laid.settings == CONFIGURED
    assert "the configuration says where it is heard" in laid.notes[0]


def test_choice_for_a_machine_that_is_gone_waits(tmp_path: Path) -> None:
    laid = lay_over(chosen(tmp_path, "machines: {saw: {alarm: {threshold: 2}}}"), CONFIGURED)
    assert laid.settings == CONFIGURED
    assert "no machine saw is configured" in laid.notes[0]
    assert not laid.troubles


def test_value_that_does_not_fit_is_named_and_the_others_hold(tmp_path: Path) -> None:
    text = "machines: {fan: {alarm: {threshold: -1, false_alarms_per_week: 3}, title: ''}, 'no name': {source: {device: x}}}"
    laid = lay_over(chosen(tmp_path, text), CONFIGURED)
    fan = laid.settings.machines["fan"]
    assert (fan.alarm.threshold, fan.alarm.false_alarms_per_week, fan.title) == (1.8, 3, None)
    assert len(laid.troubles) == 3
    assert any("machines.fan.alarm.threshold: " in line and "-1" in line for line in laid.troubles)
    assert all(line.startswith(str(tmp_path / "chosen.yaml")) for line in laid.troubles)


@pytest.mark.parametrize(
    "text", ["machines: [", "- a", "7", "\xff\x00", "machines: {fan: 3}", "mqtt: {host: x}", "bundle_key: x"]
)
def test_spoiled_file_is_ignored_named_and_kept_aside(text: str, tmp_path: Path) -> None:
    (tmp_path / "chosen.yaml").write_bytes(text.encode("latin-1"))
    before = read_chosen(tmp_path)
    laid = lay_over(before, CONFIGURED)
    assert laid.settings == CONFIGURED
    if text != "machines: {fan: 3}":
        assert str(tmp_path / "chosen.yaml") in laid.troubles[0]
    else:  # nothing is chosen there
        return
    write_chosen(before, before.with_choice(Choice("fan", "title", "Fan")))
    (aside,) = tmp_path.glob("chosen-unusable-*.yaml")
    assert aside.read_text() == text.encode("latin-1").decode("utf-8", "replace")
    assert read_chosen(tmp_path).choices == (Choice("fan", "title", "Fan"),)


def test_file_is_its_owners_alone_and_says_what_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    choices = (Choice("pump", "source", {"simulate": "fan?seed=3"}), Choice("pump", "title", "Pumpe Süd"))
    with only_writer(folder):
        write_chosen(read_chosen(folder), Chosen(folder / "chosen.yaml", choices))
    assert stat.S_IMODE((folder / "chosen.yaml").stat().st_mode) == 0o600
    assert read_chosen(folder).choices == choices
    gone = read_chosen(folder).without("pump", "source")
    assert not gone.choices, "an added machine goes with all that was chosen for it"


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
)
KEYS = st.sampled_from(
    ["machines", "fan", "alarm", "threshold", "title", "source", "device", "command", "mqtt", "host"]
)


@given(st.recursive(VALUES, lambda below: st.dictionaries(KEYS, below, max_size=3), max_leaves=12))
def test_whatever_stands_in_the_file_nothing_but_the_table_is_changed(content: Any) -> None:
    found = list(choices_in(content if isinstance(content, dict) else {}))
    choices = tuple(one for one in found if isinstance(one, Choice))
    laid = lay_over(Chosen(Path("chosen.yaml"), choices), CONFIGURED)
    assert laid.settings.mqtt is None
    for name, machine in laid.settings.machines.items():
        before = CONFIGURED.machines.get(name) or MachineSettings(source=machine.source)
        assert machine.source.command is None
        restored = machine.model_dump(exclude={"title", "alarm"})
        assert restored == before.model_dump(exclude={"title", "alarm"})


def test_choices_and_their_file_are_the_same() -> None:
    choices = tuple(
        Choice("fan", one.key, {"device": "a"} if one.key == "source" else 1) for one in CHOOSABLE if one.of_machine
    )
    assert tuple(choices_in(content_of(choices))) == choices


def test_plan_says_what_comes_from_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path))
    (tmp_path / "chosen.yaml").write_text("machines: {fan: {alarm: {threshold: 1.4}}}")
    file = tmp_path / "asd.yaml"
    file.write_text("machines: {fan: {source: {simulate: fan}, alarm: {threshold: 1.8}}}")
    plan = make_plan(CommandLineOptions(config=file))
    assert plan.machines["fan"].alarm.threshold == 1.4
    assert value_at(plan.configured, "fan", "alarm.threshold") == 1.8
    (line,) = chosen_lines(plan)
    assert (
        line
        == f"machines.fan.alarm.threshold is 1.4, as chosen in {tmp_path}/chosen.yaml, above {file}, which says 1.8"
    )


def test_machine_of_the_command_line_takes_its_choices_and_others_are_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ASD_CONFIG", "")
    (tmp_path / "chosen.yaml").write_text("machines: {fan: {alarm: {threshold: 1.4}}, pump: {source: {simulate: fan}}}")
    alone = make_plan(CommandLineOptions(machines=("fan",), source="simulate:fan"))
    assert list(alone.machines) == ["fan"]
    assert alone.machines["fan"].alarm.threshold == 1.4
    added = make_plan(CommandLineOptions())
    assert list(added.machines) == ["pump"]
    assert Settings().machines == {}


def test_only_so_many_machines_may_be_added(tmp_path: Path) -> None:
    many = tuple(Choice(f"m{n}", "source", {"simulate": "fan"}) for n in range(MOST_ADDED))
    kept = Chosen(tmp_path / "chosen.yaml", many)
    command = Command.model_validate({"command": "set", "key": "source", "value": "simulate:fan"})
    with pytest.raises(UsageError, match="32 machines are added already"):
        changed_choices(kept, "one-more", command, lambda _: make_plan(CommandLineOptions(), chosen=kept))
