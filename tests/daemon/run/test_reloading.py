"""A running daemon whose configuration changes: what goes on without a gap, what begins anew, what is refused, what waits for a restart."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.run.machine_alerts import AlertRules
from asd_daemon.run.machine_monitor import MachineMonitor, MonitorCallbacks
from asd_daemon.run.machine_rules import MachineRules
from asd_daemon.run.machine_threshold import ThresholdRule
from asd_daemon.run.service import Service
from asd_daemon.watch.systemd import SystemdNotifier
from rig.broker import HOST, Broker, Subscriber, free_port, mosquitto
from rig.daemon import PROGRAM, RunningDaemon, ask, daemon_environment
from rig.scripted_sound import EndlessSource, LoudnessJudge, RememberingTeller, window
from rig.waiting import PATIENT_S, is_over, wait_until

needs_broker = pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
RULE = AlarmRule(open_after=2, of=3, close_after=2, update_every_s=0)


def simulated(machine: str = "fan", **more: Any) -> dict[str, Any]:
    words = "&".join(f"{key}={value}" for key, value in more.items())
    return {"source": {"simulate": f"{machine}?{words}" if words else machine}}


class Configured:
    """A daemon and the file that it was started with."""

    def __init__(self, home: Path, daemon: RunningDaemon) -> None:
        self.home, self.daemon, self.file = home, daemon, home / "asd.yaml"

    def reload(self, content: dict[str, Any] | str, *words: str) -> None:
        """Write another configuration, have it read, and wait until the log says all the words."""
        before = len(self.daemon.log)
        self.file.write_text(content if isinstance(content, str) else json.dumps(content))
        self.daemon.process.send_signal(signal.SIGHUP)
        for said in words:
            wait_until(lambda said=said: any(said in line for line in self.daemon.log[before:]), said)  # type: ignore[misc]

    def status(self) -> Any:
        (one,) = json.loads(ask("status", "--json", home=self.home).stdout)
        return one

    def scores(self, machine: str) -> list[Any]:
        told = [json.loads(line) for line in list(self.daemon.lines)]
        return [one for one in told if one["topic"] == "score" and one["machine"] == machine]


@contextmanager
def running(home: Path, content: dict[str, Any], *words: str) -> Iterator[Configured]:
    (home / "asd.yaml").write_text(json.dumps(content))
    with RunningDaemon("run", "--config", home / "asd.yaml", *words, home=home) as daemon:
        wait_until(lambda: any("listening to" in line for line in daemon.log), "it listens")
        yield Configured(home, daemon)


class Pair:
    """A service of two machines in memory."""

    def __init__(self) -> None:
        self.publisher = RememberingTeller()
        self.sources = {"fan": EndlessSource(), "mill": EndlessSource()}
        self.service = Service(self.publisher, SystemdNotifier({}), lambda told: self.made(["fan", "mill"], told))
        self.runner = threading.Thread(target=self.service.run)

    def made(self, names: Sequence[str], callbacks: MonitorCallbacks) -> list[MachineMonitor]:
        return [
            MachineMonitor(name, self.sources[name], LoudnessJudge, self.publisher, callbacks, rule=RULE)
            for name in names
        ]

    def __enter__(self) -> Pair:
        self.runner.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.service.stop("test")
        self.runner.join(PATIENT_S)
        assert not self.runner.is_alive()

    def reload(self, work: Callable[[], None]) -> None:
        """Do something in the service's thread, as a reload does, and wait for it."""
        done = threading.Event()

        def reload() -> None:
            work()
            done.set()

        self.service.on_reload = reload
        self.service.reload()
        assert done.wait(PATIENT_S)


