"""A door between a daemon and its broker that a test can shut: what is on the way when it shuts is cut off."""

from __future__ import annotations

import selectors
import socket
import threading
from typing import Self

from rig.waiting import PATIENT_S

HOST = "127.0.0.1"


class Gate:
    """`with Gate(port_of_broker) as gate:`; clients connect to `gate.port`. It is shut at first."""

    def __init__(self, behind_port: int) -> None:
        self.behind_port = behind_port
        with socket.socket() as s:
            s.bind((HOST, 0))
            self.port: int = s.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._partner: dict[socket.socket, socket.socket] = {}
        self._listener: socket.socket | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._forward, name="gate", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(PATIENT_S)
        self.shut()
        self._selector.close()

    def open(self) -> None:
        """Let clients through from now on."""
        with self._lock:
            if self._listener is None:
                listener = socket.socket()
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((HOST, self.port))
                listener.listen()
                self._listener = listener
                self._selector.register(listener, selectors.EVENT_READ)

    def shut(self) -> None:
        """Cut all connections; connecting is refused."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            for end in list(self._partner):
                self._drop(end)

    def _forward(self) -> None:
        while not self._over.is_set():
            if not self._selector.get_map():
                self._over.wait(0.02)
                continue
            for key, _ in self._selector.select(0.02):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj in self._partner:
                        self._pass_on(key.fileobj)

    def _accept(self) -> None:
        assert self._listener is not None
        client, _ = self._listener.accept()
        try:
            broker = socket.create_connection((HOST, self.behind_port), 1)
        except OSError:
            client.close()
            return
        broker.settimeout(5)
        client.settimeout(5)
        self._partner[client], self._partner[broker] = broker, client
        for end in (client, broker):
            self._selector.register(end, selectors.EVENT_READ)

    def _pass_on(self, end: socket.socket) -> None:
        try:
            data = end.recv(65_536)
            if data:
                self._partner[end].sendall(data)
                return
        except OSError:
            pass
        self._drop(end)

    def _drop(self, end: socket.socket) -> None:
        other = self._partner.pop(end, None)
        if other is None:
            return
        self._partner.pop(other, None)
        for one in (end, other):
            self._selector.unregister(one)
            one.close()
