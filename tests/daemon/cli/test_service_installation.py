"""What is written into a system and what lies in deploy/: complete, valid, and true to the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
import yaml

from asd_daemon.cli.program import cli
from asd_daemon.cli.service_installation import RULES, UNIT, WHOLE_UNIT, template, udev_rules, whole_unit
from asd_daemon.cli.service_limits import limits
from asd_daemon.hear.source import SourceHealth
from asd_daemon.judge.thresholds.threshold import Threshold
from asd_daemon.settings.file import SYSTEM_FILE, parse_settings
from asd_daemon.tell.payloads import Condition, MachineState
from asd_daemon.tell.publisher import BrokerStatus
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.metrics import MachineCollector
from asd_daemon.watch.report import DeliveryReport, MachineReport
from rig.daemon import ROOT, ask
from rig.waiting import PATIENT_S

DEPLOY = ROOT / "deploy"
HOW_TO = ROOT / "docs" / "how-to"
needs_analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
TWO = """
machines:
  fan: {source: {device: "usb-id:0D8C:0014:A1"}}
  a-very-long-name-of-a-pump: {source: {device: "usb-path:1-1.2"}}
  saw: {source: {device: default}}
"""


def shown_commands(page: Path) -> list[str]:
    """Commands in the console blocks of a page."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def test_install_then_uninstall_leaves_the_configuration_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    done = ask(
        "service", "install", "--prefix", root, "--machine", "fan", "--program", "/opt/x/asd-daemon", home=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written ") == 5
    assert "sudo systemctl enable --now asd-daemon@fan\n" in done.stdout
    assert "ExecStart=/opt/x/asd-daemon run --machine %i" in below(root, UNIT).read_text()
    below(root, SYSTEM_FILE).write_text(TWO)
    again = ask("service", "install", "--prefix", root, "--machine", "mill", home=tmp_path)
    assert f"kept     {below(root, SYSTEM_FILE)}" in again.stdout
    assert "knows no machine 'mill' yet" in again.stderr
    assert below(root, SYSTEM_FILE).read_text() == TWO
    assert 'ATTR{id}="fan"' in below(root, RULES).read_text()
    gone = ask("service", "uninstall", "--prefix", root, home=tmp_path)
    assert gone.stdout.count("removed ") == 4
    assert [p.relative_to(root) for p in root.rglob("*") if p.is_file()] == [SYSTEM_FILE.relative_to("/")]
    assert ask("service", "uninstall", "--prefix", root, home=tmp_path).stdout.count("missing ") == 4


def test_install_of_a_program_that_the_service_could_not_see_is_refused(tmp_path: Path) -> None:
    done = ask("service", "install", "--program", "/home/me/venv/bin/asd-daemon", home=tmp_path)
    assert done.stderr.startswith("error: /home/me/venv/bin/asd-daemon: the service sees nothing below /home")
    assert done.returncode == 2


def test_install_over_a_broken_configuration_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    below(tmp_path, SYSTEM_FILE).parent.mkdir(parents=True)
    below(tmp_path, SYSTEM_FILE).write_text("mashines: {}")
    done = ask("service", "install", "--prefix", tmp_path, home=tmp_path)
    assert "did you mean machines?" in done.stderr
    assert done.returncode == 2


def test_unit_hands_over_the_password_that_the_configuration_names(tmp_path: Path) -> None:
    file = below(tmp_path, SYSTEM_FILE)
    file.parent.mkdir(parents=True)
    file.write_text("mqtt: {host: b, username: u, password_credential: broker-key}\nmachines: {fan: {}}\n")
    assert ask("service", "install", "--prefix", tmp_path, "--program", "/opt/asd", home=tmp_path).returncode == 0
    for unit in (UNIT, WHOLE_UNIT):
        lines = below(tmp_path, unit).read_text().splitlines()
        assert [line for line in lines if "LoadCredential=" in line] == [
            "LoadCredential=broker-key:/etc/asd-daemon/broker-key"
        ]
    more = "notify: {urls_credential: notify-urls}\n"
    file.write_text(f"mqtt: {{host: b, username: u, password_credential: broker-key}}\n{more}machines: {{fan: {{}}}}\n")
    assert ask("service", "install", "--prefix", tmp_path, "--program", "/opt/asd", home=tmp_path).returncode == 0
    assert [line for line in below(tmp_path, UNIT).read_text().splitlines() if "LoadCredential=" in line] == [
        "LoadCredential=broker-key:/etc/asd-daemon/broker-key",
        "LoadCredential=notify-urls:/etc/asd-daemon/notify-urls",
    ]
    file.write_text("machines: {fan: {}}\n")
    assert ask("service", "install", "--prefix", tmp_path, "--program", "/opt/asd", home=tmp_path).returncode == 0
    lines = below(tmp_path, UNIT).read_text().splitlines()
    assert not any(line.startswith("LoadCredential=") for line in lines)