def test_monitor_that_is_exchanged_does_not_end_the_service_and_leaves_the_other_alone() -> None:
    with Pair() as pair:
        pair.sources["mill"].words.put(window(0.1))
        assert pair.publisher.wait_scores(1)
        kept = next(monitor for monitor in pair.service.monitors if monitor.machine == "mill")
        pair.sources["fan"] = EndlessSource()
        pair.reload(lambda: pair.service.exchange_monitors(("fan",), ("fan",), lambda told: pair.made(["fan"], told)))
        assert kept in pair.service.monitors
        pair.sources["mill"].words.put(window(0.2))
        pair.sources["fan"].words.put(window(0.3))
        assert pair.publisher.wait_scores(3)
        assert sorted(pair.publisher.scores) == [0.1, 0.2, 0.3]
        assert [state for name, state, _ in pair.publisher.states if name == "fan"][:3] == [
            "starting",
            "stopped",
            "starting",
        ]
        pair.reload(lambda: pair.service.exchange_monitors(("fan",), (), lambda _: []))
        assert [monitor.machine for monitor in pair.service.monitors] == ["mill"]
        assert pair.service.counts.heard == 3, "what is gone is counted still"


def test_threshold_changes_between_two_windows_with_the_alert_that_is_open() -> None:
    with Pair() as pair:
        fan = pair.sources["fan"].words
        for number, level in enumerate((0.9, 0.9), start=1):
            fan.put(window(level))
            assert pair.publisher.wait_scores(number)
        wait_until(lambda: len(pair.publisher.alerts) == 1, "the alert opens")
        monitor = next(monitor for monitor in pair.service.monitors if monitor.machine == "fan")
        monitor.change_rules(MachineRules(AlertRules(RULE, threshold=ThresholdRule(fixed=0.95))))
        for number, level in enumerate((0.9, 0.9, 0.9), start=3):
            fan.put(window(level))
            assert pair.publisher.wait_scores(number)
        wait_until(lambda: len(pair.publisher.alerts) == 2, "the alert closes")
    (_, opened), (_, closed) = pair.publisher.alerts
    assert (opened.event_id, opened.threshold) == (closed.event_id, 0.5)
    assert (closed.kind.value, closed.threshold) == ("close", 0.95)


def test_machine_that_does_not_change_misses_no_window_while_others_come_go_and_change(tmp_path: Path) -> None:
    """Twenty windows are simulated, and twenty are judged, whatever is configured in the meantime."""
    steady = simulated(speed=10, seconds=200)
    begin: dict[str, Any] = {"machines": {"steady": steady, "fan": {**simulated(speed=1), "model": "fan"}}}
    begin["machines"]["steady"] = {**steady, "model": "fan"}
    with running(tmp_path, begin, "--no-mqtt") as configured:
        for step in range(6):
            machines: dict[str, Any] = {"steady": begin["machines"]["steady"]}
            machines["fan"] = {**begin["machines"]["fan"], "alarm": {"threshold": 1 + step}}
            if step % 2:
                machines["slider"] = simulated("slider", speed=1)
            configured.reload({"machines": machines}, "fan: alarm.threshold")
        configured.reload({"machines": {"steady": machines["steady"]}}, "fan: is heard no more")
        assert configured.daemon.wait() == 0
        scores = configured.scores("steady")
        assert len(scores) == 20
        with sqlite3.connect(tmp_path / "state" / "scores.sqlite") as database:
            ((kept,),) = database.execute(
                "select count(*) from score join machine on machine.number = score.machine"
                " where name = 'steady' and score is not null"
            ).fetchall()
        assert kept == 20
        assert "0 dropped" in configured.daemon.log[-1]
        assert not any("Traceback" in line for line in configured.daemon.log)


def test_configuration_that_is_broken_is_refused_and_the_old_one_goes_on_until_it_is_mended(tmp_path: Path) -> None:
    good = {"machines": {"fan": simulated(speed=10)}}
    with running(tmp_path, good, "--no-mqtt") as configured:
        configured.reload({"machines": {"fan": {"alarm": {"threshold": -1}}}}, "alarm.threshold", "got -1")
        wait_until(lambda: configured.status()["machines"]["fan"]["troubles"] != [], "the status says it")
        status = configured.status()
        assert not status["well"]
        assert status["machines"]["fan"]["state"] in ("normal", "starting")
        assert "asd.yaml:1: machines.fan.alarm.threshold" in status["machines"]["fan"]["troubles"][0]
        heard = len(configured.scores("fan"))
        wait_until(lambda: len(configured.scores("fan")) > heard + 1, "windows go on")
        configured.reload("machines: [", "is no YAML")
        configured.reload({"machines": {}}, "configures none")
        configured.file.unlink()
        configured.daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("can't be read: No such file" in line for line in configured.daemon.log), "it says so")
        configured.reload(good, "nothing that could be taken on has changed")
        wait_until(lambda: configured.status()["machines"]["fan"]["troubles"] == [], "all is well again")
        assert configured.daemon.stop() == 0


