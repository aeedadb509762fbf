"""What the page's process is told at its start, as one line of JSON.

The command reads the configuration, which needs NumPy and pydantic, and then becomes a lean process that needs neither: 20 MB less.
Nothing of this room but `nearest_sound.py` imports them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class WebOptions:
    """How the page is served, and where the daemons' folders are."""

    host: str
    port: int
    state_folders: tuple[str, ...]
    """Patterns of state folders; each match is one daemon's."""
    status_folders: tuple[str, ...]
    """Patterns of the folders with status files and sockets."""
    hosts: tuple[str, ...] = ()
    """Names by which browsers may ask for the page, besides localhost and addresses of the box."""
    password_file: str | None = None
    proxy_header: str | None = None
    """Header in which a reverse proxy says who has logged in; it is believed from `proxy_address` alone."""
    proxy_address: str = "127.0.0.1"
    session_hours: float = 12.0
    version: str = ""
    configuration: str | None = None
    """The configuration file, for the support file."""

    @property
    def asks_who(self) -> bool:
        """Whether people must log in."""
        return self.password_file is not None or self.proxy_header is not None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def parse_options(line: str) -> WebOptions:
    """What `to_json` wrote."""
    content = json.loads(line)
    for name in ("state_folders", "status_folders", "hosts"):
        content[name] = tuple(content[name])
    return WebOptions(**content)
