"""A box that ran version 0.1, with an alert that is open and waits for its broker, goes on with this version on the same state folder."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import soundfile

from rig import earlier_version
from rig.broker import HOST, Broker, Subscriber, free_port, mosquitto
from rig.daemon import RunningDaemon, ask
from rig.waiting import wait_until

LACKING = earlier_version.missing() or ("mosquitto is not installed" if mosquitto() is None else None)
pytestmark = [pytest.mark.broker, pytest.mark.skipif(LACKING is not None, reason=str(LACKING))]


def configured(home: Path, port: int, sound: str) -> Path:
    """One machine of a box, some twenty times as fast as the clock."""
    file = home / f"{sound.replace('&', '-')}.json"
    content = {
        "node": "box",
        "machines": {
            "press": {
                "source": {"simulate": f"fan?seed=4&speed=20{sound}"},
                "alarm": {"close_after": 2, "cool_down_s": 0},
            }
        },
        "mqtt": {"host": HOST, "port": port},
        "keep": {"scores_every_s": 1},
    }
    file.write_text(json.dumps(content))
    return file


def waiting(state: Path) -> list[str]:
    """Kinds of the alerts that wait for the broker, in order."""
    with closing(sqlite3.connect(state / "alerts.sqlite")) as database:
        return [kind for (kind,) in database.execute("select kind from waiting order by key")]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What version 0.1 leaves: a learned machine that failed while no broker was there."""
    home = tmp_path_factory.mktemp("box")
    source = earlier_version.earlier_source(tmp_path_factory.mktemp("earlier"))
    earlier = {"more": {"PYTHONPATH": str(source / "daemon")}, "program": earlier_version.PROGRAM}
    learn = ["--machine", "press", "--source", "simulate:fan?seed=4&speed=100", "--minutes", "4"]
    done = ask("enroll", *learn, home=home, **earlier)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    file = configured(home, free_port(), "&fail=rubbing&fail_after=60")
    with RunningDaemon("run", "--config", file, home=home, **earlier) as daemon:  # type: ignore[arg-type]
        wait_until(lambda: any("press: alert open" in line for line in daemon.log), "0.1 opens an alert")
        wait_until(lambda: any((home / "state" / "clips").rglob("*.flac")), "0.1 has written its sound")
        assert daemon.stop() == 0, daemon.log
    assert waiting(home / "state")[0] == "open"
    return home


def test_open_alert_arrives_with_its_sound_is_listed_and_closes_and_the_machine_is_judged(
    box: Path, tmp_path: Path
) -> None:
    state = box / "state"
    assert not (state / "history.sqlite").exists(), "0.1 knew no history"
    with Broker(tmp_path / "broker") as broker, Subscriber(broker.port) as heard:
        file = configured(box, broker.port, "")
        with RunningDaemon("run", "--config", file, home=box) as daemon:
            opened = heard.wait_for(lambda m: m.topic.endswith("/alert") and m.payload["kind"] == "open").payload
            closed = heard.wait_for(lambda m: m.topic.endswith("/alert") and m.payload["kind"] == "close").payload
            heard.wait_for(lambda m: m.topic.endswith("/score") and m.payload["score"] <= m.payload["threshold"])
            assert daemon.stop() == 0, daemon.log
    assert waiting(state) == []
    assert closed["event_id"] == opened["event_id"]
    assert closed["outcome"] == "normal"
    assert closed["clip"] == opened["clip"]
    assert soundfile.info(state / opened["clip"]).duration > 10
    (kept,) = [json.loads(line) for line in ask("alerts", "list", "--json", home=box).stdout.splitlines()]
    assert (kept["event_id"], kept["clip"]) == (opened["event_id"], opened["clip"])
    with closing(sqlite3.connect(state / "history.sqlite")) as database:
        ((first, latest),) = database.execute("select opened, latest from event").fetchall()
    assert json.loads(first)["clip"] == opened["clip"], "the page plays it"
    assert json.loads(latest)["outcome"] == "normal"


def test_scores_of_both_versions_are_one_history(box: Path) -> None:
    done = ask("replay", "--machine", "press", "--json", home=box)
    *events, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert summary["windows"] > 9, "of 0.1 and of this version"
    assert next(event["kind"] for event in events) == "open"


def test_what_was_learned_is_judged_and_can_be_taken_elsewhere(box: Path, tmp_path: Path) -> None:
    checked = ask("check", "--machine", "press", "--source", "simulate:fan?seed=4&speed=max", "--no-mqtt", home=box)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "press: judged without heard" in checked.stdout + checked.stderr, "that embedder is gone"
    exported = ask("machines", "export", "press", tmp_path / "press.zip", home=box)
    assert exported.returncode == 0, exported.stderr
    taken = ask("machines", "import", tmp_path / "press.zip", "--as", "other", home=tmp_path)
    assert taken.returncode == 0, taken.stderr
    assert "from 24 windows" in taken.stdout
