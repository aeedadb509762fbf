"""Machines by their names: listed, renamed, forgotten, backed up and restored, with all that is kept of them."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from asd_daemon.cli.program import cli
from asd_daemon.errors import EnrolmentError, UsageError
from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.alarm.alarm import AlertKind
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.learn import enrolment
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, enrol
from asd_daemon.learn.machine_archive import import_machine
from asd_daemon.learn.machine_names import known_machines
from asd_daemon.tell.storage.machine_locks import MachineLocks
from asd_daemon.tell.storage.machine_traces import traces_of
from asd_daemon.tell.storage.outbox import Outbox
from asd_daemon.tell.storage.retained_topics import Ownership, RetainedTopics, kept_topics
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog, read_scores
from rig.bundles import failing_noise, healthy_noise, write_tiny_bundle

AT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("names") / "tiny")


@pytest.fixture(scope="module")
def full(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder that knows `pump` and, of `fan`, scores alone."""
    state = tmp_path_factory.mktemp("names") / "state"
    rng = np.random.default_rng(3)
    script = [Block(healthy_noise(rng)) for _ in range(16)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolment, "VIEW_NAMES", ("steady-mean",))
        order = EnrolmentRequest("pump", "script", None, keeps_sound=True)
        enrol(bundle, state / "enrolled", order, ScriptedSource(script), lambda _: None)
    scores = ScoreLog(state / "scores.sqlite", every_s=1e9, days=90)
    for machine in ("pump", "pump", "fan"):
        scores.add(LoggedScore(machine, AT, 1.0, 2.0))
    scores.close()
    outbox = Outbox(state / "alerts.sqlite", ["pump"])
    outbox.put("pump", "asd/box/pump/alert", b"{}", kind=AlertKind.OPEN, event_id="e1", memory=b"{}")
    outbox.close()
    for file in ("clips/pump/a.flac", "machines/pump/source.json"):
        (state / file).parent.mkdir(parents=True)
        (state / file).write_bytes(b"0123")
    return state


