"""The page's process: `python -m asd_daemon.web.server OPTIONS`, started by `asd-daemon web`.

Answers until SIGTERM or SIGINT. Whoever connects and says nothing is cut off after some seconds.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from asd_daemon.errors import AsdError
from asd_daemon.web.application import Application
from asd_daemon.web.guards import MOST_HEAD_BYTES
from asd_daemon.web.options import parse_options

_HEAD_WITHIN_S = 10.0
_MOST_CONNECTIONS = 400


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 that gives a client so many seconds for the head of its first request."""

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(_HEAD_WITHIN_S, self._lose_patience)

    def _lose_patience(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def main(words: list[str]) -> int:
    """The program."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    options = parse_options(words[0])
    try:
        app = Application(options).asgi()
    except AsdError as e:
        print(f"error: {e}", file=sys.stderr)  # noqa: T201
        return e.exit_code
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=options.host,
            port=options.port,
            loop="asyncio",
            http=ImpatientProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,  # the guards ask the proxy themselves: who asks must stay known
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
        )
    )
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
