"""A local socket on which a running daemon says how its machines are at this moment: states, scores, sound.

    live-<process id>.sock      beside the status file, for its owner alone; lines of JSON

The daemon says `machines` once a second, `scores` on connecting and then as they come, and `sound` four times a second of the machines
that the client has asked for with a line `{"sound": ["fan"], "listen": ["fan"]}`. One thread serves all; it is last in line for what the
hearing threads leave. Who reads too slowly is cut off: the daemon waits for nobody.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from asd_daemon.judge.alarm.alarm import AlarmRule
from asd_daemon.private_files import make_private_folder
from asd_daemon.redaction import redact_all
from asd_daemon.tell.payloads import state_payload, time_text
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.watch.live_sound import LiveSound, SpectrogramColumns
from asd_daemon.watch.report import Reports

_LOG = logging.getLogger(__name__)
_TICK_S = 0.25
_STATES_EVERY_S = 1.0
_MOST_CLIENTS = 8
_MOST_UNREAD_BYTES = 2_000_000
_MOST_REQUEST_BYTES = 65_536
AlarmRules = Callable[[], dict[str, AlarmRule]]


@dataclass
class _Client:
    connection: socket.socket
    unsent: bytearray = field(default_factory=bytearray)
    request: bytearray = field(default_factory=bytearray)
    sound: frozenset[str] = frozenset()
    listen: frozenset[str] = frozenset()
    scores_seen: int = 0


class LiveSocket:
    """Serves it; a reporter on the running daemon.

    Args:
        folder: where the socket lies.
        sound: what the hearing threads leave.
        scores: the score log.
        rules: by which rules the machines' windows become alerts.
        node: this box's name.
        version: of the program.
    """

    def __init__(
        self, folder: Path, sound: LiveSound, scores: ScoreLog, rules: AlarmRules, *, node: str, version: str
    ) -> None:
        self._file = folder / f"live-{os.getpid()}.sock"
        self._sound, self._scores, self._rules, self._node, self._version = sound, scores, rules, node, version
        self._reports: Reports | None = None
        self._stop = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._clients: dict[int, _Client] = {}
        self._columns: dict[str, SpectrogramColumns] = {}
        self._said_s = float("-inf")
        self._server: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="watch-live", daemon=True)

    def start(self, reports: Reports) -> None:
        """Begin; where no socket can be made that is logged, and the daemon listens all the same."""
        self._reports = reports
        try:
            self._server = _bind(self._file)
        except OSError as e:
            _LOG.warning("%s: can't be opened, `asd-daemon web` shows no live sound: %s", self._file, e)
            return
        self._selector.register(self._server, selectors.EVENT_READ)
        self._thread.start()

    def progressed(self) -> None:
        """The thread looks by itself."""

    def close(self) -> None:
        """End, and remove the socket."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        with contextlib.suppress(OSError):
            self._file.unlink()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for key, events in self._selector.select(_TICK_S):
                    self._handle(key.fd, events)
                if self._clients:
                    self._say_all()
                    self._stop.wait(_TICK_S / 4)  # so that a client that writes without end can't keep it busy
        finally:
            for number in list(self._clients):
                self._drop(number)
            if self._server is not None:
                self._server.close()
            self._selector.close()

    def _handle(self, number: int, events: int) -> None:
        if self._server is not None and number == self._server.fileno():
            self._accept(self._server)
            return
        if events & selectors.EVENT_WRITE and number in self._clients:
            self._send(number)
        if events & selectors.EVENT_READ and number in self._clients:
            self._read(number)

    def _accept(self, server: socket.socket) -> None:
        connection, _ = server.accept()
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        self._clients[connection.fileno()] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ)
        self._said_s = float("-inf")

    def _read(self, number: int) -> None:
        client = self._clients[number]
        try:
            got = client.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        client.request += got
        if not got or len(client.request) > _MOST_REQUEST_BYTES:
            self._drop(number)
            return
        *lines, rest = client.request.split(b"\n")
        client.request = bytearray(rest)
        for line in lines:
            try:
                wish = json.loads(line)
                client.sound = frozenset(str(name) for name in wish.get("sound", ()))
                client.listen = frozenset(str(name) for name in wish.get("listen", ()))
            except (ValueError, AttributeError, TypeError):
                self._drop(number)
                return
        self._want()

    def _want(self) -> None:
        wanted = frozenset[str]().union(*(c.sound | c.listen for c in self._clients.values()))
        self._sound.want(wanted)
        self._columns = {name: self._columns.get(name) or SpectrogramColumns() for name in wanted}

    def _drop(self, number: int) -> None:
        client = self._clients.pop(number)
        self._selector.unregister(client.connection)
        client.connection.close()
        self._want()

    def _say_all(self) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= _STATES_EVERY_S:
            self._said_s = now_s
            self._say(self._states(), self._clients)
        for number, client in list(self._clients.items()):
            client.scores_seen, new = self._scores.recent(client.scores_seen)
            if new:
                self._say({"kind": "scores", "scores": [_score(score) for score in new]}, [number])
        for machine, samples in self._sound_by_machine().items():
            self._say_sound(machine, samples)

    def _sound_by_machine(self) -> dict[str, Any]:
        pieces: dict[str, list[Any]] = {}
        for piece in self._sound.take():
            pieces.setdefault(piece.machine, []).append(piece.samples)
        return {machine: np.concatenate(parts) for machine, parts in pieces.items()}

    def _say_sound(self, machine: str, samples: Any) -> None:
        looking = [n for n, c in self._clients.items() if machine in c.sound]
        if looking and len(samples) and machine in self._columns:
            made = self._columns[machine].feed(samples)
            said = {
                "kind": "sound",
                "machine": machine,
                "rms_db": _db(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))),
                "peak_db": _db(float(np.abs(samples).max())),
                "columns": base64.b64encode(made.tobytes()).decode(),
            }
            self._say(said, looking)
        listening = [n for n, c in self._clients.items() if machine in c.listen]
        if listening:
            whole = (np.clip(np.nan_to_num(samples), -1, 1) * 32_767).astype("<i2")
            self._say({"kind": "pcm", "machine": machine, "pcm": base64.b64encode(whole.tobytes()).decode()}, listening)

    def _states(self) -> dict[str, Any]:
        rules = self._rules()
        machines = {}
        for name, report in (self._reports() if self._reports else {}).items():
            state = state_payload(self._node, name, report.state)
            ago_s = self._sound.heard_ago_s(name)
            machines[name] = {
                **{k: v for k, v in state.items() if k not in ("schema", "node", "machine")},
                "counts": asdict(report.counts),
                "rule": asdict(rules[name]) if name in rules else None,
                "heard_ago_s": None if ago_s is None else round(ago_s, 1),
            }
        said = {"kind": "machines", "node": self._node, "version": self._version, "pid": os.getpid()}
        redacted: dict[str, Any] = redact_all({**said, "machines": machines})
        return redacted

    def _say(self, what: dict[str, Any], numbers: Collection[int]) -> None:
        line = json.dumps(what, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        for number in list(numbers):
            if number in self._clients:
                self._clients[number].unsent += line
                self._send(number)

    def _send(self, number: int) -> None:
        client = self._clients[number]
        try:
            sent = client.connection.send(client.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(number)
            return
        del client.unsent[:sent]
        if len(client.unsent) > _MOST_UNREAD_BYTES:
            _LOG.info("a reader of %s is too slow and is cut off", self._file)
            self._drop(number)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.connection, wanted)


def _score(logged: LoggedScore) -> Sequence[object]:
    return logged.machine, time_text(logged.at), logged.score, logged.threshold, logged.unfit


def _db(amplitude: float) -> float:
    return round(20 * float(np.log10(max(amplitude, 1e-6))), 1)


def _bind(file: Path) -> socket.socket:
    """A listening socket; the path may be longer than a socket's address."""
    make_private_folder(file.parent)
    for left in file.parent.glob("live-*.sock"):
        if not Path(f"/proc/{left.stem.removeprefix('live-')}").exists():
            left.unlink(missing_ok=True)
    file.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    folder = os.open(file.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        server.bind(f"/proc/self/fd/{folder}/{file.name}")
        file.chmod(0o600)
        server.listen(_MOST_CLIENTS)
        server.setblocking(False)
    except BaseException:
        server.close()
        raise
    finally:
        os.close(folder)
    return server
