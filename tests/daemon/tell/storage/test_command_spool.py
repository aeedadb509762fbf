"""Commands left in the state folder, and their answers."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from asd_daemon.tell.commands import Answer, Command, CommandKind
from asd_daemon.tell.storage.command_spool import CommandSpool

NORMAL = Command(command=CommandKind.NORMAL, event_id="e")


def test_commands_are_taken_once_in_their_order_and_only_ones_own(tmp_path: Path) -> None:
    spool = CommandSpool(tmp_path)
    first, other = spool.put("fan", NORMAL), spool.put("mill", NORMAL)
    second = spool.put("fan", Command(command=CommandKind.FAULT, event_id="e", name="bearing"))
    taken = spool.take(["fan", "pump"])
    assert [(machine, name) for machine, name, _ in taken] == [("fan", first), ("fan", second)]
    assert taken[0][2] == NORMAL
    assert spool.take(["fan"]) == []
    assert [name for _, name, _ in spool.take(["mill"])] == [other]


def test_what_is_no_command_is_taken_away_and_says_why(tmp_path: Path) -> None:
    spool = CommandSpool(tmp_path)
    name = spool.put("fan", NORMAL)
    (tmp_path / "fan" / f"{name}.json").write_text('{"command": "explode"}')
    ((_, _, why),) = spool.take(["fan"])
    assert isinstance(why, str)
    assert why.startswith("command:")
    assert spool.take(["fan"]) == []


def test_the_answer_reaches_whoever_waits_and_is_taken_away(tmp_path: Path) -> None:
    spool = CommandSpool(tmp_path)
    name = spool.put("fan", NORMAL)
    answering = threading.Thread(target=spool.answer, args=("fan", name, Answer(False, "why")))
    answering.start()
    assert spool.wait("fan", name, 30, look_every_s=0.01) == Answer(False, "why")
    answering.join()
    assert not list((tmp_path / "fan").glob("*.answer"))


def test_no_answer_in_time_is_none(tmp_path: Path) -> None:
    assert CommandSpool(tmp_path).wait("fan", "x", 0) is None


def test_answers_that_nobody_took_away_go_after_an_hour(tmp_path: Path) -> None:
    spool = CommandSpool(tmp_path)
    name = spool.put("fan", NORMAL)
    spool.take(["fan"])
    spool.answer("fan", name, Answer(True, "done"))
    spool.take(["fan"])
    (left,) = (tmp_path / "fan").iterdir()
    os.utime(left, (1, 1))
    spool.take(["fan"])
    assert not left.exists()