def test_source_that_cannot_be_used_is_refused_and_nothing_of_that_configuration_is_taken_on(tmp_path: Path) -> None:
    good = {"machines": {"fan": simulated(speed=10)}}
    with running(tmp_path, good, "--no-mqtt") as configured:
        missing = {"source": {"file": str(tmp_path / "no.wav")}}
        changed = {"machines": {"fan": {**simulated(speed=10), "alarm": {"threshold": 7}}, "saw": missing}}
        configured.reload(changed, "the configuration is refused", "asd.yaml: machines.saw.source: ", "no.wav")
        heard = len(configured.scores("fan"))
        wait_until(lambda: len(configured.scores("fan")) > heard + 1, "windows go on")
        assert configured.scores("fan")[-1]["threshold"] != 7
        assert ask("machines", "rename", "saw", "axe", home=tmp_path).returncode == 2, "nothing holds its lock"
        configured.reload(good, "nothing that could be taken on has changed")


def test_machine_that_another_daemon_hears_is_refused(tmp_path: Path) -> None:
    good = {"machines": {"fan": simulated(speed=1)}}
    with (
        running(tmp_path, good, "--no-mqtt") as configured,
        RunningDaemon("run", "--no-mqtt", "--machine", "slider", "--source", "simulate:slider", home=tmp_path) as other,
    ):
        wait_until(lambda: any("listening to" in line for line in other.log), "the other one listens")
        both = {"machines": {**good["machines"], "slider": simulated("slider")}}
        configured.reload(both, "machine slider is heard by another daemon")
        other.stop()
        configured.reload(both, "listening to fan, slider")


def test_what_needs_a_restart_is_said_in_log_and_status_and_no_more_when_it_is_taken_back(tmp_path: Path) -> None:
    good = {"machines": {"fan": simulated(speed=10), "slider": simulated("slider", speed=1)}}
    with running(tmp_path, good, "--no-mqtt") as configured:
        configured.reload(
            {**good, "keep": {"clips_mb": 7}}, "keep.clips_mb is another one and holds from the next restart"
        )
        wait_until(lambda: all(m["troubles"] for m in configured.status()["machines"].values()), "all say it")
        shown = ask("status", home=tmp_path).stdout
        assert shown.count("keep.clips_mb is another one") == 1, "once for the daemon, not for each machine"
        configured.reload(good, "nothing that could be taken on has changed")
        wait_until(lambda: not any(m["troubles"] for m in configured.status()["machines"].values()), "none says it")


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=PATIENT_S) as page:
            return b"asd_windows_heard_total" in page.read()
    except OSError:  # it is being closed, or is
        return False


def test_metrics_move_to_another_port_and_stay_where_they_were_if_that_is_taken(tmp_path: Path) -> None:
    machines = {"machines": {"fan": simulated(speed=1)}}
    first, second = free_port(), free_port()
    with running(tmp_path, machines, "--no-mqtt") as configured:
        configured.reload({**machines, "health": {"metrics_port": first}}, "health.metrics_port")
        wait_until(lambda: answers(first), "it answers")
        configured.reload({**machines, "health": {"metrics_port": second}}, "health.metrics_port")
        wait_until(lambda: answers(second) and not answers(first), "it answers elsewhere")
        with Broker(tmp_path / "squatter") as squatter:
            configured.reload(
                {**machines, "health": {"metrics_port": squatter.port}},
                f"{squatter.port} can't be used",
                "stays as it was",
            )
            wait_until(lambda: answers(second), "it answers where it did")
        configured.reload(machines, "health.metrics_port")
        wait_until(lambda: not answers(second), "it answers no more")
        assert configured.daemon.stop() == 0


