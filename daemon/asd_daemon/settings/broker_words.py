"""How people write where a broker is: a name, NAME:PORT, or a URL. What is clear is taken, what is not is refused in words.

Pure; whether anybody answers there is the connection's business.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator

_SCHEMES = {"mqtt": False, "tcp": False, "mqtts": True, "ssl": True, "tls": True}
_NAME = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?$")


@dataclass(frozen=True)
class BrokerWords:
    """What was meant."""

    host: str
    port: int | None = None
    tls: bool | None = None
    """None where nothing was said of it."""


def parse_broker(words: str) -> BrokerWords:
    """Read NAME, NAME:PORT, [ADDRESS]:PORT, mqtt://NAME[:PORT] or mqtts://NAME[:PORT].

    Raises:
        ValueError: it is none of these; says what to write.
    """
    text, tls = words.strip(), None
    if "$" in text or "{" in text:
        raise ValueError("variables are not filled in here; write the name itself")
    if "://" in text:
        scheme, text = text.split("://", 1)
        if scheme.lower() in ("ws", "wss", "http", "https"):
            raise ValueError(
                f"MQTT over websockets ({scheme}://) is not spoken here; give the broker's name and its MQTT port"
            )
        if scheme.lower() not in _SCHEMES:
            raise ValueError(f"{scheme}:// is unknown; give mqtt://NAME:PORT, mqtts://NAME:PORT, or the name alone")
        tls = _SCHEMES[scheme.lower()]
        text = text.removesuffix("/")
    if "@" in text:
        raise ValueError("a username and a password have their own keys: username and password_file")
    if "/" in text or "?" in text:
        raise ValueError("there is no path at a broker; give its name and port alone")
    host, port = _split(text)
    if not host:
        raise ValueError("the broker's name is missing")
    if not (_NAME.match(host) or _is_address(host)):
        raise ValueError("is no name or address of a host: letters, digits, dots and - only")
    return BrokerWords(host, port, tls)


def spread_host(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keys of a broker, with what its `host` says of port and TLS in their own keys; unchanged where that can't be read.

    Raises:
        ValueError: those keys say something else.
    """
    host = content.get("host")
    given = host if isinstance(host, list | tuple) else [host]
    words = [word for word in given if isinstance(word, str)]
    if not words or len(words) < len(given):
        return content
    try:
        said = [parse_broker(word) for word in words]
    except ValueError:  # the key's own check says why
        return content
    told: dict[str, Any] = {}
    for key, values in (("port", [one.port for one in said]), ("tls", [one.tls for one in said])):
        found = {value for value in values if value is not None}
        if len(found) > 1:
            raise ValueError(f"host says {key} {' and '.join(sorted(map(_lower, found)))}; all nodes have the same")
        for value in found:
            if content.get(key, value) != value:
                raise ValueError(f"host says {key} {_lower(value)}, {key} says {content[key]}; keep one of them")
            told[key] = value
    names = [one.host for one in said]
    return {**content, **told, "host": names if isinstance(host, list | tuple) else names[0]}


def _lower(value: object) -> str:
    return str(value).lower()


def _checked_hosts(content: Any) -> str | tuple[str, ...]:
    """A name, or several.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(content, str):
        return parse_broker(content).host
    if not isinstance(content, list | tuple) or not content or not all(isinstance(one, str) for one in content):
        raise ValueError("must be a name, or a list of names such as [broker-1, broker-2, broker-3]")
    names = tuple(parse_broker(one).host for one in content)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is there twice; name each node once")
    return names


Hosts = Annotated[str | tuple[str, ...], BeforeValidator(_checked_hosts)]


def _split(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError("an IPv6 address with a port is written [ADDRESS]:PORT")
        return host, _port(rest[1:]) if rest else None
    if text.count(":") != 1:  # a bare name, or a bare IPv6 address
        return text, None
    host, _, port = text.partition(":")
    return host, _port(port)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65_535):
        raise ValueError(f"the port must be a number from 1 to 65535, got {text!r}")
    return int(text)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
