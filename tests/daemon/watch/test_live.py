"""Live sound and the socket on which the daemon says how it is: what is said, to whom, and that nobody can hold it up."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from asd_daemon.hear.source import SourceHealth
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.tell.commands import Answer, Command, CommandKind
from asd_daemon.tell.payloads import Condition, MachineState
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.live_socket import LiveSocket
from asd_daemon.watch.live_sound import BANDS, COLUMN_SAMPLES, LiveSound, SpectrogramColumns, columns
from asd_daemon.watch.report import MachineReport
from rig.waiting import PATIENT_S, wait_until

RATE = 16_000
AT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def tone(hz: float, seconds: float = 1.0, amplitude: float = 0.5) -> Any:
    return (amplitude * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def test_a_tone_is_bright_in_its_band_alone_and_its_level_is_that_of_the_scale() -> None:
    hz = 10 * RATE / COLUMN_SAMPLES  # the middle of a bin, in a band that is one bin wide
    made = columns(tone(hz, 16 * COLUMN_SAMPLES / RATE, 0.05).reshape(16, COLUMN_SAMPLES))
    mel = 1127 * np.log1p(np.array([40.0, hz, 8000.0]) / 700)
    band = int((mel[1] - mel[0]) / (mel[2] - mel[0]) * BANDS)
    assert made.shape == (16, BANDS)
    assert abs(int(np.argmax(made[8])) - band) <= 6  # at low frequencies bands are widened to a bin
    loudest_db = made[8].max() / 255 * 100 - 110
    assert -5 < loudest_db - 20 * np.log10(0.05) < 0.5  # a band has the mean power of its bins
    assert made[8, -1] < 60


def test_columns_do_not_depend_on_how_the_sound_is_cut() -> None:
    sound = np.random.default_rng(1).normal(0, 0.1, 20_000).astype(np.float32)
    cut = SpectrogramColumns()
    pieces = [cut.feed(sound[i : i + 777]) for i in range(0, len(sound), 777)]
    np.testing.assert_array_equal(np.concatenate(pieces), SpectrogramColumns().feed(sound))


def test_only_what_is_wanted_is_taken_and_never_more_than_a_minute() -> None:
    sound = LiveSound()
    sound.hear("fan", tone(100))
    assert sound.take() == []
    assert (sound.heard_ago_s("fan") or 0.0) < PATIENT_S
    assert sound.heard_ago_s("pump") is None
    sound.want({"pump"})
    for _ in range(100):
        sound.hear("pump", tone(100))
        sound.hear("fan", tone(100))
    assert {piece.machine for piece in sound.take()} == {"pump"}
    for _ in range(100):
        sound.hear("pump", tone(100))
    assert sum(len(piece.samples) for piece in sound.take()) == 60 * RATE


class _Reader:
    """A client of the socket."""

    def __init__(self, file: Path) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(PATIENT_S)
        self.connection.connect(str(file))
        self._lines = self.connection.makefile("r", encoding="utf-8")

    def ask(self, **wish: list[str]) -> None:
        self.connection.sendall(json.dumps(wish).encode() + b"\n")

    def next(self, kind: str) -> dict[str, Any]:
        while True:
            said: dict[str, Any] = json.loads(self._lines.readline())
            if said["kind"] == kind:
                return said

    def close(self) -> None:
        self._lines.close()
        self.connection.close()


Give = Callable[[str | None, Command, Callable[[Answer], None], BinaryIO | None], None]


def ignore(machine: str | None, command: Command, reply: Callable[[Answer], None], file: BinaryIO | None) -> None:
    raise AssertionError(f"{machine} was asked to {command}")


@contextmanager
def serving(folder: Path, sound: LiveSound, given: Give = ignore) -> Iterator[tuple[Path, ScoreLog]]:
    scores = ScoreLog(folder / "scores.sqlite", every_s=3600, days=1)
    live = LiveSocket(
        folder / "status", sound, scores, lambda: {"fan": AlarmRule(open_after=3)}, given, node="line-3", version="1"
    )
    state = MachineState(Condition.NORMAL, AT, score=0.5, threshold=1.0, reason="rtsp://user:hunter2@camera")
    live.start(lambda: {"fan": MachineReport(state, Counts(heard=7), SourceHealth())})
    try:
        yield folder / "status" / f"live-{os.getpid()}.sock", scores
    finally:
        live.close()
        scores.close()


def test_states_scores_and_sound_are_said_to_who_asks_and_secrets_to_nobody(tmp_path: Path) -> None:
    sound = LiveSound()
    with serving(tmp_path, sound) as (file, scores):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        scores.add(LoggedScore("fan", AT, 0.5, 1.0))
        reader = _Reader(file)
        machines = reader.next("machines")
        assert machines["node"] == "line-3"
        fan = machines["machines"]["fan"]
        assert (fan["state"], fan["listening"], fan["score"], fan["counts"]["heard"]) == ("normal", True, 0.5, 7)
        assert (fan["rule"]["open_after"], fan["heard_ago_s"]) == (3, None)
        assert "hunter2" not in json.dumps(machines)
        assert reader.next("scores")["scores"] == [["fan", "2026-01-31T12:00:00.000Z", 0.5, 1.0, None]]
        reader.ask(sound=["fan"], listen=["fan"])
        block = tone(1000, 2048 / RATE)

        def pieces_come() -> bool:
            sound.hear("fan", block)
            return bool(sound._wanted)

        wait_until(pieces_come, "the sound is wanted")
        said = reader.next("sound")
        assert abs(said["rms_db"] - 20 * np.log10(0.5 / np.sqrt(2))) < 0.2
        assert abs(said["peak_db"] - 20 * np.log10(0.5)) < 0.2
        assert len(base64.b64decode(said["columns"])) % (2 * BANDS) == 0
        heard = np.frombuffer(base64.b64decode(reader.next("pcm")["pcm"]), "<i2")
        np.testing.assert_allclose(heard[:2048] / 32_767, block, atol=1e-4)
        assert "far_columns" not in said
        sound.hear("fan", block, tone(3000, 2048 / RATE, 0.05))
        while "far_columns" not in said:
            said = reader.next("sound")
        near, far = (
            np.frombuffer(base64.b64decode(said[key]), np.uint8).reshape(-1, BANDS)
            for key in ("columns", "far_columns")
        )
        assert len(far) == 2
        assert int(far.mean(axis=0).argmax()) > int(near.mean(axis=0).argmax()), "it hears something else"
        reader.close()
        wait_until(lambda: not sound._wanted, "nobody wants the sound any more")
    assert not file.exists()


def test_a_reader_that_does_not_read_is_cut_off_and_others_go_on(tmp_path: Path) -> None:
    sound = LiveSound()
    with serving(tmp_path, sound) as (file, _):
        slow, quick = _Reader(file), _Reader(file)
        slow.ask(listen=["fan"])
        wait_until(lambda: bool(sound._wanted), "the sound is wanted")

        def cut_off() -> bool:
            sound.hear("fan", np.zeros(10 * RATE, np.float32))
            return not sound._wanted

        wait_until(cut_off, "the slow reader is cut off")
        assert quick.next("machines")["machines"]["fan"]["state"] == "normal"
        slow.close()
        quick.close()


def test_nonsense_is_cut_off_and_left_sockets_are_removed(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    left = tmp_path / "status" / "live-999999999.sock"
    left.touch()
    with serving(tmp_path, LiveSound()) as (file, _):
        assert not left.exists()
        reader = _Reader(file)
        reader.connection.sendall(b"[1, 2]\n")
        wait_until(lambda: _is_closed(reader.connection), "it is cut off")
        reader.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(65_536) == b""
    except ConnectionResetError:
        return True


def test_a_socket_that_cannot_be_made_costs_the_view_alone(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("a file where the folder should be")
    with serving(tmp_path, LiveSound()) as (file, scores):
        assert not file.exists()
        scores.add(LoggedScore("fan", AT, 0.5, 1.0))


def test_commands_are_passed_on_and_answered_and_others_are_refused_in_words(tmp_path: Path) -> None:
    asked: list[tuple[str | None, Command]] = []

    def give(machine: str | None, command: Command, reply: Callable[[Answer], None], file: BinaryIO | None) -> None:
        asked.append((machine, command))
        words = "3 windows are taken for normal" if command.is_word else "no alert is told for 60 minutes"
        threading.Thread(target=reply, args=(Answer(True, words),)).start()

    with serving(tmp_path, LiveSound(), give) as (file, _):
        reader, other = _Reader(file), _Reader(file)

        def answer(machine: str, **wish: object) -> tuple[bool, str]:
            reader.connection.sendall(json.dumps({"machine": machine, "command": wish}).encode() + b"\n")
            said = reader.next("answer")
            assert said["id"] == wish.get("id")
            return said["ok"], said["text"]

        assert answer("fan", command="normal", event_id="e", id="1") == (True, "3 windows are taken for normal")
        assert answer("fan", command="mute", minutes=60, id="2") == (True, "no alert is told for 60 minutes")
        assert [(machine, c.command, c.minutes) for machine, c in asked] == [
            ("fan", CommandKind.NORMAL, 60.0),
            ("fan", CommandKind.MUTE, 60.0),
        ]
        assert answer("pump", command="mute") == (False, "pump is not heard by this daemon")
        assert answer("fan", command="explode")[0] is False
        assert "a fault needs a name" in answer("fan", command="fault", event_id="e")[1]
        assert len(asked) == 2
        assert other.next("machines")["machines"]  # and hears of no answer that is another's
        reader.close()
        other.close()