def test_udev_rules_name_the_card_of_each_machine_that_is_told_by_usb() -> None:
    lines = udev_rules(parse_settings(TWO, "F")).splitlines()
    card = 'SUBSYSTEM=="sound", KERNEL=="card*", SUBSYSTEMS=="usb", '
    assert lines[2:] == [
        card + 'ATTRS{idVendor}=="0d8c", ATTRS{idProduct}=="0014", ATTRS{serial}=="A1", ATTR{id}="fan"',
        card + 'KERNELS=="1-1.2", ATTR{id}="a_very_long_nam"',
    ]
    assert udev_rules(parse_settings("", "F")) == ""


def test_udev_rules_match_texts_that_udev_would_read_otherwise() -> None:
    text = """machines: {fan: {source: {device: 'usb-id:0d8c:0014:A"*[x]|é'}}}"""
    assert 'ATTRS{serial}=="A???x???"' in udev_rules(parse_settings(text, "F"))


def test_install_of_a_machine_whose_name_no_unit_can_have_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    done = ask("service", "install", "--prefix", tmp_path, "--machine", "a b; reboot", home=tmp_path)
    assert done.stderr.startswith("error: --machine 'a b; reboot': a name is 1 to 64 letters")
    assert not (tmp_path / "etc").exists()


def test_udev_rules_are_of_keys_and_values_only() -> None:
    pair = r'[A-Z]+(\{[A-Za-z/_]+\})?(==|=|\+=)"[^"]*"'
    for line in (template("90-asd-daemon.rules") + udev_rules(parse_settings(TWO, "F"))).splitlines():
        assert not line or line.startswith("#") or re.fullmatch(rf"{pair}(, {pair})*", line), line


