"""Every payload against its published schema, and the discovery against Home Assistant's rules."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from asd_daemon.judge.alarm.alarm import AlertEvent, AlertKind
from asd_daemon.judge.features.change import Change, ChangeKind
from asd_daemon.judge.features.spectral_difference import Band, Difference
from asd_daemon.judge.scoring.verdict import Likeness
from asd_daemon.judge.thresholds.threshold import Threshold
from asd_daemon.tell.commands import UPKEEP, Answer, Command, CommandKind, parse_command
from asd_daemon.tell.mqtt.discovery import describes, device_id, discoveries, former_topics
from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import (
    AlertDetails,
    Condition,
    Drift,
    MachineState,
    PublishedScore,
    alert_payload,
    answer_payload,
    score_payload,
    state_payload,
    to_json,
)

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = ROOT / "docs" / "schemas"
AT = datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)
EVENT = AlertEvent(AlertKind.OPEN, "event-1", AT, AT, 0.5, 0.6, 0.4, 3, 2)
CHANGES = (
    Change(ChangeKind.KNOCKS, 3.0, 6.1, 83.1, even=True, swell_hz=14.0, from_hz=3000, to_hz=6200),
    Change(ChangeKind.TONE, 1.0, 12.6, rate_hz=14.0, tone_hz=42.1, multiple=3),
)
DIFFERENCE = Difference((Band(100.0, 200.0, 6.1, 3.2),), (4, 0, 9), 12)
DETAILS = AlertDetails(DIFFERENCE, CHANGES, "clips/fan/x.flac")


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
        changes=CHANGES,
    ),
    MachineState(Condition.NORMAL, AT, 0.5, 1.8, calibration=Threshold(1.8, "fixed")),
]


@pytest.mark.parametrize("state", STATES, ids=lambda s: s.condition.value)
def test_state_fits_its_schema(state: MachineState) -> None:
    schema("state").validate(sent(state_payload("box", "fan", state)))


def test_score_fits_its_schema() -> None:
    schema("score").validate(sent(score_payload("box", "fan", PublishedScore(AT, 0.5, 0.4, True))))


@pytest.mark.parametrize("kind", list(AlertKind))
@pytest.mark.parametrize("details", [DETAILS, replace(DETAILS, changes=()), AlertDetails()])
def test_alert_fits_its_schema(kind: AlertKind, details: AlertDetails) -> None:
    for threshold in (0.4, 0.0):
        event = replace(EVENT, kind=kind, threshold=threshold)
        schema("alert").validate(sent(alert_payload("box", "fan", event, details, repeated=True)))


@pytest.mark.parametrize("kind", list(ChangeKind))
def test_every_kind_of_change_fits_the_schema_of_an_alert(kind: ChangeKind) -> None:
    bare, full = Change(kind, 1.0), Change(kind, 9.0, 1.0, 2.0, True, 3.0, 4, 5, 6.0, 7, 8.0)
    for change in (bare, full):
        details = AlertDetails(changes=(change,))
        schema("alert").validate(sent(alert_payload("box", "fan", EVENT, details)))
        schema("state").validate(sent(state_payload("box", "fan", replace(STATES[-1], changes=(change,)))))


def test_alert_tells_its_changes_in_words_and_in_figures() -> None:
    alert, state = sent(alert_payload("box", "fan", EVENT, DETAILS)), sent(state_payload("box", "fan", STATES[-2]))
    assert alert["text"] == state["text"]
    assert alert["text"].startswith("Knocks 83.1 times a second, stronger and weaker 14 times a second")
    knocks, tone = alert["changes"]
    assert (knocks["kind"], knocks["rate_hz"], knocks["certainty"]) == ("knocks", 83.1, 0.75)
    assert (tone["kind"], tone["multiple"], tone["db"], tone["certainty"]) == ("tone", 3, 12.6, 0.5)


def test_changes_that_are_not_known_are_no_words_and_none_that_has_a_name_says_so() -> None:
    assert sent(alert_payload("box", "fan", EVENT, AlertDetails()))["text"] is None
    nameless = sent(alert_payload("box", "fan", EVENT, AlertDetails(changes=())))
    assert (nameless["text"], nameless["changes"]) == ("Sounds different, in no way that has a name", [])


def test_an_alert_that_resembles_a_named_one_says_so_in_words_and_in_figures() -> None:
    like = Likeness("bearing", date(2026, 5, 3))
    told = sent(alert_payload("box", "fan", EVENT, replace(DETAILS, like=like)))
    schema("alert").validate(told)
    assert told["like"] == {"name": "bearing", "on": "2026-05-03"}
    assert told["text"].endswith("; like bearing, 2026-05-03")
    state = sent(state_payload("box", "fan", replace(STATES[-1], like=like)))
    schema("state").validate(state)
    assert state["text"] == "like bearing, 2026-05-03"


@pytest.mark.parametrize("ok", [True, False])
def test_answer_fits_its_schema(ok: bool) -> None:
    command = Command(command=CommandKind.NORMAL, event_id="e", id="7")
    told = sent(answer_payload("box", "fan", command, Answer(ok, "why"), AT))
    schema("answer").validate(told)
    assert (told["id"], told["ok"], told["text"]) == ("7", ok, "why")


def test_an_alert_that_was_accepted_says_so() -> None:
    told = sent(alert_payload("box", "fan", replace(EVENT, kind=AlertKind.CLOSE, accepted=True), DETAILS))
    schema("alert").validate(told)
    assert told["outcome"] == "accepted"


def test_schemas_know_every_word_of_ours_and_no_other() -> None:
    state = schema("state").schema["properties"]["state"]["enum"]
    assert set(state) == {c.value for c in Condition}
    changes = schema("alert").schema["properties"]["changes"]["items"]["properties"]["kind"]["enum"]
    assert set(changes) == {kind.value for kind in ChangeKind}
    assert set(schema("command").schema["properties"]["command"]["enum"]) == {
        k.value for k in set(CommandKind) - UPKEEP
    }


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
        {"command": "normal"},
        {"command": "normal", "event_id": "e", "undo": True, "id": "7"},
        {"command": "fault", "name": "bearing"},
        {"command": "fault", "undo": True},
        {"command": "fault"},
        {"command": "fault", "name": None},
        {"command": "fault", "name": ""},
        {"command": "fault", "name": "two\nlines"},
        {"command": "fault", "name": "x" * 61},
        {"command": "normal", "undo": "perhaps"},
        {"command": "note", "text": "Belt was loose.\nTightened."},
        {"command": "note", "event_id": "1", "text": None},
        {"command": "note", "text": "x" * 1001},
        {"command": "note", "text": "bell \x07"},
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
@pytest.mark.parametrize("has_pictures", [False, True])
def test_discovery_is_what_home_assistant_takes(takes_commands: bool, owns_node: bool, has_pictures: bool) -> None:
    Draft202012Validator.check_schema(HOME_ASSISTANT)
    topics = Topics(
        "line-3.b",
        ["fan", "lathe.2"],
        owns_node=owns_node,
        discovery_prefix="homeassistant",
        takes_commands=takes_commands,
        has_pictures=has_pictures,
    )
    found = dict(discoveries(topics))
    assert list(found) == [f"homeassistant/device/{device_id('line-3.b', m)}/config" for m in ("fan", "lathe.2")]
    ids = []
    for topic, payload in found.items():
        assert re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", topic)
        Draft202012Validator(HOME_ASSISTANT).validate(sent(payload))
        components = payload["components"]
        assert {"problem", "score", "state"} <= set(components)
        assert ("mute" in components) is takes_commands
        assert ("picture" in components) is has_pictures
        ids += [component["unique_id"] for component in components.values()]
        named = [a["topic"] for a in payload["availability"]]
        assert any(t.endswith(("fan/availability", "lathe.2/availability")) for t in named)
        assert ("asd/line-3.b/availability" in named) is owns_node
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("owns_node", [False, True])
def test_discovery_makes_deaf_look_deaf(owns_node: bool) -> None:
    """As Home Assistant renders it: what is of now is unavailable while nothing is heard, and the connectivity sensor is off."""
    jinja2 = pytest.importorskip("jinja2", reason="the edge alone has no Jinja")
    topics = Topics("box", ["fan"], owns_node=owns_node, discovery_prefix="homeassistant")
    ((_, payload),) = discoveries(topics)
    components = payload["components"]
    assert components["listening"]["device_class"] == "connectivity"

    def rendered(template: str, state: MachineState) -> str:
        text = to_json(state_payload("box", "fan", state))
        return str(jinja2.Template(template).render(value=text.decode(), value_json=json.loads(text)))

    heard = MachineState(Condition.NORMAL, AT, score=0.1, threshold=0.4)
    silent = replace(heard, condition=Condition.UNUSABLE, hears=False)
    for name in ("problem", "score", "threshold"):
        *nodes, own = components[name]["availability"]
        assert nodes == payload["availability"]
        assert own["topic"] == "asd/box/fan/state"
        assert rendered(own["value_template"], heard) == "online"
        for state in (
            silent,
            replace(heard, condition=Condition.MIC_LOST),
            replace(heard, condition=Condition.WRONG_DEVICE),
        ):
            assert rendered(own["value_template"], state) == "offline"
            assert rendered(components["listening"]["value_template"], state) == "OFF"
    assert rendered(components["listening"]["value_template"], heard) == "ON"
    assert components["score"]["expire_after"] == components["threshold"]["expire_after"] == 60
    assert "availability" not in components["state"], "the state is told whatever it is"


def test_description_of_another_machine_is_known_as_such() -> None:
    ((_, payload),) = discoveries(Topics("box", ["fan"], discovery_prefix="homeassistant"))
    assert describes(to_json(payload), "asd/box/fan")
    for other in (to_json(payload).replace(b"box/fan/state", b"box/pump/state"), b"", b"[]", b"\xff"):
        assert not describes(other, "asd/box/fan")
    assert former_topics(Topics("box", ["fan"], discovery_prefix="homeassistant")) == {}
    assert former_topics(Topics("b_x", ["fan"], discovery_prefix=None)) == {}


def test_discovery_buttons_send_commands_that_are_understood() -> None:
    ((_, payload),) = discoveries(Topics("box", ["fan"], discovery_prefix="homeassistant", takes_commands=True))
    pressed = [c["payload_press"] for c in payload["components"].values() if c["platform"] == "button"]
    assert {parse_command(p.encode()).command for p in pressed} == set(CommandKind) - UPKEEP - {
        CommandKind.ENROLL,
        CommandKind.NORMAL,
        CommandKind.FAULT,
        CommandKind.NOTE,
        CommandKind.SET,
        CommandKind.UNSET,
    }


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
