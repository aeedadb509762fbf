"""A local socket on which a running daemon says how its machines are at this moment, and takes what people say at the page.

    live-<process id>.sock      beside the status file, for its owner alone; lines of JSON

The daemon says `machines` once a second, `scores` on connecting and then as they come, and four times a second `sound`, or `pcm`, of the
machines that a client has asked for: `{"sound": ["fan"], "listen": ["fan"], "advice": ["fan"]}`; `advice` says how well the microphone is
placed. In place of a machine a source may be named that is to be tried, `device:NAME` or `simulate:MACHINE`; `{"devices": true}` lists the
microphones. A line `{"machine": "fan", "command": {…}}` is a command as docs/mqtt.md has it (`machine` null: of all of the daemon), with
a file where one is handed over (SCM_RIGHTS); what came of it is an `answer`. One thread serves all; it is last in line for what the
hearing threads leave.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.redaction import redact_all
from asd_daemon.tell.commands import Answer, Command, CommandKind, parse_command
from asd_daemon.tell.payloads import state_payload, time_text
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.watch.live_advice import LiveAdvice
from asd_daemon.watch.live_clients import LiveClients
from asd_daemon.watch.live_sound import LiveSound, SoundPiece, SpectrogramColumns
from asd_daemon.watch.report import Reports

_LOG = logging.getLogger(__name__)
_TICK_S = 0.25
_SOON_S = 0.03
"""While somebody waits for an answer."""
_STATES_EVERY_S = 1.0
AlarmRules = Callable[[], dict[str, AlarmRule]]
Facts = Callable[[], dict[str, dict[str, Any]]]
GiveCommand = Callable[[str | None, Command, Callable[[Answer], None], BinaryIO | None], None]


class Trials(Protocol):
    """Listens to microphones that somebody tries."""

    def want(self, sources: frozenset[str]) -> None:
        """Listen to these from now on, and to no other."""

    def states(self) -> dict[str, str | None]:
        """Source → why it can't be heard; None where it is."""

    def list_devices(self, reply: Callable[[dict[str, Any]], None]) -> None:
        """Have the microphones listed."""

    def close(self) -> None:
        """Listen to none any more."""


