"""Machines are named, backed up, restored and removed on the pages, by who may, and the daemon does it while it listens."""

from __future__ import annotations

import html
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asd_daemon.web.guards import MOST_BACKUP_BYTES
from asd_daemon.web.sessions import OPERATOR, VIEWER, set_password
from rig.daemon import RunningDaemon, ask
from rig.page import Answer, RunningPage
from rig.waiting import wait_until

BUDGET = "alarm.false_alarms_per_week"
PASSWORD, VIEWERS = "correct horse battery", "only looking around"


@dataclass
class Rig:
    home: Path
    page: RunningPage

    def do(self, path: str, **fields: str) -> str:
        """Send a form; the notice on the page that follows."""
        done = self.page.post(path, {"token": self.page.token("/machines"), **fields})
        assert done.status == 303, done.text
        text = self.page.ask(done.headers["location"]).text
        return text.partition('role="status">')[2].partition("</p>")[0]

    def change(self, key: str, value: str) -> str:
        return self.do("/machines/change", machine="fan", key=key, value=value)

    def send(self, machine: str, content: bytes, token: str | None = None, query: str = "") -> Answer:
        headers = {"X-Form-Token": token or self.page.token("/machines"), "Origin": self.page.origin}
        return self.page.ask(f"/machines/{machine}/restore{query}", "POST", content, headers)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("upkeep")
    for role, password in ((OPERATOR, PASSWORD), (VIEWER, VIEWERS)):
        set_password(home / "passwords", role, password)
    source = "simulate:fan?seed=4&speed=100"
    done = ask("enroll", "--machine", "fan", "--source", source, "--minutes", "3", home=home)
    assert done.returncode == 0, done.stderr
    addresses = home / "addresses"
    addresses.write_text("ops = json://127.0.0.1:9\nboss = json://127.0.0.1:9/boss\n")
    addresses.chmod(0o600)
    content = {
        "machines": {"fan": {"source": {"simulate": "fan?seed=4&speed=5"}}},
        "notify": {"urls_file": str(addresses), "tell": ["ops"], "escalate_to": ["boss"]},
    }
    (home / "c.json").write_text(json.dumps(content))
    with (
        RunningDaemon("run", "--no-mqtt", "--config", home / "c.json", home=home) as daemon,
        RunningPage(home, password_file=str(home / "passwords")) as page,
    ):
        page.log_in(PASSWORD)
        wait_until(lambda: "Use this budget" in page.ask("/machines").text, "the daemon is known")
        yield Rig(home, page)
        assert daemon.stop() == 0


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.page.cookie = None
    running.page.log_in(PASSWORD)
    return running


def test_machine_gets_a_name_and_a_budget_and_gives_them_back(rig: Rig) -> None:
    assert "fan: “What people call it” is Fan of line 3 from now on." in rig.change("title", " Fan of line 3 ")
    assert "<h2>Fan of line 3</h2>" in rig.page.ask("/machines").text
    assert "Fan of line 3: “What people call it” is as configured again." in rig.change("title", "")
    assert "fan: “What people call it” is as configured." in rig.change("title", "")
    assert "“False alarms a week, at most” is 0.5 from now on." in rig.change(BUDGET, "0,5")
    assert 'value="0.5"' in rig.page.ask("/machines").text
    refused = rig.change(BUDGET, "-1")
    assert "“False alarms a week, at most” is not changed: it must be greater than 0, got -1.0" in refused
    assert "as configured again" in rig.change(BUDGET, "")
    for key, wrong in (("alarm.open_after", "1"), ("source", "x")):
        fields = {"token": rig.page.token("/machines"), "machine": "fan", "key": key, "value": wrong}
        assert rig.page.post("/machines/change", fields).status == 400
        assert rig.page.post("/machines/change", {**fields, "machine": "saw"}).status == 404


@pytest.mark.parametrize(
    ("key", "typed", "why"),
    [
        (BUDGET, "-1", "it must be greater than 0, got -1.0"),
        (BUDGET, "many", "write a number"),
        (BUDGET, "nan", "write a number"),
        ("title", "x" * 301, "write up to 300 printable characters"),
        ("title", "x" * 61, "must be 1 to 60 characters in one line"),
        ("notify.quiet_hours", "27:00-06:00", "27:00-06:00"),
        ("notify.tell", "nobody", "nobody has the tag"),
    ],
)
def test_what_was_typed_and_refused_stays_in_its_field_beside_the_reason_once(
    rig: Rig, key: str, typed: str, why: str
) -> None:
    fields = {"token": rig.page.token("/machines"), "machine": "fan", "key": key, "value": typed}
    assert rig.page.post("/machines/change", fields).status == 303
    page = html.unescape(rig.page.ask("/machines").text)
    form = page.partition(f'name="key" value="{key}"')[2].partition("</form>")[0]
    assert f'value="{typed}"' in form
    assert 'aria-invalid="true"' in form
    assert why in form
    assert "machines.fan" not in page
    assert key not in page.partition('role="status">')[2].partition("</p>")[0]
    assert "<details open>" in page
    assert "aria-invalid" not in rig.page.ask("/machines").text


