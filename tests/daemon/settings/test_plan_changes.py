"""What of a changed configuration a running daemon takes on, and what needs a restart: every key once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asd_daemon.settings.keys import Settings
from asd_daemon.settings.plan import CommandLineOptions, Plan, make_plan
from asd_daemon.settings.plan_changes import NEED_A_RESTART, PlanChanges, needs_another_judge, plan_changes

BEFORE: dict[str, Any] = {
    "node": "box",
    "machines": {
        "fan": {"source": {"device": "usb-id:1235:8214", "channel": 0}},
        "pump": {"source": {"device": "usb-id:1235:8214", "channel": 1}},
        "mill": {"source": {"simulate": "fan"}},
    },
    "mqtt": {"host": "broker"},
}


def plan_of(folder: Path, content: dict[str, Any], *machines: str, source: str | None = None) -> Plan:
    import json

    file = folder / "asd.yaml"
    file.write_text(json.dumps(content))
    return make_plan(CommandLineOptions(config=file, machines=machines, source=source))


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a configuration with one key set."""
    key, _, rest = path.partition(".")
    below = changed(content.get(key) or {}, rest, value) if rest else value
    return {**content, key: below}


def changes(folder: Path, path: str, value: Any) -> PlanChanges:
    return plan_changes(plan_of(folder, BEFORE), plan_of(folder, changed(BEFORE, path, value)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("machines.mill.alarm.threshold", 1.5),
        ("machines.mill.alarm.false_alarms_per_week", 5),
        ("machines.mill.alarm.open_after", 1),
        ("machines.mill.alarm.close_after", 3),
        ("machines.mill.alarm.threshold_learning", False),
        ("machines.mill.quality.below_db", 30),
        ("machines.mill.quality.deaf_after_s", 60),
        ("machines.mill.scoring", "paper"),
    ],
)
def test_alarm_and_quality_are_taken_on_while_the_machine_is_heard(tmp_path: Path, path: str, value: Any) -> None:
    found = changes(tmp_path, path, value)
    assert found == PlanChanges(adjusted=("mill",), keys=(path.replace("machines.mill.", "mill: "),))


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("machines.mill.source", {"simulate": "slider"}, "source.simulate"),
        ("machines.mill.hop_s", 5, "hop_s"),
        ("machines.mill.model", "fan", "model"),
    ],
)
def test_machine_with_another_source_hop_or_model_begins_anew(tmp_path: Path, path: str, value: Any, key: str) -> None:
    found = changes(tmp_path, path, value)
    assert found == PlanChanges(replaced=("mill",), keys=(f"mill: {key}",))


def test_machine_that_begins_anew_by_itself_is_said_so_once(tmp_path: Path) -> None:
    assert changes(tmp_path, "machines.mill.source", {"simulate": "slider"}).lines == ["mill: source.simulate"]


def test_machines_come_and_go(tmp_path: Path) -> None:
    machines = {name: BEFORE["machines"][name] for name in ("fan", "pump")}
    after = {**BEFORE, "machines": {**machines, "saw": {"source": {"simulate": "valve"}}}}
    found = plan_changes(plan_of(tmp_path, BEFORE), plan_of(tmp_path, after))
    assert found == PlanChanges(added=("saw",), removed=("mill",))
    assert found.changes_machines


def test_machine_that_comes_to_a_shared_device_lets_the_others_begin_anew(tmp_path: Path) -> None:
    found = changes(tmp_path, "machines.press", {"source": {"device": "usb-id:1235:8214", "channel": 2}})
    assert (found.added, found.replaced) == (("press",), ("fan", "pump"))
    assert "pump: begins anew, since it shares its device with one that does" in found.lines


def test_machine_that_leaves_a_shared_device_leaves_the_other_alone(tmp_path: Path) -> None:
    after = {**BEFORE, "machines": {name: BEFORE["machines"][name] for name in ("fan", "mill")}}
    found = plan_changes(plan_of(tmp_path, BEFORE), plan_of(tmp_path, after))
    assert found == PlanChanges(removed=("pump",))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("node", "other"),
        ("bundle", "/opt/bundle"),
        ("bundle_key", "/opt/key.pem"),
        ("mqtt.host", "elsewhere"),
        ("mqtt.host", ["broker-1", "broker-2"]),
        ("mqtt.port", 8884),
        ("mqtt.tls", True),
        ("mqtt.commands", True),
        ("mqtt.discovery_prefix", None),
        ("keep.clips", "none"),
        ("keep.clips_mb", 5),
        ("log", "json"),
    ],
)
def test_what_needs_a_restart_is_named(tmp_path: Path, path: str, value: Any) -> None:
    assert changes(tmp_path, path, value) == PlanChanges(needs_restart=(path,))


def test_broker_that_is_configured_no_more_needs_a_restart(tmp_path: Path) -> None:
    assert changes(tmp_path, "mqtt", None).needs_restart == ("mqtt",)


@pytest.mark.parametrize(
    ("path", "value"), [("health.metrics_port", 9187), ("health.ping_url", "https://ping.example/x")]
)
def test_health_is_taken_on(tmp_path: Path, path: str, value: Any) -> None:
    assert changes(tmp_path, path, value) == PlanChanges(keys=(path,))


def test_every_key_of_the_top_is_decided() -> None:
    assert set(Settings.model_fields) == {*NEED_A_RESTART, "machines", "scoring", "health", "web", "notify", "bundle"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("url", "https://b/y"), ("check", "1h"), ("window", "01:00-02:00"), ("trial", "0s"), ("ring", "a")],
)
def test_how_bundles_are_fetched_is_taken_on_while_machines_are_heard(tmp_path: Path, key: str, value: Any) -> None:
    before = {**BEFORE, "bundle_key": "/k.pem", "bundle": {"url": "https://b/x"}}
    found = plan_changes(plan_of(tmp_path, before), plan_of(tmp_path, changed(before, f"bundle.{key}", value)))
    assert found == PlanChanges(keys=(f"bundle.{key}",))


def test_nothing_that_changed_is_nothing_to_do(tmp_path: Path) -> None:
    found = plan_changes(plan_of(tmp_path, BEFORE), plan_of(tmp_path, BEFORE))
    assert (found, found.lines) == (PlanChanges(), [])


def test_source_of_the_command_line_stays_above_the_configuration(tmp_path: Path) -> None:
    before = plan_of(tmp_path, BEFORE, "mill", source="simulate:slider")
    after = plan_of(
        tmp_path, changed(BEFORE, "machines.mill.source", {"simulate": "valve"}), "mill", source="simulate:slider"
    )
    assert plan_changes(before, after) == PlanChanges()


def test_process_that_is_no_longer_alone_under_its_node_needs_a_restart(tmp_path: Path) -> None:
    alone = {**BEFORE, "machines": {"mill": BEFORE["machines"]["mill"]}}
    found = plan_changes(plan_of(tmp_path, alone, "mill"), plan_of(tmp_path, BEFORE, "mill"))
    assert found == PlanChanges(needs_restart=("machines (whether this process hears all of them)",))


def test_another_scoring_for_all_is_taken_on_by_the_machines_that_have_none_of_their_own(tmp_path: Path) -> None:
    own = changed(BEFORE, "machines.pump.scoring", "auto")
    before, after = plan_of(tmp_path, own), plan_of(tmp_path, changed(own, "scoring", "paper"))
    found = plan_changes(before, after)
    assert found == PlanChanges(adjusted=("fan", "mill"), keys=("fan: scoring", "mill: scoring"))
    assert needs_another_judge(before.machines["fan"], after.machines["fan"])
    assert not needs_another_judge(before.machines["pump"], after.machines["pump"])
