"""The sample configuration, written from the settings themselves so that it can't be out of date.

It is valid as it stands; keys behind a # show their default, or an example where they have none.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from asd_daemon.settings.keys import MachineSettings, MqttSettings, Settings
from asd_daemon.settings.notify import NotifySettings

_HEAD = """\
# Configuration of asd-daemon, printed by `asd-daemon sample-config`; lies at /etc/asd-daemon/asd-daemon.yaml.
# Everything has a default but the broker's host. Keys behind a # show their default, or an example.
# `asd-daemon check` looks whether all of it works. The daemon never writes this file.
"""
_WIDTH = 118
# What stands without a #
_ACTIVE: dict[str, Any] = {"machines.fan.source.device": "default", "mqtt.host": "localhost"}
# What is shown where a key has no default
_EXAMPLES: dict[str, Any] = {
    "node": "line-3",
    "bundle.folder": "/var/lib/asd-daemon/bundles/current",
    "bundle.url": "https://bundles.example/asd",
    "bundle.ring": "plant",
    "bundle.window": "02:00-04:00",
    "bundle.timezone": "Europe/Berlin",
    "bundle.ca_file": "/etc/asd-daemon/ca.crt",
    "bundle_key": "/etc/asd-daemon/bundle-key.pem",
    "machines.fan.title": "Fan of line 3",
    "machines.fan.model": "fan",
    "machines.fan.source.file": "/tmp/fan.wav",  # noqa: S108  # a text, never opened
    "machines.fan.source.folder": "/srv/recordings",
    "machines.fan.source.command": "arecord -q -D plughw:1 -f S16_LE -r 16000 -c 1 -t raw",
    "machines.fan.source.simulate": "fan?fail=blade_chip&fail_after=60",
    "machines.fan.source.channel": 0,
    "machines.fan.source.far": 1,
    "machines.fan.source.far_device": "usb-id:0d8c:0014",
    "machines.fan.source.rate_hz": 48000,
    "machines.fan.alarm.threshold": 1.8,
    "health.metrics_port": 9187,
    "health.ping_url": "https://hc-ping.com/your-uuid",
    "web.password_file": "/etc/asd-daemon/web-passwords",
    "web.proxy_header": "X-Remote-User",
    "notify.urls_file": "/etc/asd-daemon/notify-urls",
    "notify.urls_credential": "notify-urls",
    "notify.timezone": "Europe/Berlin",
    "notify.tell": ["ops"],
    "notify.quiet_hours": ["22:00-06:00", "sat-sun"],
    "notify.escalate_after_min": 30,
    "notify.escalate_to": ["boss"],
    "notify.page_url": "http://line-3.local:8470",
    "machines.fan.notify.tell": ["ops"],
    "machines.fan.notify.events": ["open"],
    "machines.fan.notify.quiet_hours": [],
    "machines.fan.notify.escalate_after_min": 10,
    "machines.fan.notify.escalate_to": ["boss"],
    "mqtt.port": 8883,
    "mqtt.ca_file": "/etc/asd-daemon/ca.crt",
    "mqtt.cert_file": "/etc/asd-daemon/line-3.crt",
    "mqtt.key_file": "/etc/asd-daemon/line-3.key",
    "mqtt.username": "line-3",
    "mqtt.password_file": "/etc/asd-daemon/mqtt-password",
    "mqtt.password_credential": "mqtt-password",
}
_SECTIONS: dict[str, type[BaseModel]] = {
    "mqtt": MqttSettings,
    "notify": NotifySettings,
    "machines.fan": MachineSettings,
}


def sample_text() -> str:
    """The sample as YAML."""
    return _HEAD + "\n" + "\n".join(_section(Settings, "", 0)) + "\n"


def _section(model: type[BaseModel], path: str, depth: int) -> list[str]:
    lines: list[str] = []
    for name, field in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        lines += _comment(_sentence(field), depth)
        if here == "machines":
            lines += ["machines:", "  fan:", *_section(MachineSettings, "machines.fan", 2)]
            continue
        inner = _SECTIONS.get(here) or _model_of(field)
        if inner is not None:
            lines += [f"{'  ' * depth}{name}:", *_section(inner, here, depth + 1)]
            continue
        shown = {**_EXAMPLES, **_ACTIVE}
        value = shown[here] if here in shown else _default(field)
        mark = "" if here in _ACTIVE else "#"
        lines.append(f"{'  ' * depth}{mark}{name}: {_yaml(value)}")
    return lines


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _default(field: FieldInfo) -> Any:
    if field.default is PydanticUndefined:
        raise ValueError(f"a key without default needs an example in the sample: {field.description}")
    return field.default


def _sentence(field: FieldInfo) -> str:
    """Description and bounds."""
    words = {"Ge": "at least", "Le": "at most", "Gt": "above", "Lt": "below"}
    bounds = [
        f"{words[type(m).__name__]} {getattr(m, type(m).__name__.lower()):g}"
        for m in field.metadata
        if type(m).__name__ in words
    ]
    return (field.description or "") + (f" ({', '.join(bounds)})" if bounds else "")


def _comment(text: str, depth: int) -> list[str]:
    prefix = "  " * depth + "# "
    return textwrap.wrap(text, _WIDTH, initial_indent=prefix, subsequent_indent=prefix)


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value) if isinstance(value, int | float | Path) else json.dumps(value, ensure_ascii=False)
