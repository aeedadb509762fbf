"""The commands as a user meets them: every mistake is one clear line and the right exit code."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile

from asd_daemon.cli.program import cli
from asd_daemon.settings.plan import CommandLineOptions, make_plan
from rig.broker import HOST, Broker, free_port, mosquitto
from rig.bundles import failing_noise, healthy_noise, read_manifest, write_manifest, write_tiny_bundle
from rig.daemon import RunningDaemon, ask, daemon_environment
from rig.waiting import PATIENT_S

needs_broker = pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder)
    return folder


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The only line on stderr."""
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["run", "--machin", "fan"], 2, "error: No such option '--machin'"),
        (["frob"], 2, "error: No such command 'frob'"),
        (["run"], 2, "error: which machine? give --machine NAME (there is no configuration file)"),
        (["run", "--machine", "a/b"], 2, "error: --machine 'a/b': a name is 1 to 64 letters"),
        (["run", "--source", "simulate:fan"], 2, "error: --source says what to hear, not whose sound it is"),
        (
            ["run", "--machine", "fan", "--machine", "mill", "--source", "simulate:fan"],
            2,
            "error: --source says what to hear, not whose sound it is: give one --machine",
        ),
        (["run", "--machine", "fan", "--machine", "fan"], 2, "error: --machine fan is given twice"),
        (["run", "--machine", "fan", "--source", "mic"], 2, "error: source 'mic' must be device:NAME"),
        (["run", "--machine", "fan", "--broker", "a:b"], 2, "error: --broker 'a:b' must be HOST or HOST:PORT"),
        (["run", "--machine", "fan", "--node", "a b"], 2, "error: --node 'a b': a name is 1 to 64 letters"),
        (["run", "--config", "/none.yaml"], 2, "error: /none.yaml: can't be read: No such file"),
        (["run", "--machine", "fan", "--source", "file:/none.wav"], 2, "error: /none.wav: can't be read as sound"),
        (["run", "--machine", "fan", "--source", "folder:/none"], 3, "error: source folder:/none: there is no folder"),
        (["run", "--machine", "fan", "--source", "simulate:fann"], 2, "error: machine 'fann' can't be simulated"),
        (
            ["run", "--machine", "fan", "--source", "simulate:fan?fial=rubbing"],
            2,
            "error: source simulate:fan?fial=rubbing: 'fial'",
        ),
        (
            ["run", "--machine", "fan", "--source", "command:none-such"],
            3,
            "error: fan: command 'none-such': can't start",
        ),
        (
            ["run", "--machine", "fan", "--source", "device:none-such"],
            3,
            "error: fan: no microphone 'none-such': ",
        ),
        (["run", "--machine", "lathe", "--source", "simulate:fan"], 3, "error: "),
        (["score", "--machine", "fan"], 2, "error: Missing argument 'PATH…'"),
        (
            ["score", "/none.wav", "--machine", "fan"],
            2,
            "error: /none.wav: can't be read as sound: there is no such file",
        ),
        (["score", "/none.wav", "--machine", "lathe"], 3, "error: "),
        (["bundle", "verify", "/none"], 1, "error: /none: is no bundle"),
    ],
)
def test_mistake_is_one_line_with_its_exit_code(
    words: list[str], code: int, message: str, bundle: Path, tmp_path: Path
) -> None:
    if words[0] in ("run", "score"):
        words = [*words, "--bundle", str(bundle)]
    done = ask(*words, home=tmp_path)
    assert one_line(done).startswith(message)
    assert done.returncode == code


def test_unknown_machine_lists_those_the_bundle_knows(bundle: Path, tmp_path: Path) -> None:
    done = ask("score", tmp_path, "--machine", "lathe", "--bundle", bundle, home=tmp_path)
    assert "lathe" in one_line(done)
    assert "fan" in one_line(done)
    assert "press-3" in one_line(done)


def test_mistyped_key_is_named_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "asd.yaml"
    file.write_text("machines:\n  fan:\n    alarm: {open_afer: 2}\n")
    done = ask("run", "--config", file, home=tmp_path)
    expected = f"error: {file}:3: machines.fan.alarm.open_afer: unknown key (did you mean open_after?)"
    assert (one_line(done), done.returncode) == (expected, 2)
    assert one_line(ask("check", home=tmp_path, more={"ASD_CONFIG": str(file)})) == expected