@pytest.fixture
def state(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(full, tmp_path / "state")
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("ASD_CONFIG", raising=False)
    return tmp_path / "state"


def machines(*words: object) -> Result:
    return CliRunner().invoke(cli, ["machines", *map(str, words)])


def tells(bundle: Bundle, state: Path, machine: str) -> bool:
    scorer = Scorer(with_enrolled_machine(bundle, state / "enrolled", machine), machine)
    rng = np.random.default_rng(8)
    return not scorer.score(healthy_noise(rng)).anomalous and scorer.score(failing_noise(rng)).anomalous


def test_list_tells_what_is_kept_of_each(state: Path) -> None:
    shown = machines("list").stdout.splitlines()
    assert shown[0] == "fan: not learned here; 1 score, 0 clips (0.0 MB), 0 alerts waiting"
    assert "pump: learned on " in shown[1]
    assert "from 16 windows" in shown[1]
    assert shown[1].endswith("2 scores, 1 clip (0.0 MB), 1 alert waiting")
    facts = {one["machine"]: one for one in json.loads(machines("list", "--json").stdout)}
    assert facts["pump"]["sounds"] == 16
    assert facts["pump"]["state_bytes"] > 16 * 100_000
    (state / "enrolled" / "pump" / "enrolled.json").write_text("{")
    assert "enrolled.json" in machines("list").stdout


def test_rename_takes_everything_along(bundle: Bundle, state: Path) -> None:
    done = machines("rename", "pump", "press-3")
    assert done.exit_code == 0, done.output
    assert [known.name for known in known_machines(state)] == ["fan", "press-3"]
    assert tells(bundle, state, "press-3")
    assert len(list(read_scores(state / "scores.sqlite", "press-3"))) == 2
    assert (traces_of(state, "press-3").clips, traces_of(state, "press-3").alerts_waiting) == (1, 1)
    outbox = Outbox(state / "alerts.sqlite", ["press-3"])
    assert outbox.memory("press-3") == b"{}"
    outbox.close()
    assert (state / "machines" / "press-3" / "source.json").exists()
    assert not list(state.rglob("*pump*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rename", "lathe", "x"), "knows no machine 'lathe'; it knows fan, pump"),
        (("rename", "pump", "fan"), "fan: a machine of this name is known already"),
        (("rename", "pump", "../x"), "a name is 1 to 64 letters"),
        (("remove", "lathe", "--yes"), "knows no machine 'lathe'"),
        (("export", "fan", "x.zip"), "fan: was not learned on this box"),
        (("import", "nowhere.zip"), "can't be read as a machine: No such file"),
    ],
)
def test_what_is_not_there_or_can_not_be_is_said(state: Path, words: tuple[str, ...], said: str) -> None:
    done = machines(*words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert [known.name for known in known_machines(state)] == ["fan", "pump"]


def test_remove_asks_and_leaves_nothing(state: Path) -> None:
    assert CliRunner().invoke(cli, ["machines", "remove", "pump"], input="n\n").exit_code != 0
    assert "pump" in machines("list").stdout
    assert machines("remove", "pump", "--yes").exit_code == 0
    assert [known.name for known in known_machines(state)] == ["fan"]
    assert not list(state.rglob("*pump*"))
    with sqlite3.connect(state / "alerts.sqlite") as database:
        assert [database.execute(f"select count(*) from {t}").fetchone() for t in ("waiting", "memory")] == [(0,), (0,)]
    database.close()


def test_export_and_import_give_the_same_machine(bundle: Bundle, state: Path, tmp_path: Path) -> None:
    file = tmp_path / "pump.zip"
    assert machines("export", "pump", file).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = machines("export", "pump", file)
    assert "is there already" in again.stderr
    taken = machines("import", file)
    assert "was learned on this box already; --replace takes its place, --as names another" in taken.stderr
    assert machines("import", file, "--as", "press-3").exit_code == 0
    assert tells(bundle, state, "press-3")
    assert machines("import", file, "--replace").exit_code == 0
    machines("remove", "pump", "--yes")
    assert machines("import", file).exit_code == 0
    assert tells(bundle, state, "pump")
    assert not [p for p in (state / "enrolled").iterdir() if p.name.startswith((".incoming", ".worn"))]
    assert {p.stat().st_mode & 0o077 for p in (state / "enrolled" / "pump").rglob("*")} == {0}


def retained(state: Path, machine: str) -> None:
    """A broker keeps a topic of a machine."""
    table = RetainedTopics(state / "alerts.sqlite", Ownership("broker:1883", (machine,)))
    table.note([(f"asd/box/{machine}/state", machine)])


@pytest.mark.parametrize("words", [("remove", "pump", "--yes"), ("rename", "pump", "press-3")])
def test_what_brokers_keep_is_cleared_later_under_the_old_name(state: Path, words: tuple[str, ...]) -> None:
    retained(state, "pump")
    done = machines(*words)
    assert done.exit_code == 0, done.output
    assert "1 topics of pump are cleared when a daemon next connects to their broker" in done.stderr
    assert list(kept_topics(state / "alerts.sqlite", "pump")) == [("broker:1883", "asd/box/pump/state")]
    assert list(kept_topics(state / "alerts.sqlite", "press-3")) == []
    assert "pump" not in [known.name for known in known_machines(state)]


@pytest.mark.parametrize("words", [("remove", "pump", "--yes"), ("rename", "pump", "press-3")])
def test_machine_that_a_daemon_hears_is_left_alone(state: Path, words: tuple[str, ...]) -> None:
    locks = MachineLocks(state, ["pump"])
    try:
        refused = machines(*words)
        assert refused.exit_code == 2
        assert "pump: a daemon hears it at this moment; stop it first" in refused.stderr
    finally:
        locks.close()
    assert machines(*words).exit_code == 0
    assert not (state / "locks" / "pump.json").exists()


def rewritten(file: Path, other: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> Path:
    """The archive with some of its entries changed, or left out."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            changed = change(name, source.read(name))
            if changed is not None:
                target.writestr(*changed)
    return other


def _renamed_to(path: str) -> Callable[[str, bytes], tuple[str, bytes] | None]:
    """The first file lies somewhere else, and the contents say so."""

    def change(name: str, content: bytes) -> tuple[str, bytes] | None:
        if name == "machine.json":
            contents = json.loads(content)
            contents["files"][path] = contents["files"].pop("enrolled/enrolled.json")
            return name, json.dumps(contents).encode()
        return (path, content) if name == "enrolled/enrolled.json" else (name, content)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n, c: (n, c[:-1] + b"x") if n.endswith("fusion.npz") else (n, c), "does not have the SHA-256"),
        (lambda n, c: (n, c[:-1]) if n.endswith("fusion.npz") else (n, c), "bytes, machine.json says"),
        (lambda n, c: None if n.endswith("fusion.npz") else (n, c), "listed and not there"),
        (lambda n, c: None if n == "machine.json" else (n, c), "holds no machine.json"),
        (lambda n, c: ("enrolled/x.flac", c) if n.endswith("calibration.json") else (n, c), "listed and not there"),
        (_renamed_to("../../outside.json"), "must be a plain path"),
        (_renamed_to("enrolled/../../outside.json"), "must be a plain path"),
        (_renamed_to("/tmp/outside.json"), "must be a plain path"),
        (_renamed_to("other/outside.json"), "holds more than a machine"),
        (_renamed_to("enrolled/outside.json"), "holds no enrolled.json"),
    ],
)
def test_archive_that_was_changed_or_leads_elsewhere_is_refused_and_changes_nothing(
    state: Path, tmp_path: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], said: str
) -> None:
    machines("export", "pump", tmp_path / "pump.zip")
    other = rewritten(tmp_path / "pump.zip", tmp_path / "other.zip", change)
    before = sorted(p for p in state.rglob("*") if not p.name.endswith(".lock"))
    with pytest.raises(EnrolmentError, match=said):
        import_machine(state / "enrolled", other, "new")
    assert sorted(p for p in state.rglob("*") if not p.name.endswith(".lock")) == before
    assert not (tmp_path / "outside.json").exists()
    assert not (state / "outside.json").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all" * 99])
def test_file_that_is_no_archive_is_refused(state: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UsageError, match="can't be read as a machine"):
        import_machine(state / "enrolled", tmp_path / "x.zip")
