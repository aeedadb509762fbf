"""Do the alerts of a thousand boxes arrive while nodes of a broker cluster die, are cut off and come back?

    PYTHONPATH=tests python -m soak.cluster [--only nats] [--boxes 1000] [--seconds 360] [--window 1.0]

Three nodes of NATS, then of RabbitMQ, each in a network namespace, with the configuration of deploy/fleet/brokers. The boxes know one name
with three addresses. Most are the daemon's own publisher in a few processes (soak.cluster_player), some are daemons that hear simulated
machines. The second node is killed and returns, then the third is cut off and returns. Two listeners hear the alerts: one at the first
node, which nothing happens to, and one with a session that lasts. Prints one JSON object a broker; 1 where an alert has reached neither,
or is unconfirmed. Needs the right to make namespaces.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rig.broker import PASSWORD
from rig.broker_clusters import NODES, PORT, NatsCluster, RabbitMqCluster
from rig.daemon import PROGRAM, ask, daemon_environment
from rig.namespaces import Plant, missing
from rig.other_brokers import USER, nats, rabbitmq
from rig.waiting import PATIENT_S, wait_until
from soak.cluster_listener import Listening
from soak.cluster_player import MACHINE, Play, node_name
from soak.cluster_report import CUT_OFF, KILL, MEND, RETURN, Course, Found, Record, judge

NAME = "broker.plant"
CLUSTERS = {"nats": (nats, NatsCluster), "rabbitmq": (rabbitmq, RabbitMqCluster)}
_WAIT = threading.Event()  # never set
_SURVIVES, _KILLED, _CUT = NODES


@contextmanager
def inside(
    plant: Plant, log: Path, *words: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A program at the switch; killed at the end where it has not ended."""
    with log.open("a") as out:
        process = subprocess.Popen(
            [*plant.at(plant.switch), *words],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            text=True,
            env=environment or {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENT_S)
        assert process.stdin is not None
        process.stdin.close()


def ordeal(broker: str, course: Course, folder: Path) -> Found:
    """One cluster."""
    began_s = time.monotonic()
    with ExitStack() as stack:
        plant = stack.enter_context(Plant(NODES, NAME))
        cluster = stack.enter_context(CLUSTERS[broker][1](folder, plant))
        memory = {node: [cluster.memory_mb(node)] for node in NODES}
        heard = {
            "survivor": listening(folder, "survivor", [_SURVIVES]),
            "session": listening(folder, "session", [_KILLED, _CUT, _SURVIVES], topics=["asd/+/+/alert"], lasts=True),
        }
        listeners = [
            stack.enter_context(
                inside(plant, folder / f"{name}.log", *_module("cluster_listener", folder / f"{name}.plan"))
            )
            for name in heard
        ]
        plays = _plays(course, folder)
        players = [
            stack.enter_context(
                inside(plant, folder / "players.log", *_module("cluster_player", folder / f"play-{i}.plan"))
            )
            for i in range(len(plays))
        ]
        daemons = [stack.enter_context(_daemon(plant, folder, number, course)) for number in range(course.daemons)]
        wait_until(lambda: all(Path(play.ready).exists() for play in plays), "the players have made their boxes")
        begins_s = time.time() + 0.5
        for player in players:
            assert player.stdin is not None
            player.stdin.write(f"{begins_s}\n")
            player.stdin.flush()
        windows_s = begins_s + course.ramp_s
        _until(windows_s + 0.1 * course.seconds)
        for node in NODES:
            memory[node].append(cluster.memory_mb(node))
        if course.faults:
            for part, act in (
                (KILL, partial(cluster.kill, _KILLED)),
                (RETURN, partial(cluster.start, _KILLED)),
                (CUT_OFF, partial(plant.cut, _CUT)),
                (MEND, partial(plant.mend, _CUT)),
            ):
                _until(windows_s + part * course.seconds)
                act()
                _say(f"{broker}: {part:g} of the course")
        for player in players:
            code = player.wait(course.ramp_s + course.seconds + course.patience_s + PATIENT_S)
            assert code == 0, f"a player has failed: see {folder}/players.log"
        for daemon in daemons:
            daemon.terminate()
            daemon.wait(PATIENT_S)
        for node in NODES:
            memory[node].append(cluster.memory_mb(node))
        states = {f"asd/{node_name(number)}/{MACHINE}/state" for number in range(course.boxes)}
        kept = _retained(plant, folder, sorted(states))
        _WAIT.wait(2.0)
        for listener in listeners:
            assert listener.stdin is not None
            listener.stdin.close()
            listener.wait(PATIENT_S)
    return judge(
        Record(
            broker=broker,
            windows_s=windows_s,
            plays=plays,
            heard={name: json.loads(Path(plan.report).read_text()) for name, plan in heard.items()},
            kept=kept,
            daemons_alerts=[alert for number in range(course.daemons) for alert in _alerts_of(folder, number)],
            node_mb=memory,
            seconds=round(time.monotonic() - began_s, 1),
        ),
        course,
    )


def listening(
    folder: Path,
    name: str,
    hosts: Sequence[str],
    topics: Sequence[str] = ("asd/+/+/alert", "asd/+/+/score"),
    *,
    lasts: bool = False,
    exact: bool = False,
) -> Listening:
    """The plan of a listener, written down for it."""
    plan = Listening(
        tuple(hosts), PASSWORD, f"listener-{name}", tuple(topics), lasts, exact, str(folder / f"{name}.heard")
    )
    plan.save(folder / f"{name}.plan")
    return plan


def _plays(course: Course, folder: Path) -> list[Play]:
    """The boxes in equal parts, one a process."""
    edges = [course.boxes * part // course.players for part in range(course.players + 1)]
    plays = []
    for number, (first, end) in enumerate(itertools.pairwise(edges)):
        play = Play(
            first=first,
            boxes=end - first,
            hosts=(NAME,),
            password=PASSWORD,
            ramp_s=course.ramp_s,
            seconds=course.seconds,
            window_s=course.window_s,
            alerts=course.alerts,
            patience_s=course.patience_s,
            told=str(folder / f"told-{number}"),
            report=str(folder / f"played-{number}"),
            ready=str(folder / f"ready-{number}"),
        )
        play.save(folder / f"play-{number}.plan")
        plays.append(play)
    return plays


def _module(name: str, plan: Path) -> list[str]:
    return [sys.executable, "-m", f"soak.{name}", str(plan)]


@contextmanager
def _daemon(plant: Plant, folder: Path, number: int, course: Course) -> Iterator[subprocess.Popen[str]]:
    """A daemon whose machine fails while one node or the other is away, and is repaired."""
    home = folder / f"real-{number}"
    home.mkdir()
    (home / "password").write_text(PASSWORD)
    speed = 10.0 / course.window_s
    part = (KILL, CUT_OFF)[number % 2] - 0.03
    fails_s = (course.ramp_s + part * course.seconds) * speed
    fault = f"fail=rubbing&fail_after={fails_s:g}&repair_after={fails_s + 90:g}"
    content = {
        "node": f"real-{number}",
        "machines": {MACHINE: {"source": {"simulate": f"fan?{fault}&speed={speed:g}"}}},
        "mqtt": {"host": NAME, "port": PORT, "username": USER, "password_file": str(home / "password")},
    }
    (home / "c.json").write_text(json.dumps(content))
    words = [*PROGRAM, "run", "--wait-for-device", "--config", str(home / "c.json")]
    with inside(plant, folder / f"real-{number}.log", *words, environment=daemon_environment(home)) as process:
        yield process


def _alerts_of(folder: Path, number: int) -> list[dict[str, Any]]:
    """What a daemon knows that it has told."""
    home = folder / f"real-{number}"
    done = ask("alerts", "list", "--json", home=home)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _retained(plant: Plant, folder: Path, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """What each node gives to whoever asks for these topics, each by its name."""
    plans = {node: listening(folder, f"retained-{node}", [node], topics, exact=True) for node in NODES}
    with ExitStack() as stack:
        for node in NODES:
            name = f"retained-{node}"
            words = _module("cluster_listener", folder / f"{name}.plan")
            stack.callback(stack.enter_context(inside(plant, folder / f"{name}.log", *words)).wait, PATIENT_S)
    return {node: dict(json.loads(Path(plan.report).read_text())["retained"]) for node, plan in plans.items()}


def _until(at_s: float) -> None:
    _WAIT.wait(max(0.0, at_s - time.time()))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def lacking(broker: str) -> str | None:
    """Why it can't be done here; None where it can."""
    return missing() or (None if CLUSTERS[broker][0]() is not None else f"{broker} is not installed")


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Course()
    parser.add_argument("--only", choices=list(CLUSTERS), help="one broker alone")
    parser.add_argument("--boxes", type=int, default=usual.boxes, help="%(default)s")
    parser.add_argument("--daemons", type=int, default=usual.daemons, help="%(default)s")
    parser.add_argument("--players", type=int, default=usual.players, help="processes that play boxes; %(default)s")
    parser.add_argument("--ramp", type=float, default=usual.ramp_s, help="seconds in which boxes come; %(default)s")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="%(default)s")
    parser.add_argument("--window", type=float, default=usual.window_s, help="seconds between windows; %(default)s")
    parser.add_argument("--alerts", type=float, default=usual.alerts, help="a box; %(default)s")
    parser.add_argument("--no-faults", action="store_true", help="leave the nodes alone")
    parser.add_argument("--keep", type=Path, help="leave logs and reports in this folder")
    words = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    course = Course(
        words.boxes,
        words.daemons,
        words.players,
        words.ramp,
        words.seconds,
        words.window,
        words.alerts,
        faults=not words.no_faults,
    )
    well = True
    for broker in CLUSTERS:
        if words.only not in (None, broker):
            continue
        if (why := lacking(broker)) is not None:
            sys.stderr.write(f"{broker}: left out: {why}\n")
            continue
        with tempfile.TemporaryDirectory(prefix="asd-cluster-") as name:
            folder = Path(name) if words.keep is None else words.keep / broker
            folder.mkdir(parents=True, exist_ok=True)
            found = ordeal(broker, course, folder)
        sys.stdout.write(json.dumps({**asdict(found), "well": found.well}) + "\n")
        sys.stdout.flush()
        well = well and found.well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