def test_who_is_told_and_when_not_is_changed_and_nonsense_is_refused_in_words(rig: Rig) -> None:
    assert "“Who is told: tags, or all” is boss from now on" in rig.change("notify.tell", "boss")
    assert "nobody has the tag 'nobody'" in html.unescape(rig.change("notify.tell", "nobody"))
    assert "as configured again" in rig.change("notify.tell", "")
    told = rig.change("notify.quiet_hours", "22:00-06:00, mon,wed 12:00-13:00,sat-sun")
    assert "is 22:00-06:00, mon,wed 12:00-13:00, sat-sun from now on" in told
    assert 'value="22:00-06:00, mon,wed 12:00-13:00, sat-sun"' in rig.page.ask("/machines").text
    assert "“Quiet hours, or none” is none from now on" in rig.change("notify.quiet_hours", "none")
    assert "27:00" in rig.change("notify.quiet_hours", "27:00-06:00")
    assert "is 30 from now on" in rig.change("notify.escalate_after_min", "30")


def test_backup_is_a_machine_that_another_name_takes_over_and_that_is_removed(rig: Rig) -> None:
    backup = rig.page.ask("/machines/fan/backup")
    assert backup.status == 200
    assert backup.headers["content-disposition"] == 'attachment; filename="fan.asd-machine.zip"'
    with zipfile.ZipFile(io.BytesIO(backup.body)) as archive:
        assert json.loads(archive.read("machine.json"))["machine"] == "fan"
    done = rig.send("a-spare", backup.body)
    assert done.status == 200
    assert "known, and heard by nobody yet" in done.text
    listed = {one["machine"] for one in json.loads(ask("machines", "list", "--json", home=rig.home).stdout)}
    assert listed == {"fan", "a-spare"}
    text = rig.page.ask("/machines").text
    assert "Choose its microphone" in text  # it is there to see and to remove, though nobody hears it
    now = rig.page.ask("/").text
    assert now.index('data-machine="fan"') < now.index('data-machine="a-spare"'), "what needs no look comes last"
    assert rig.page.ask("/learn?machine=a-spare").status == 200
    assert rig.page.ask("/learn?machine=none").status == 404
    for name in ("a-spare", "fan"):
        refused = rig.send(name, backup.body, query="?new=1")
        assert refused.status == 409
        assert f"there is a machine {name} already" in refused.text
    assert rig.send("fan", backup.body).text.endswith("judged so from its next window on\n")
    assert "type a-spare to say" in rig.do("/machines/forget", machine="a-spare", sure="fan")
    assert rig.do("/machines/forget", machine="a-spare", sure="a-spare").startswith("a-spare is forgotten")
    assert "is configured: delete it in" in rig.do("/machines/forget", machine="fan", sure="fan")
    listed = {one["machine"] for one in json.loads(ask("machines", "list", "--json", home=rig.home).stdout)}
    assert listed == {"fan"}


def test_what_is_no_backup_is_refused_and_said(rig: Rig) -> None:
    done = rig.send("fan", b"no zip")
    assert done.status == 422
    assert "can't be read as a machine" in done.text
    assert "can&#39;t be read as a machine" in rig.page.ask("/machines").text
    assert rig.send("..", b"").status in (404, 422)
    assert rig.page.ask("/machines/none/backup").status == 404
    assert rig.page.ask("/machines/../backup").status == 404


def test_viewer_fetches_no_backup_and_changes_nothing(rig: Rig) -> None:
    rig.page.log_in(VIEWERS)
    text = rig.page.ask("/machines").text
    assert "Change, back up, remove" not in text
    assert rig.page.ask("/machines/fan/backup").status == 403
    assert "Last lines of the log" not in rig.page.ask("/system").text
    rig.page.cookie = None
    assert rig.page.ask("/machines/fan/backup", headers={"Accept": "text/html"}).status in (303, 401)
    for token in ("", "made up"):
        assert rig.send("fan", b"", token or "none").status in (401, 403)


def test_upload_that_is_too_long_is_refused_before_it_is_read(rig: Rig) -> None:
    headers = {"Content-Length": str(MOST_BACKUP_BYTES + 1), "X-Form-Token": rig.page.token("/machines")}
    assert rig.page.ask("/machines/fan/restore", "POST", b"", headers).status == 413


def test_log_and_bundle_are_shown_and_where_there_is_no_earlier_bundle_that_is_said(rig: Rig) -> None:
    wait_until(lambda: "listening to fan" in rig.page.ask("/system").text, "the log says what the daemon does")
    assert "asd-edge-default" in rig.page.ask("/system").text
    assert "no bundle was installed here" in rig.do("/system/rollback")