def truncate(folder: Path) -> None:
    model = folder / "embedder.onnx"
    model.write_bytes(model.read_bytes()[:-100])


def flip(folder: Path) -> None:
    model = folder / "embedder.onnx"
    model.write_bytes(bytes([model.read_bytes()[0] ^ 1]) + model.read_bytes()[1:])


def make_newer(folder: Path) -> None:
    write_manifest(folder, {**read_manifest(folder), "schema": 99})


@pytest.mark.parametrize(
    ("break_it", "word"), [(truncate, "embedder.onnx"), (flip, "embedder.onnx"), (make_newer, "schema")]
)
def test_broken_bundle_is_refused_by_every_command(
    break_it: Callable[[Path], None], word: str, bundle: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    break_it(broken)
    soundfile.write(tmp_path / "a.wav", np.zeros(100, np.float32), 16_000)
    for words, code in (
        (["run", "--machine", "fan", "--source", "simulate:fan", "--bundle", broken], 3),
        (["score", tmp_path / "a.wav", "--machine", "fan", "--bundle", broken], 3),
        (["bundle", "verify", broken], 1),
    ):
        done = ask(*words, home=tmp_path)
        assert word in one_line(done)
        assert done.returncode == code


def test_bundle_verify_of_a_whole_bundle_says_what_is_in_it(bundle: Path, tmp_path: Path) -> None:
    done = ask("bundle", "verify", bundle, "--json", home=tmp_path)
    facts = json.loads(done.stdout)
    assert (facts["well"], facts["machines"], done.returncode) == (True, ["fan", "press-3"], 0)
    assert "is whole" in ask("bundle", "verify", bundle, home=tmp_path).stdout


def test_score_of_all_kinds_of_recordings_scores_the_readable_and_names_the_rest(bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    folder = tmp_path / "clips"
    folder.mkdir()
    healthy, failing = healthy_noise(rng), failing_noise(rng)
    soundfile.write(folder / "1-healthy.wav", healthy, 16_000)
    soundfile.write(folder / "2-failing.flac", failing, 16_000)
    soundfile.write(folder / "3-eight-bit.wav", failing, 16_000, subtype="PCM_U8")
    soundfile.write(folder / "4-stereo.wav", np.stack([healthy, failing], axis=1), 16_000)
    soundfile.write(folder / "5-96k.wav", np.repeat(healthy, 6), 96_000)
    soundfile.write(folder / "6-short.wav", healthy[:50_000], 16_000)
    soundfile.write(folder / "7-nan.wav", np.where(np.arange(16_000) == 9, np.nan, 0.1), 16_000, subtype="FLOAT")
    soundfile.write(folder / "8-empty.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "9-silent.wav", np.zeros(160_000), 16_000)
    (folder / "9-text.wav").write_text("no sound at all")
    done = ask("score", folder, "--machine", "fan", "--bundle", bundle, "--json", home=tmp_path)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    keys = {"path", "machine", "score", "threshold", "anomalous", "start_s", "seconds", "unusable"}
    assert [set(line) for line in lines] == [keys] * 7
    verdicts = {Path(line["path"]).name[:1]: line["anomalous"] for line in lines}
    assert [line["unusable"] for line in lines] == [None] * 5 + ["short", "silence"]
    assert verdicts["1"] is False
    assert verdicts["2"] is True
    assert verdicts["3"] is True
    assert verdicts["4"] is False
    errors = done.stderr.splitlines()
    assert [e.startswith("error: ") for e in errors] == [True] * 5
    names = ("6-short.wav", "7-nan.wav", "8-empty.wav", "9-silent.wav", "9-text.wav")
    for name, error in zip(names, errors, strict=True):
        assert name in error
    assert done.returncode == 2
    second = ask(
        "score", folder / "4-stereo.wav", "--channel", 1, "--machine", "fan", "--bundle", bundle, home=tmp_path
    )
    assert second.stdout.startswith("ANOMALOUS")
    assert second.returncode == 0


@pytest.mark.parametrize(("samples_a_second", "is_well"), [(16_000, True), (32_000, False), (8_000, False)])
def test_check_compares_a_commands_seconds_with_the_clock(
    bundle: Path, tmp_path: Path, samples_a_second: int, is_well: bool
) -> None:
    player = tmp_path / "play.py"
    player.write_text(
        "import random, sys, time\n"
        "start, sent = time.monotonic(), 0\n"
        "while True:\n"
        f"    due = int((time.monotonic() - start) * {samples_a_second})\n"
        "    sys.stdout.buffer.write(b''.join(random.randrange(256).to_bytes() + b'\\x01' for _ in range(due - sent)))\n"
        "    sys.stdout.buffer.flush(); sent = due; time.sleep(0.02)\n"
    )
    words = ["check", "--machine", "fan", "--bundle", bundle, "--no-mqtt", "--json"]
    done = ask(*words, "--source", f"command:{sys.executable} {player}", home=tmp_path)
    found = next(f for f in map(json.loads, done.stdout.splitlines()) if f["what"] == "fan: source")
    assert found["well"] is is_well, found["detail"]
    assert is_well or "s of sound came in" in found["detail"]


def test_run_of_a_folder_without_broker_prints_events_and_ends_well(bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(16):
        clip = failing_noise(rng) if number in (4, 5, 6) else healthy_noise(rng)
        soundfile.write(folder / f"{number:02}.wav", 0.3 * clip / np.abs(clip).max(), 16_000)
    (folder / "08-broken.wav").write_text("no sound")
    file = tmp_path / "asd.yaml"
    file.write_text(
        f"machines: {{fan: {{source: {{folder: {folder}}}, alarm: {{false_alarms_per_week: 0.001}}}}}}\nlog: json\n"
    )
    words = ["run", "--config", file, "--bundle", bundle, "--node", "n"]
    done = ask(*words, home=tmp_path)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e["kind"] for e in events if e["topic"] == "alert"] == ["open", "close"]
    assert len([e for e in events if e["topic"] == "score"]) == 16
    assert [e["state"] for e in events if e["topic"] == "state"] == ["starting", "normal", "alert", "normal", "stopped"]
    log = [json.loads(line) for line in done.stderr.splitlines()]
    assert any("08-broken.wav" in line["message"] for line in log)
    assert log[-1]["message"].startswith("stopped: 16 windows heard, 16 scored")


def test_run_under_systemd_says_ready_feeds_the_watchdog_and_stops(bundle: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENT_S)
        words = ["run", "--machine", "fan", "--bundle", bundle, "--source", "simulate:fan?speed=40", "--no-mqtt"]
        with RunningDaemon(*words, home=tmp_path, more={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
            said = [systemd.recv(4096).decode()]
            while "WATCHDOG=1" not in said:
                said.append(systemd.recv(4096).decode())
            assert said[0].startswith("READY=1\nSTATUS=fan starting")
            daemon.process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in said:
                said.append(systemd.recv(4096).decode())
            assert daemon.wait() == 0
    assert any(line.startswith("STATUS=fan ") and "score" in line for line in said)
    assert "stopping: SIGTERM" in "".join(daemon.log)
    assert json.loads(daemon.lines[-1])["state"] == "stopped"


@needs_broker
@pytest.mark.broker
def test_run_with_a_broker_that_refuses_is_one_line_and_exit_3(bundle: Path, tmp_path: Path) -> None:
    with Broker(tmp_path / "broker", password=True) as broker:
        words = [
            "--machine",
            "fan",
            "--bundle",
            bundle,
            "--source",
            "simulate:fan",
            "--broker",
            f"{HOST}:{broker.port}",
        ]
        done = ask("run", *words, home=tmp_path)
        assert f"error: broker {HOST}:{broker.port} refuses us: Not authorized" in done.stderr
        assert done.returncode == 3
        checked = ask("check", *words, home=tmp_path)
        assert "FAIL  broker: broker" in checked.stdout
        assert checked.returncode == 1


@needs_broker
@pytest.mark.broker
def test_check_when_all_is_well_says_so_line_by_line(bundle: Path, tmp_path: Path) -> None:
    with Broker(tmp_path / "broker") as broker:
        file = tmp_path / "asd.yaml"
        file.write_text(
            f"machines: {{fan: {{source: {{simulate: fan}}}}}}\nbundle: {bundle}\nmqtt: {{host: localhost, port: {broker.port}}}\n"
        )
        done = ask("check", "--config", file, "--seconds", 1, "--json", home=tmp_path)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert [f["what"] for f in findings] == [
        "configuration",
        "bundle",
        "state folder",
        "fan: model",
        "fan: source",
        "broker",
    ]
    assert all(f["well"] for f in findings), done.stdout
    assert done.returncode == 0


def test_check_when_things_are_wrong_names_each(bundle: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(32_000), 16_000)
    words = [
        "--machine",
        "lathe",
        "--bundle",
        bundle,
        "--source",
        f"file:{silent}",
        "--broker",
        f"{HOST}:{free_port()}",
    ]
    done = ask("check", *words, home=tmp_path)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split(": ")[0] for line in failed] == ["FAIL  lathe", "FAIL  lathe", "FAIL  broker"]
    assert "silence" in failed[1]
    assert "Connection refused" in failed[2]
    assert done.returncode == 1


def test_output_that_nobody_reads_any_more_ends_quietly(bundle: Path, tmp_path: Path) -> None:
    words = ["run", "--machine", "fan", "--bundle", bundle, "--source", "simulate:fan?speed=max", "--no-mqtt"]
    with RunningDaemon(*words, home=tmp_path, reads=False) as daemon:
        assert daemon.wait() == 1
    assert "Traceback" not in "".join(daemon.log)


@pytest.mark.parametrize(
    ("words", "host", "port"),
    [
        ("box", "box", 1883),
        ("box:99", "box", 99),
        ("[::1]:99", "::1", 99),
        ("[::1]", "::1", 1883),
        ("::1", "::1", 1883),
    ],
)
def test_broker_in_words_is_host_and_port(words: str, host: str, port: int) -> None:
    plan = make_plan(CommandLineOptions(machines=("fan",), broker=words))
    assert plan.settings.mqtt is not None
    assert (plan.settings.mqtt.host, plan.settings.mqtt.effective_port) == (host, port)


def test_sample_config_is_what_the_settings_say(tmp_path: Path) -> None:
    done = ask("sample-config", home=tmp_path)
    (tmp_path / "asd.yaml").write_text(done.stdout)
    assert "machines:" in done.stdout
    again = ask("run", "--config", tmp_path / "asd.yaml", "--machine", "nobody", home=tmp_path)
    assert "machine 'nobody' is unknown; machines: fan" in one_line(again)


def test_devices_lists_as_json(tmp_path: Path) -> None:
    done = ask("devices", "--json", home=tmp_path)
    assert isinstance(json.loads(done.stdout), list)
    assert done.returncode == 0


def commands(group: click.Group, name: str = "") -> list[tuple[str, click.Command]]:
    found = []
    for word, command in group.commands.items():
        found += commands(command, f"{name}{word} ") if isinstance(command, click.Group) else [(name + word, command)]
    return found


def test_every_command_and_option_has_help() -> None:
    assert {name for name, _ in commands(cli)} == {
        "run",
        "score",
        "devices",
        "check",
        "notify test",
        "status",
        "watch",
        "web",
        "replay",
        "service install",
        "service uninstall",
        "sample-config",
        "bundle status",
        "bundle verify",
        "alerts fault",
        "alerts list",
        "alerts normal",
        "alerts note",
        "alerts play",
        "alerts show",
        "bundle install",
        "bundle rollback",
        "enroll",
        "settings list",
        "settings set",
        "settings unset",
        "machines list",
        "machines rename",
        "machines remove",
        "machines relearn",
        "machines export",
        "machines import",
    }
    for name, command in commands(cli):
        assert command.help, name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.opts}"


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['asd-daemon', 'run', '--help']\n"
        "from asd_daemon.cli.program import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'numpy', 'onnxruntime', 'pydantic', 'soundfile', 'paho', 'sounddevice'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=daemon_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