@needs_analyze
def test_unit_of_all_machines_is_valid_and_as_hard(tmp_path: Path) -> None:
    unit = tmp_path / "asd-daemon.service"
    unit.write_text(whole_unit(template(UNIT.name)).replace("/opt/asd-edge/bin/asd-daemon", sys.executable))
    assert "%i" not in unit.read_text()
    assert "--machine" not in unit.read_text()
    for words in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run(
            ["systemd-analyze", *words, unit], capture_output=True, text=True, check=False, timeout=PATIENT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert WHOLE_UNIT.name == unit.name


def instructions(file: Path) -> list[tuple[str, str]]:
    """Instruction and argument of each line of a Containerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", file.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def limits_of(unit: str) -> tuple[int, int]:
    memory, tasks = re.search(r"^MemoryMax=(\d+)M$", unit, re.M), re.search(r"^TasksMax=(\d+)$", unit, re.M)
    assert memory is not None
    assert tasks is not None
    return int(memory[1]), int(tasks[1])


def test_unit_of_all_machines_may_take_what_so_many_need(tmp_path: Path) -> None:
    """Measured with 200 simulated machines: two threads and 3.4 MB each; a recorder has a process of 60 MB."""
    root, one = tmp_path / "root", limits_of(template(UNIT.name))
    many = {"machines": {f"m{n}": {"source": {"simulate": "fan"}} for n in range(200)}}
    below(root, SYSTEM_FILE).parent.mkdir(parents=True)
    for content, (least_mb, least_tasks) in (
        (many, (4 * 200 + one[0], 2 * 200 + one[1])),
        ({"machines": {f"m{n}": {"source": {"device": f"usb-path:1-1.{n}"}} for n in range(8)}}, (8 * 100, 8 * 10)),
    ):
        below(root, SYSTEM_FILE).write_text(json.dumps(content))
        assert (
            ask("service", "install", "--prefix", root, "--program", "/opt/x/asd-daemon", home=tmp_path).returncode == 0
        )
        memory_mb, tasks = limits_of(below(root, WHOLE_UNIT).read_text())
        assert memory_mb >= least_mb
        assert tasks >= least_tasks
        assert limits_of(below(root, UNIT).read_text()) == one, "a process for one machine stays as it was"


def test_unit_whose_machines_share_a_device_counts_it_once() -> None:
    shared = parse_settings(
        '{"machines": {"a": {"source": {"device": "x", "channel": 0}}, "b": {"source": {"device": "x", "channel": 1}}}}',
        "c",
    )
    apart = parse_settings('{"machines": {"a": {"source": {"device": "x"}}, "b": {"source": {"device": "y"}}}}', "c")
    assert limits(shared.machines) < limits(apart.machines)


def test_every_how_to_page_that_is_promised_exists() -> None:
    promised = {
        "raspberry-pi",
        "home-assistant",
        "docker",
        "several-machines",
        "threshold",
        "privacy",
        "watch-the-daemon",
    }
    assert promised <= {page.stem for page in HOW_TO.glob("*.md")}


def configurations(page: Path) -> list[str]:
    """YAML blocks of a page that are parts of a configuration of ours, whole enough to be read."""
    blocks = re.findall(r"^( *)```yaml\n(.*?)```", page.read_text(), re.DOTALL | re.MULTILINE)
    texts = [textwrap.dedent(text) for _, text in blocks]
    return [t for t in texts if re.match(r"(node|machines|mqtt|keep|health|bundle|bundle_key):", t)]


@pytest.mark.parametrize("page", sorted(p.stem for p in (ROOT / "docs" / "how-to").glob("*.md")))
def test_configuration_that_a_page_shows_is_accepted(page: str) -> None:
    for text in configurations(HOW_TO / f"{page}.md"):
        parse_settings(text.replace("…", ""), page)


def check_words(words: list[str]) -> None:
    """The words are a command of the program with options that it has."""
    command: click.Command = cli
    while words and isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_containerfile_copies_what_exists_and_calls_what_exists() -> None:
    parts = instructions(DEPLOY / "Containerfile")
    known = {
        "ARG",
        "FROM",
        "RUN",
        "ENV",
        "WORKDIR",
        "COPY",
        "USER",
        "VOLUME",
        "HEALTHCHECK",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    }
    assert {word for word, _ in parts} <= known
    stages = [rest.split(" AS ")[1] for word, rest in parts if word == "FROM" and " AS " in rest]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in parts:
        if word == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages
        elif word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, f"{source} is not sent to the builder"
        elif word == "RUN":
            mounts = re.match(r"(--mount=\S+\s+)*", rest)
            assert mounts is not None
            assert set(re.findall(r"from=(\w+)", mounts[0])) <= set(stages)
            assert subprocess.run(["sh", "-n", "-c", rest[mounts.end() :]], check=False).returncode == 0, rest
        elif word == "CMD":
            check_words(json.loads(rest))
        elif word == "HEALTHCHECK":
            program, *words = json.loads(rest[rest.index("[") :])
            assert program == "asd-daemon"
            check_words(words)
    named = dict(part for part in parts if part[0] in ("USER", "ENTRYPOINT"))
    assert int(named["USER"]) > 0
    assert json.loads(named["ENTRYPOINT"]) == ["asd-daemon"]
    assert any("HNSWLIB_NO_NATIVE=1" in rest for word, rest in parts if word == "ENV")


def test_compose_names_files_volumes_and_commands_that_exist() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    made_by_the_user = {"./mqtt-password"}
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).exists(), source
        for secret in service.get("secrets", []):
            assert compose["secrets"][secret]["file"] in made_by_the_user
    daemon = compose["services"]["asd-daemon"]
    check_words(list(daemon["command"]))
    assert (DEPLOY / daemon["build"]["context"] / daemon["build"]["dockerfile"]).is_file()
    assert daemon["read_only"] is True
    assert daemon["cap_drop"] == ["ALL"]


def known_metrics() -> set[str]:
    """Every name that the collector gives, as Prometheus shows it."""
    report = MachineReport(
        MachineState(
            Condition.NORMAL,
            datetime.now(UTC),
            score=1.0,
            threshold=1.0,
            calibration=Threshold(1.0, "calibrated", wanted=1.0),
        ),
        Counts(),
        SourceHealth(),
    )
    told = DeliveryReport(BrokerStatus("broker:1883"))
    families = MachineCollector(lambda: {"fan": report}, lambda: told).collect()
    return {f"{f.name}_total" if f.type == "counter" else f.name for f in families}


def test_page_about_watching_names_every_metric_and_no_other() -> None:
    page = (HOW_TO / "watch-the-daemon.md").read_text()
    assert set(re.findall(r"\basd_[a-z_]+", page)) == known_metrics()


def test_dashboard_asks_for_metrics_that_exist() -> None:
    known = {"process_resident_memory_bytes"} | known_metrics()
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(asked) >= 7
    for expression in asked:
        names = set(re.findall(r"\b(?:asd|process)_[a-z_]+", re.sub(r"\{[^}]*\}", "", expression)))
        assert names
        assert names <= known, expression


@pytest.mark.parametrize(
    "page",
    sorted(p.stem for p in HOW_TO.glob("*.md") if any("asd-daemon " in c for c in shown_commands(p))),
)
def test_commands_that_a_page_shows_exist(page: str) -> None:
    commands = [c for c in shown_commands(HOW_TO / f"{page}.md") if "asd-daemon " in c]
    assert commands
    for command in commands:
        words = shlex.split(command.split(" | ")[0].split(" > ")[0], comments=True)
        names = [n for n, word in enumerate(words) if word.rsplit("/", 1)[-1] == "asd-daemon"]
        for start in names:
            rest = words[start + 1 :]
            if rest and rest[0] in cli.commands:
                check_words(rest)