class LiveSocket:
    """Serves it; a reporter on the running daemon.

    Args:
        folder: where the socket lies.
        sound: what the hearing threads leave.
        scores: the score log.
        rules: by which rules the machines' windows become alerts.
        give: passes a command on to a machine, None: to all of the daemon; with the file that was handed over. The answer, after which the
            file is closed, may come from any thread.
        facts: what the settings say of each machine (settings/value_words.py).
        trials: listens to microphones that somebody tries; None: nobody can, and no machine can be added.
        node: this box's name.
        version: of the program.
        bundle: name and version of what the machines are judged with.
        rollout: how far a bundle that is offered has come; None: nothing is asked for.
    """

    def __init__(
        self,
        folder: Path,
        sound: LiveSound,
        scores: ScoreLog,
        rules: AlarmRules,
        give: GiveCommand,
        *,
        node: str,
        version: str,
        facts: Facts = dict,
        bundle: Callable[[], str | None] = lambda: None,
        rollout: Callable[[], dict[str, Any] | None] = lambda: None,
        trials: Trials | None = None,
    ) -> None:
        self._trials, self._advice = trials, LiveAdvice()
        self._facts, self._bundle, self._rollout = facts, bundle, rollout
        self._file = folder / f"live-{os.getpid()}.sock"
        self._sound, self._scores, self._rules, self._give = sound, scores, rules, give
        self._about: dict[str, Any] = {"node": node, "version": version, "pid": os.getpid()}
        self._reports: Reports | None = None
        self._stop = threading.Event()
        self._answers: queue.SimpleQueue[tuple[int, dict[str, Any]]] = queue.SimpleQueue()
        self._columns: dict[str, SpectrogramColumns] = {}
        self._far_columns: dict[str, SpectrogramColumns] = {}
        self._said_s, self._says_soon, self._unanswered = float("-inf"), 0, 0
        self._thread: threading.Thread | None = None

    def start(self, reports: Reports) -> None:
        """Begin; where no socket can be made that is logged, and the daemon listens all the same."""
        self._reports = reports
        try:
            clients = LiveClients(self._file)
        except OSError as e:
            _LOG.warning("%s: can't be opened, `asd-daemon web` shows no live sound: %s", self._file, e)
            return
        self._thread = threading.Thread(target=self._run, args=(clients,), name="watch-live", daemon=True)
        self._thread.start()

    def progressed(self) -> None:
        """The thread looks by itself."""

    def close(self) -> None:
        """End, and remove the socket."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self, clients: LiveClients) -> None:
        known: frozenset[int] = frozenset()
        try:
            while not self._stop.is_set():
                for number, wish in clients.poll(_SOON_S if self._unanswered or self._says_soon else _TICK_S):
                    self._take(clients, number, wish)
                if clients.all.keys() != known:
                    known, self._said_s, self._unanswered = frozenset(clients.all), float("-inf"), 0
                self._want(clients)
                if known:
                    self._say_all(clients)
                    self._stop.wait(_TICK_S / 4)  # so that a client that writes without end can't keep it busy
        finally:
            clients.close()
            if self._trials is not None:
                self._trials.close()

    def _take(self, clients: LiveClients, number: int, wish: dict[str, Any]) -> None:
        if "command" in wish:
            machine = wish.get("machine")
            file = clients.take_file(number)
            self._command(number, None if machine is None else str(machine), wish["command"], file)
        elif "devices" in wish and self._trials is not None:
            self._trials.list_devices(lambda told: self._answers.put((number, {"kind": "devices", **told})))
        elif number in (known := clients.all):
            for kind in ("sound", "listen", "advice"):
                names = wish.get(kind)
                setattr(known[number], kind, frozenset(map(str, names)) if isinstance(names, list) else frozenset())

    def _command(self, number: int, machine: str | None, wish: object, file: BinaryIO | None) -> None:
        """Pass a command on; one that is not answered by the machine is answered here."""
        asked = wish.get("id") if isinstance(wish, dict) else None
        self._unanswered += 1

        def reply(answer: Answer) -> None:
            if file is not None:
                file.close()
            self._answers.put((number, {"kind": "answer", "id": asked, "ok": answer.ok, "text": answer.text}))

        try:
            command = parse_command(json.dumps(wish).encode())
        except ValueError as e:
            reply(Answer(False, str(e)))
            return
        if command.is_setting or command.is_upkeep:
            if command.command is not CommandKind.LOG:
                _LOG.info(
                    "%s: asked to %s", machine or "daemon", f"{command.command.value} {command.key or ''}".rstrip()
                )
            self._give(machine, command, reply, file)
        elif self._reports is None or machine is None or machine not in self._reports():
            reply(Answer(False, f"{machine} is not heard by this daemon"))
        else:
            _LOG.info("%s: asked to %s", machine, command.command.value)
            self._give(machine, command, reply, None)

    def _want(self, clients: LiveClients) -> None:
        everyone = clients.all.values()
        asked = frozenset[str]().union(*(c.advice for c in everyone))
        wanted = asked.union(*(c.sound | c.listen for c in everyone))
        self._advice.want(asked)
        if self._trials is not None:
            self._trials.want(frozenset(name for name in wanted if ":" in name))  # which no machine's name holds
        if wanted != self._columns.keys():
            self._sound.want(wanted)
            self._columns = {name: self._columns.get(name) or SpectrogramColumns() for name in wanted}
            self._far_columns = {name: known for name, known in self._far_columns.items() if name in wanted}

    def _say_all(self, clients: LiveClients) -> None:
        now_s = time.monotonic()
        while not self._answers.empty():
            number, answer = self._answers.get()
            clients.say(answer, [number])
            self._unanswered = max(0, self._unanswered - 1)
            self._says_soon = 2  # the machine's thread may be about to change its state
        if self._says_soon or now_s - self._said_s >= _STATES_EVERY_S:
            self._said_s, self._says_soon = now_s, max(0, self._says_soon - 1)
            clients.say(self._states(), clients.all)
        for number, client in clients.all.items():
            client.scores_seen, new = self._scores.recent(client.scores_seen)
            if new:
                clients.say({"kind": "scores", "scores": [_score(score) for score in new]}, [number])
        pieces: dict[str, list[SoundPiece]] = {}
        for piece in self._sound.take():
            pieces.setdefault(piece.machine, []).append(piece)
        for machine, parts in pieces.items():
            sound = np.concatenate([part.samples for part in parts])
            self._advice.hear(machine, sound)
            self._say_sound(clients, machine, sound, [part.far for part in parts if part.far is not None])
        for advice in self._advice.due():
            clients.say(advice, [n for n, c in clients.all.items() if advice["machine"] in c.advice])

    def _say_sound(self, clients: LiveClients, machine: str, samples: Any, far: list[Any]) -> None:
        looking = [n for n, c in clients.all.items() if machine in c.sound]
        if looking and len(samples) and machine in self._columns:
            made = self._columns[machine].feed(samples)
            said = {
                "kind": "sound",
                "machine": machine,
                "rms_db": _db(float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))),
                "peak_db": _db(float(np.abs(samples).max())),
                "columns": base64.b64encode(made.tobytes()).decode(),
            }
            if far:
                made = self._far_columns.setdefault(machine, SpectrogramColumns()).feed(np.concatenate(far))
                said["far_columns"] = base64.b64encode(made.tobytes()).decode()
            clients.say(said, looking)
        listening = [n for n, c in clients.all.items() if machine in c.listen]
        if listening:
            whole = (np.clip(np.nan_to_num(samples), -1, 1) * 32_767).astype("<i2")
            pcm = base64.b64encode(whole.tobytes()).decode()
            clients.say({"kind": "pcm", "machine": machine, "pcm": pcm}, listening)

    def _states(self) -> dict[str, Any]:
        rules, facts = self._rules(), self._facts()
        machines = {}
        for name, report in (self._reports() if self._reports else {}).items():
            state = state_payload(self._about["node"], name, report.state)
            ago_s = self._sound.heard_ago_s(name)
            machines[name] = {
                **{k: v for k, v in state.items() if k not in ("schema", "node", "machine")},
                "counts": asdict(report.counts),
                "learning": report.learning and asdict(report.learning),
                **facts.get(name, {"title": None, "budget": None, "notify": None, "chosen": {}}),
                "rule": asdict(rules[name]) if name in rules else None,
                "heard_ago_s": None if ago_s is None else round(ago_s, 1),
            }
        redacted: dict[str, Any] = redact_all(
            {
                "kind": "machines",
                **self._about,
                "bundle": self._bundle(),
                "rollout": self._rollout(),
                "machines": machines,
                "adds": self._trials is not None,
                "trials": {} if self._trials is None else self._trials.states(),
            }
        )
        return redacted


def _score(logged: LoggedScore) -> Sequence[object]:
    return logged.machine, time_text(logged.at), logged.score, logged.threshold, logged.unfit


def _db(amplitude: float) -> float:
    return round(20 * float(np.log10(max(amplitude, 1e-6))), 1)
