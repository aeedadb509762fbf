"""Home Assistant finds each machine by itself: one retained message that describes a device and its entities.

The form is Home Assistant's "device discovery" (its MQTT integration, since 2024.11): `device`, `origin` and `components` in one
payload on homeassistant/device/<id>/config. Pure; who sends it and when is the connection's business.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import Condition

_AVAILABLE = "{{ 'online' if value == 'online' else 'offline' }}"
_HEARD = "{{ 'online' if value_json.listening else 'offline' }}"
_SCORE_EXPIRES_S = 60  # six windows


def device_id(node: str, machine: str) -> str:
    """The machine's name for Home Assistant, which takes letters, digits, _ and - only; no two machines have the same.

    `asd_NODE_MACHINE` where that can be read in one way only, as in most cases; else with a digest of both names behind it.
    """
    if "_" not in node and "." not in node + machine:
        return f"asd_{node}_{machine}"
    digest = hashlib.sha256(json.dumps([node, machine]).encode()).hexdigest()[:8]
    return f"{former_device_id(node, machine)}_{digest}"


def former_device_id(node: str, machine: str) -> str:
    """The name that versions before 0.2 gave, which two machines could share."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"asd_{node}_{machine}")


def former_topics(topics: Topics) -> dict[str, str]:
    """Topics on which versions before 0.2 described machines that have another one now, and those machines' names."""
    return {
        f"{topics.discovery_prefix}/device/{former_device_id(topics.node, machine)}/config": machine
        for machine in (topics.machines if topics.discovery_prefix is not None else ())
        if former_device_id(topics.node, machine) != device_id(topics.node, machine)
    }


def describes(payload: bytes, base: str) -> bool:
    """Whether a description on such a topic is of the machine whose topics begin with `base`, and not of another one."""
    try:
        content = json.loads(payload)
        return bool(content["components"]["state"]["state_topic"] == f"{base}/state")
    except (ValueError, KeyError, TypeError):
        return False


def discoveries(topics: Topics) -> Iterator[tuple[str, dict[str, Any]]]:
    """Topic and payload of each machine's description; none where the configuration wants none."""
    for machine in topics.machines if topics.discovery_prefix is not None else ():
        nodes = [topics.availability()] if topics.owns_node else []
        payload = discovery_payload(
            topics.node,
            machine,
            base=f"{topics.base}/{machine}",
            availability_topics=[*nodes, topics.availability(machine)],
            takes_commands=topics.takes_commands,
            has_pictures=topics.has_pictures,
        )
        yield f"{topics.discovery_prefix}/device/{device_id(topics.node, machine)}/config", payload


def discovery_payload(
    node: str,
    machine: str,
    *,
    base: str,
    availability_topics: Sequence[str],
    takes_commands: bool,
    has_pictures: bool = False,
) -> dict[str, Any]:
    """The description of one machine.

    Args:
        node: this box's name.
        machine: the machine's.
        base: what comes before `/state` in the machine's topics.
        availability_topics: the machine is there when all of them say `online`.
        takes_commands: whether there are buttons.
        has_pictures: whether there is a picture of the last alert.
    """
    identity = device_id(node, machine)
    available = [{"topic": topic, "value_template": _AVAILABLE} for topic in availability_topics]
    components = {**_sensors(base), **(_buttons(base) if takes_commands else {})}
    if has_pictures:
        components["picture"] = _picture(base)
    for name in (
        "problem",
        "score",
        "threshold",
    ):  # of what is heard now; nobody may take them for that when nothing is
        components[name]["availability"] = [*available, {"topic": f"{base}/state", "value_template": _HEARD}]
    return {
        "device": {
            "identifiers": [identity],
            "name": f"{machine} ({node})",
            "manufacturer": "asd-edge",
            "model": "Listening post",
            "sw_version": metadata.version("asd-edge"),
        },
        "origin": {"name": "asd-edge", "sw_version": metadata.version("asd-edge")},
        "availability": available,
        "availability_mode": "all",
        "components": {
            name: {"unique_id": f"{identity}_{name}", **component} for name, component in components.items()
        },
    }


def _sensors(base: str) -> dict[str, dict[str, Any]]:
    state = f"{base}/state"
    return {
        "listening": {
            "platform": "binary_sensor",
            "name": "Listening",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.listening else 'OFF' }}",
        },
        "problem": {
            "platform": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.event_id and not value_json.muted_until else 'OFF' }}",
            "json_attributes_topic": f"{base}/alert",
        },
        **_figures(base),
        "drift": {
            "platform": "binary_sensor",
            "name": "Drift",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.drift else 'OFF' }}",
        },
        "trouble": {
            "platform": "binary_sensor",
            "name": "Trouble",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.troubles else 'OFF' }}",
        },
    }


def _figures(base: str) -> dict[str, dict[str, Any]]:
    state = f"{base}/state"
    return {
        "score": {
            "platform": "sensor",
            "name": "Score",
            "icon": "mdi:waveform",
            "state_class": "measurement",
            "suggested_display_precision": 3,
            "state_topic": f"{base}/score",
            "value_template": "{{ value_json.score }}",
            "expire_after": _SCORE_EXPIRES_S,
        },
        "threshold": {
            "platform": "sensor",
            "name": "Threshold",
            "entity_category": "diagnostic",
            "state_class": "measurement",
            "suggested_display_precision": 3,
            "state_topic": f"{base}/score",
            "value_template": "{{ value_json.threshold }}",
            "expire_after": _SCORE_EXPIRES_S,
        },
        "state": {
            "platform": "sensor",
            "name": "State",
            "device_class": "enum",
            "options": [condition.value for condition in Condition],
            "state_topic": state,
            "value_template": "{{ value_json.state }}",
            "json_attributes_topic": state,
        },
    }


def _picture(base: str) -> dict[str, Any]:
    """The spectrogram of the last alert beside a normal one; it stays when the alert is over."""
    return {
        "platform": "image",
        "name": "Last alert",
        "icon": "mdi:waveform",
        "image_topic": f"{base}/picture",
        "content_type": "image/png",
    }


def _buttons(base: str) -> dict[str, dict[str, Any]]:
    def button(name: str, icon: str, pressed: str) -> dict[str, Any]:
        return {
            "platform": "button",
            "name": name,
            "icon": icon,
            "command_topic": f"{base}/command",
            "payload_press": pressed,
        }

    return {
        "mute": button("Mute for an hour", "mdi:bell-sleep", '{"command": "mute", "minutes": 60}'),
        "unmute": button("Unmute", "mdi:bell", '{"command": "unmute"}'),
        "acknowledge": button("Acknowledge", "mdi:check", '{"command": "acknowledge"}'),
    }
