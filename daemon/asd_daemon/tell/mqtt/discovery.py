"""Home Assistant finds each machine by itself: one retained message that describes a device and its entities.

The form is Home Assistant's "device discovery" (its MQTT integration, since 2024.11): `device`, `origin` and `components` in one
payload on homeassistant/device/<id>/config. Pure; who sends it and when is the connection's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from asd_daemon.tell.mqtt.topics import Topics
from asd_daemon.tell.payloads import Condition

_AVAILABLE = "{{ 'online' if value == 'online' else 'offline' }}"


def device_id(node: str, machine: str) -> str:
    """The machine's name for Home Assistant, which takes letters, digits, _ and - only."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", f"asd_{node}_{machine}")


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
        )
        yield f"{topics.discovery_prefix}/device/{device_id(topics.node, machine)}/config", payload


def discovery_payload(
    node: str, machine: str, *, base: str, availability_topics: Sequence[str], takes_commands: bool
) -> dict[str, Any]:
    """The description of one machine.

    Args:
        node: this box's name.
        machine: the machine's.
        base: what comes before `/state` in the machine's topics.
        availability_topics: the machine is there when all of them say `online`.
        takes_commands: whether there are buttons.
    """
    identity = device_id(node, machine)
    components = {**_sensors(base), **(_buttons(base) if takes_commands else {})}
    return {
        "device": {
            "identifiers": [identity],
            "name": f"{machine} ({node})",
            "manufacturer": "asd-edge",
            "model": "Listening post",
            "sw_version": metadata.version("asd-edge"),
        },
        "origin": {"name": "asd-edge", "sw_version": metadata.version("asd-edge")},
        "availability": [{"topic": topic, "value_template": _AVAILABLE} for topic in availability_topics],
        "availability_mode": "all",
        "components": {
            name: {"unique_id": f"{identity}_{name}", **component} for name, component in components.items()
        },
    }


def _sensors(base: str) -> dict[str, dict[str, Any]]:
    state = f"{base}/state"
    return {
        "problem": {
            "platform": "binary_sensor",
            "name": "Problem",
            "device_class": "problem",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.event_id and not value_json.muted_until else 'OFF' }}",
            "json_attributes_topic": f"{base}/alert",
        },
        "score": {
            "platform": "sensor",
            "name": "Score",
            "icon": "mdi:waveform",
            "state_class": "measurement",
            "suggested_display_precision": 3,
            "state_topic": f"{base}/score",
            "value_template": "{{ value_json.score }}",
        },
        "threshold": {
            "platform": "sensor",
            "name": "Threshold",
            "entity_category": "diagnostic",
            "state_class": "measurement",
            "suggested_display_precision": 3,
            "state_topic": f"{base}/score",
            "value_template": "{{ value_json.threshold }}",
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
            "name": "Storage trouble",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "state_topic": state,
            "value_template": "{{ 'ON' if value_json.troubles else 'OFF' }}",
        },
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
