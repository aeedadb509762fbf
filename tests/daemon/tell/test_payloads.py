"""Every payload against its published schema, and the discovery against Home Assistant's rules."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.features.spectral_difference import Band, Difference
from asd_daemon.judge.thresholds.threshold import Threshold
from asd_daemon.tell.commands import Command, CommandKind, parse_command
from asd_daemon.tell.mqtt.discovery import discoveries
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import (
    AlertDetails,
    Condition,
    Drift,
    MachineState,
    PublishedScore,
    alert_payload,
    score_payload,
    state_payload,
    to_json,
)

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = ROOT / "docs" / "schemas"
AT = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)
EVENT = AlertEvent(AlertKind.OPEN, "event-1", AT, AT, 0.5, 0.6, 0.4, 3, 2)
DETAILS = AlertDetails(Difference((Band(100.0, 200.0, 6.1, 3.2),), (4, 0, 9), 12), "clips/fan/x.flac")


def schema(name: str) -> Draft202012Validator:
    content = json.loads((SCHEMAS / f"{name}.json").read_text())
    Draft202012Validator.check_schema(content)
    return Draft202012Validator(content)


def sent(payload: dict[str, Any]) -> Any:
    """As it arrives."""
    return json.loads(to_json(payload))


STATES = [MachineState(condition, AT) for condition in Condition] + [
    MachineState(
        Condition.ALERT,
        AT,
        0.5,
        0.4,
        "why",
        "event-1",
        acknowledged=True,
        muted_until=AT,
        drift=Drift(AT, 0.6),
        calibration=Threshold(0.4, "calibrated", windows=60_480, days=7, wanted=0.45, held="rise"),
        troubles=("the disk is full",),
    ),
    MachineState(Condition.NORMAL, AT, 0.5, 1.8, calibration=Threshold(1.8, "fixed")),
]


@pytest.mark.parametrize("state", STATES, ids=lambda s: s.condition.value)
def test_state_fits_its_schema(state: MachineState) -> None:
    schema("state").validate(sent(state_payload("box", "fan", state)))


def test_score_fits_its_schema() -> None:
    schema("score").validate(sent(score_payload("box", "fan", PublishedScore(AT, 0.5, 0.4, True))))


@pytest.mark.parametrize("kind", list(AlertKind))
@pytest.mark.parametrize("details", [DETAILS, AlertDetails()])
def test_alert_fits_its_schema(kind: AlertKind, details: AlertDetails) -> None:
    for threshold in (0.4, 0.0):
        event = replace(EVENT, kind=kind, threshold=threshold)
        schema("alert").validate(sent(alert_payload("box", "fan", event, details, repeated=True)))


def test_schemas_know_every_word_of_ours_and_no_other() -> None:
    state = schema("state").schema["properties"]["state"]["enum"]
    assert set(state) == {c.value for c in Condition}
    assert set(schema("command").schema["properties"]["command"]["enum"]) == {k.value for k in CommandKind}


@pytest.mark.parametrize("name", ["state", "score", "alert"])
def test_schema_refuses_what_is_missing_or_unknown(name: str) -> None:
    payloads = {
        "state": state_payload("box", "fan", STATES[0]),
        "score": score_payload("box", "fan", PublishedScore(AT, 0.5, 0.4, True)),
        "alert": alert_payload("box", "fan", EVENT, DETAILS),
    }
    whole = sent(payloads[name])
    for key in whole:
        with pytest.raises(ValidationError):
            schema(name).validate({k: v for k, v in whole.items() if k != key})
    with pytest.raises(ValidationError):
        schema(name).validate({**whole, "surprise": 1})


@pytest.mark.parametrize(
    "payload",
    [
        {"command": "mute"},
        {"command": "mute", "minutes": 5},
        {"command": "unmute"},
        {"command": "acknowledge", "event_id": "e"},
        {"command": "explode"},
        {"command": "mute", "minutes": 0},
        {"command": "mute", "minutes": 1e9},
        {"command": "mute", "hours": 1},
        {"minutes": 5},
        [],
        "mute",
    ],
)
def test_command_is_taken_exactly_where_its_schema_allows_it(payload: Any) -> None:
    allowed = schema("command").is_valid(payload)
    if allowed:
        assert parse_command(json.dumps(payload).encode()).command.value == payload["command"]
    else:
        with pytest.raises(ValueError, match=r"."):
            parse_command(json.dumps(payload).encode())


def test_command_that_is_retained_or_no_json_is_refused() -> None:
    assert parse_command(b'{"command":"mute"}') == Command(command=CommandKind.MUTE)
    with pytest.raises(ValueError, match="retained"):
        parse_command(b'{"command":"mute"}', retained=True)
    with pytest.raises(ValueError, match="JSON"):
        parse_command(b"\xff{")


HOME_ASSISTANT = json.loads((ROOT / "tests" / "schemas" / "home_assistant_device.json").read_text())


@pytest.mark.parametrize("takes_commands", [False, True])
@pytest.mark.parametrize("owns_node", [False, True])
def test_discovery_is_what_home_assistant_takes(takes_commands: bool, owns_node: bool) -> None:
    Draft202012Validator.check_schema(HOME_ASSISTANT)
    topics = Topics(
        "line-3.b",
        ["fan", "lathe.2"],
        owns_node=owns_node,
        discovery_prefix="homeassistant",
        takes_commands=takes_commands,
    )
    found = dict(discoveries(topics))
    assert list(found) == [
        "homeassistant/device/asd_line-3_b_fan/config",
        "homeassistant/device/asd_line-3_b_lathe_2/config",
    ]
    ids = []
    for topic, payload in found.items():
        assert re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", topic)
        Draft202012Validator(HOME_ASSISTANT).validate(sent(payload))
        components = payload["components"]
        assert {"problem", "score", "state"} <= set(components)
        assert ("mute" in components) is takes_commands
        ids += [component["unique_id"] for component in components.values()]
        named = [a["topic"] for a in payload["availability"]]
        assert any(t.endswith(("fan/availability", "lathe.2/availability")) for t in named)
        assert ("asd/line-3.b/availability" in named) is owns_node
    assert len(ids) == len(set(ids))


def test_discovery_buttons_send_commands_that_are_understood() -> None:
    ((_, payload),) = discoveries(Topics("box", ["fan"], discovery_prefix="homeassistant", takes_commands=True))
    pressed = [c["payload_press"] for c in payload["components"].values() if c["platform"] == "button"]
    assert {parse_command(p.encode()).command for p in pressed} == set(CommandKind) - {CommandKind.ENROLL}


def test_discovery_that_is_not_wanted_is_not_there() -> None:
    assert list(discoveries(Topics("box", ["fan"], discovery_prefix=None))) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"device": {"name": "x"}},
        {"origin": {}},
        {"components": {"a": {"platform": "sensor", "state_topic": "t"}}},
        {"components": {"a": {"platform": "sensor", "unique_id": "u", "state_topic": "t", "device_class": "enum"}}},
        {"components": {"a": {"platform": "lamp", "unique_id": "u"}}},
        {"availability_mode": "most"},
    ],
)
def test_home_assistant_schema_refuses_what_home_assistant_would(broken: dict[str, Any]) -> None:
    ((_, payload),) = discoveries(Topics("box", ["fan"], discovery_prefix="homeassistant"))
    with pytest.raises(ValidationError):
        Draft202012Validator(HOME_ASSISTANT).validate({**sent(payload), **broken})
