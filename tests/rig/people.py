"""Those who are told, as real servers on this box: a webhook that answers as it is told to, and a mailbox."""

from __future__ import annotations

import http.server
import json
import threading
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from typing import Any, Self

from rig.broker import free_port
from rig.waiting import PATIENT_S

HOST = "127.0.0.1"


class Webhook:
    """`with Webhook() as hook:`; keeps what it is sent and answers with `status`."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.refused = 0
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._arrived = threading.Condition()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook._take(self)

            do_PUT = do_POST  # noqa: N815  # the name that the library looks for

            def log_message(self, *words: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer((HOST, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()

    def _take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"] or 0))
        self.may_answer.wait(PATIENT_S)
        with self._arrived:
            if self.status == 200:
                self.paths.append(request.path)
                self.bodies.append(body)
                self.headers.append({key.lower(): value for key, value in request.headers.items()})
            else:
                self.refused += 1
            self._arrived.notify_all()
        answer = b'{"id": "1"}'
        request.send_response(self.status)
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The JSON of so many messages that it has taken."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.bodies) >= count, PATIENT_S), f"{self.bodies} of {count}"
            return [json.loads(body) for body in self.bodies]

    def wait_refused(self, count: int) -> None:
        """Wait until it has refused so many."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.refused >= count, PATIENT_S), f"{self.refused} of {count}"


class Mailbox:
    """An SMTP server; what has been delivered to it."""

    def __init__(self) -> None:
        from aiosmtpd.controller import Controller

        self.mails: list[EmailMessage] = []
        self.port = free_port()
        self._controller = Controller(self, hostname=HOST, port=self.port)

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802  # as the library asks for it
        mail = BytesParser(policy=default).parsebytes(envelope.content)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 taken"

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._controller.stop()
