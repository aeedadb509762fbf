"""The systemd unit: valid, hardened, and the daemon really runs under its hardest rule."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_daemon.cli.program import cli
from asd_daemon.cli.service_installation import quoted
from asd_daemon.errors import UsageError
from asd_daemon.waveform import WINDOW_S
from rig.bundles import healthy_noise, write_tiny_bundle
from rig.daemon import ROOT, daemon_environment
from rig.waiting import PATIENT_S

UNIT = ROOT / "deploy" / "asd-daemon@.service"
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def installed(folder: Path) -> Path:
    """The unit as it would lie in a system, with a program that exists here."""
    unit = folder / "asd-daemon@fan.service"
    unit.write_text(UNIT.read_text().replace("/opt/asd-edge/bin/asd-daemon", sys.executable))
    return unit


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, words)], capture_output=True, text=True, check=False, timeout=PATIENT_S
    )


def service() -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


@needs_analyze
def test_unit_is_valid(tmp_path: Path) -> None:
    done = analyze("verify", installed(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@needs_analyze
def test_unit_calls_a_program_whatever_its_path_is_made_of(tmp_path: Path) -> None:
    program = tmp_path / "50 % new $HOME %i ü" / "asd-daemon"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    unit = tmp_path / "asd-daemon@fan.service"
    unit.write_text(UNIT.read_text().replace("/opt/asd-edge/bin/asd-daemon", quoted(program)))
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    program.unlink()
    assert f"{program} is not executable" in analyze("verify", unit).stderr
    for mark in "\"'\\\n":
        with pytest.raises(UsageError, match="systemd calls no program with"):
            quoted(Path(f"/opt/a{mark}b/asd-daemon"))


def test_unit_shows_the_processor_to_onnxruntime() -> None:
    assert service().get("ProcSubset") != "pid", "hides /proc/cpuinfo"
    assert service()["ProtectProc"] == "invisible"


@needs_analyze
def test_unit_is_exposed_by_two_at_most(tmp_path: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=20", installed(tmp_path))
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_unit_starts_a_command_that_exists() -> None:
    _, command, *words = shlex.split(service()["ExecStart"])
    options = {name for parameter in cli.commands[command].params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert "--wait-for-device" in words


def test_unit_reloads_by_the_signal_that_the_daemon_heeds() -> None:
    assert service()["ExecReload"] == "/bin/sh -c 'kill -HUP $MAINPID'", "a small system has no /bin/kill"


def test_unit_expects_several_windows_before_its_watchdog_bites() -> None:
    assert service()["Type"] == "notify"
    assert int(service()["WatchdogSec"]) >= 4 * WINDOW_S


def test_every_group_of_the_hardening_has_its_reason() -> None:
    groups = UNIT.read_text().split("\n\n")
    hardening = groups[groups.index(next(g for g in groups if "DynamicUser" in g)) : -1]
    assert len(hardening) >= 7
    assert all(group.startswith(("# What ", "# Who ")) for group in hardening)


def test_daemon_without_writable_executable_memory_judges_sound(tmp_path: Path) -> None:
    """MemoryDenyWriteExecute, as the kernel's own PR_SET_MDWE: numpy, soxr and onnxruntime must live with it."""
    write_tiny_bundle(tmp_path / "bundle")
    rng = np.random.default_rng(0)
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", np.repeat(healthy_noise(rng), 3), 48_000)
    code = (
        "import ctypes, os, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'from asd_daemon.cli.program import main; main()', *sys.argv[1:]])"
    )
    words = ["run", "--machine", "fan", "--bundle", str(tmp_path / "bundle"), "--source", f"folder:{tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=daemon_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENT_S,
    )
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["topic"] for line in done.stdout.splitlines()].count("score") == 2


@needs_analyze
def test_the_unit_of_the_page_is_valid_exposed_little_and_may_write_nowhere(tmp_path: Path) -> None:
    unit = tmp_path / "asd-daemon-web.service"
    text = (ROOT / "deploy" / unit.name).read_text()
    unit.write_text(text.replace("/opt/asd-edge/bin/asd-daemon", sys.executable))
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ProtectSystem=strict" in text
    assert not {"ReadWritePaths", "StateDirectory"} & {line.split("=")[0] for line in text.splitlines()}
    rated = analyze("security", "--offline=yes", "--no-pager", unit).stdout
    assert float(re.findall(r"exposure level for .*?: ([0-9.]+)", rated)[0]) < 4