@needs_broker
@pytest.mark.broker
def test_broker_hears_of_machines_that_come_and_forgets_those_that_go(tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker, Subscriber(broker.port) as heard:
        mqtt = {"host": HOST, "port": broker.port, "commands": True}
        begin: dict[str, Any] = {"node": "box", "mqtt": mqtt, "machines": {"fan": simulated(speed=10)}}
        both = {**begin, "machines": {**begin["machines"], "slider": simulated("slider", speed=10)}}
        with running(tmp_path, begin) as configured:
            heard.wait_for(lambda m: m.topic == "asd/box/fan/score")
            configured.reload(both, "slider: is new", "listening to fan, slider")
            heard.wait_for(lambda m: m.topic == "homeassistant/device/asd_box_slider/config" and m.payload)
            heard.wait_for(lambda m: m.topic == "asd/box/slider/availability" and m.payload == "online")
            heard.wait_for(lambda m: m.topic == "asd/box/slider/score")
            heard.say("asd/box/slider/command", b'{"command": "mute", "minutes": 5}')
            heard.wait_for(lambda m: m.topic == "asd/box/slider/state" and m.payload["muted_until"] is not None)
            configured.reload(begin, "slider: is heard no more", "forget what it keeps there of slider")
            for topic in (
                "homeassistant/device/asd_box_slider/config",
                "asd/box/slider/availability",
                "asd/box/slider/state",
            ):
                heard.wait_for(lambda m, topic=topic: m.topic == topic and m.payload == "")  # type: ignore[misc]
            configured.reload({**begin, "mqtt": {**mqtt, "prefix": "other"}}, "mqtt.prefix is another one")
            heard.wait_for(
                lambda m: m.topic == "asd/box/fan/state" and any("mqtt.prefix" in t for t in m.payload["troubles"])
            )
            assert {m.payload for m in heard.messages if m.topic == "asd/box/availability"} == {"online"}, (
                "one connection"
            )
            assert configured.daemon.stop() == 0


def test_daemon_that_is_asked_while_it_starts_and_stops_ends_in_order(tmp_path: Path) -> None:
    file = tmp_path / "asd.yaml"
    file.write_text(json.dumps({"machines": {"fan": simulated(speed=1)}}))
    with RunningDaemon("run", "--no-mqtt", "--config", file, home=tmp_path) as daemon:
        wait_until(lambda: handles_hang_up(daemon), "it has begun")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("configuration read anew" in line for line in daemon.log), "it heeds it once it runs")
        daemon.process.send_signal(signal.SIGTERM)
        while daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGHUP)
        assert daemon.wait() == 0
        assert daemon.log[-1].split(": ", 1)[1].startswith("stopped:")


def handles_hang_up(daemon: RunningDaemon) -> bool:
    """Whether the process has a handler for SIGHUP, by what the kernel knows of it."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGHUP - 1) & 1)


def test_daemon_without_a_configuration_says_that_there_is_none(tmp_path: Path) -> None:
    with RunningDaemon("run", "--no-mqtt", "--machine", "fan", "--source", "simulate:fan", home=tmp_path) as daemon:
        wait_until(lambda: any("listening to" in line for line in daemon.log), "it listens")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("was started without one" in line for line in daemon.log), "it says so")
        assert daemon.stop() == 0


def test_daemon_whose_terminal_closes_ends_in_order(tmp_path: Path) -> None:
    words = ["run", "--no-mqtt", "--machine", "fan", "--source", "simulate:fan"]
    spawner = [sys.executable, "-c", f"import pty; pty.spawn({[*PROGRAM, *words]!r})"]
    with subprocess.Popen(
        spawner, env=daemon_environment(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as terminal:
        statuses = tmp_path / "state" / "status"
        wait_until(lambda: any(statuses.glob("status-*.json")), "it runs")
        (file,) = statuses.glob("status-*.json")
        process_id = json.loads(file.read_text())["pid"]
        terminal.kill()
    wait_until(lambda: is_over(process_id), "it ends with its terminal")
    assert not file.exists(), "in order"
