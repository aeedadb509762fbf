"""The page against whoever is not meant to look or act: hosts, origins, forms, passwords, paths, odd and slow requests."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from asd_daemon.errors import SettingsError
from asd_daemon.web.access import safe_next
from asd_daemon.web.sessions import HASHER, OPERATOR, VIEWER, Sessions, Tries, read_passwords, set_password
from rig.broker import HOST
from rig.nonsense import nonsense
from rig.page import EVENT_ID, RunningPage, leave_state, raw
from rig.waiting import PATIENT_S

PASSWORD, VIEWERS = "correct horse battery", "only looking around"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    home = tmp_path_factory.mktemp("open")
    leave_state(home)
    with RunningPage(home, hosts=("line-3.local",)) as running:
        yield running


@pytest.fixture(scope="module")
def running_closed_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    home = tmp_path_factory.mktemp("closed")
    leave_state(home, windows=20)
    file = home / "passwords"
    set_password(file, OPERATOR, PASSWORD)
    set_password(file, VIEWER, VIEWERS)
    with RunningPage(home, password_file=str(file)) as running:
        yield running


@pytest.fixture
def closed_page(running_closed_page: RunningPage) -> RunningPage:
    """Seen by somebody who comes for the first time."""
    running_closed_page.cookie = None
    return running_closed_page


@pytest.mark.parametrize(
    "path", ["/", "/history", "/alerts", f"/alerts/{EVENT_ID}", "/system", "/nowhere", "/api/scores"]
)
def test_every_answer_keeps_browsers_from_what_the_page_never_needs(page: RunningPage, path: str) -> None:
    headers = page.ask(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


def test_no_page_has_a_script_or_a_style_inside(page: RunningPage) -> None:
    for path in ("/", "/history", "/alerts", f"/alerts/{EVENT_ID}", "/system"):
        text = page.ask(path).text
        assert text.count("<script") == text.count("<script src="), path
        assert "<style" not in text, path
        assert " style=" not in text, path
        assert "onclick" not in text, path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:8470", 200), ("[::1]:8470", 200), ("192.168.1.7", 200), ("line-3.local", 200),
        ("LINE-3.local", 200), ("evil.example", 421), ("localhost.evil.example", 421), ("localhost@evil.example", 421),
        ("", 421), ("localhost:x", 421), ("localhost/evil", 421), ("evil.example#localhost", 421),
    ],
)  # fmt: skip
def test_the_page_is_known_by_its_own_names_alone(page: RunningPage, host: str, status: int) -> None:
    assert page.ask("/login", headers={"Host": host}).status == status


def test_two_hosts_are_refused(page: RunningPage) -> None:
    got = raw(page.port, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert got.split(b"\r\n")[0].split()[1] in (b"400", b"421")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "OPTIONS", "PATCH", "PROPFIND"])
def test_other_methods_are_refused(page: RunningPage, method: str) -> None:
    assert page.ask("/", method).status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/static/x/../../../../etc/passwd", "/static/x/%2e%2e/%2e%2e/etc/passwd", "/static/x/..%2f..%2fserver.py",
        "/clips/..%2f..%2fetc%2fpasswd", "/clips/../../etc/passwd", "/clips/%00", f"/clips/{EVENT_ID}%00.flac",
        "/alerts/..", "/alerts/%2e%2e%2f", "/clips/' or 1=1 --".replace(" ", "%20"), "/static/x/page.css%00",
        "//etc/passwd", "/clips/" + "a" * 5000, "/history?machine=../../etc", "/listen?machine=../x",
    ],
)  # fmt: skip
def test_no_path_leads_out(page: RunningPage, path: str) -> None:
    answer = page.ask(path)
    assert answer.status in (400, 404), path
    assert b"root:" not in answer.body


def test_a_clip_outside_its_folder_is_not_served(tmp_path: Path) -> None:
    leave_state(tmp_path, windows=5)
    (tmp_path / "secret.flac").write_bytes((tmp_path / "state/clips/fan/20260101T000000Z-normal.flac").read_bytes())
    import sqlite3

    database = sqlite3.connect(tmp_path / "state" / "history.sqlite")
    opened = json.loads(database.execute("select opened from event").fetchone()[0])
    database.execute("update event set opened = ?", (json.dumps({**opened, "clip": "clips/../../secret.flac"}),))
    database.commit()
    database.close()
    with RunningPage(tmp_path) as running:
        assert running.ask(f"/clips/{EVENT_ID}").status == 404


def test_names_from_outside_are_text_and_no_markup(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog

    (tmp_path / "state" / "locks").mkdir(parents=True)
    log = ScoreLog(tmp_path / "state" / "scores.sqlite", every_s=1, days=90)
    log.add(LoggedScore("<script>alert(1)</script>", datetime.now(UTC), 0.5, 1.0))
    log.close()
    with RunningPage(tmp_path) as running:
        assert "<script>alert" not in running.ask("/").text
        assert "&lt;script&gt;alert(1)" in running.ask("/").text


def test_who_has_not_logged_in_sees_nothing(closed_page: RunningPage) -> None:
    paths = ["/", "/history", "/alerts", f"/alerts/{EVENT_ID}", "/system"]
    for path in paths:
        answer = closed_page.ask(path)
        assert (answer.status, answer.headers["location"]) == (303, f"/login?next={path}")
    for path in (
        "/api/scores?machine=fan",
        f"/clips/{EVENT_ID}",
        "/events",
        "/listen?machine=fan",
        "/system/support.zip",
    ):
        assert closed_page.ask(path, headers={"Accept": "*/*"}).status == 401, path


def test_a_login_opens_a_session_that_a_logout_ends(closed_page: RunningPage) -> None:
    before = closed_page.ask("/login").headers["set-cookie"]
    answer = closed_page.log_in(PASSWORD)
    given = answer.headers["set-cookie"]
    assert answer.status == 303
    assert "HttpOnly" in given
    assert "samesite=strict" in given.lower()
    assert given.split(";")[0] != before.split(";")[0]
    assert closed_page.ask("/").status == 200
    session = closed_page.cookie
    assert closed_page.post("/logout", {"token": closed_page.token("/")}).status == 303
    closed_page.cookie = session
    assert closed_page.ask("/").status == 303


def test_a_viewer_looks_and_does_nothing_else(closed_page: RunningPage) -> None:
    assert closed_page.log_in(VIEWERS).status == 303
    assert closed_page.ask("/system").status == 200
    assert closed_page.ask("/system/support.zip").status == 403
    assert closed_page.ask(f"/clips/{EVENT_ID}").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"}, {"Content-Type": "text/plain"},
    ],
)  # fmt: skip
def test_forms_of_other_pages_are_refused(closed_page: RunningPage, headers: dict[str, str]) -> None:
    token = closed_page.token("/login")
    assert closed_page.post("/login", {"token": token, "password": PASSWORD}, headers).status in (403, 415)
    assert closed_page.post("/login", {"token": token, "password": PASSWORD}).status == 303


def test_a_form_without_our_token_is_refused(closed_page: RunningPage) -> None:
    closed_page.ask("/login")
    assert closed_page.post("/login", {"password": PASSWORD}).status == 403
    assert closed_page.post("/login", {"token": "0" * 64, "password": PASSWORD}).status == 403
    closed_page.cookie = None
    assert closed_page.post("/login", {"token": "é", "password": PASSWORD}).status == 403


def test_wrong_passwords_are_few(closed_page: RunningPage) -> None:
    statuses = [closed_page.log_in(f"wrong {number}").status for number in range(6)]
    assert statuses == [403] * 5 + [429]
    refused = closed_page.log_in(PASSWORD)
    assert refused.status == 429
    assert 0 < int(refused.headers["retry-after"]) <= 60


def test_a_proxy_is_believed_by_its_address(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    with RunningPage(tmp_path, proxy_header="X-Remote-User") as believed:
        assert believed.ask("/").status == 303
        answer = believed.ask("/", headers={"X-Remote-User": "anna", "X-Forwarded-Proto": "https"})
        assert answer.status == 200
        assert "Secure" in answer.headers["set-cookie"]
    with RunningPage(tmp_path, proxy_header="X-Remote-User", proxy_address="192.0.2.1") as stranger:
        answer = stranger.ask("/", headers={"X-Remote-User": "anna", "X-Forwarded-Proto": "https"})
        assert answer.status == 303
        assert "Secure" not in answer.headers.get("set-cookie", "")


def test_long_requests_are_refused(page: RunningPage) -> None:
    assert page.post("/login", {"password": "x" * 70_000}).status == 413
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nConnection: close\r\n"
    chunk = (
        b"Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"8000\r\n"
        + b"a" * 0x8000
    )
    got = raw(
        page.port,
        head + chunk + b"\r\n8000\r\n" + b"a" * 0x8000 + b"\r\n8000\r\n" + b"a" * 0x8000 + b"\r\n0\r\n\r\n",
        5,
    )
    assert b" 200 " not in got.split(b"\r\n")[0]
    assert page.ask("/", headers={"X-Long": "x" * 40_000}).status == 431


def test_a_client_that_says_nothing_is_cut_off_and_costs_nobody_else(page: RunningPage) -> None:
    silent = [socket.create_connection((HOST, page.port), PATIENT_S) for _ in range(50)]
    for connection in silent:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    assert page.ask("/").status == 200
    for connection in silent:
        with connection:
            assert connection.recv(1000) == b""


def test_nonsense_never_breaks_it(page: RunningPage) -> None:
    draw = random.Random(1)
    for _ in range(400):
        raw(page.port, nonsense(draw), within_s=0.05)
    assert page.process.poll() is None
    assert page.ask("/").status == 200
    assert "Traceback" not in page.log


def test_sessions_end_and_are_not_without_number() -> None:
    now_s = [0.0]
    sessions = Sessions(hours=1, clock_s=lambda: now_s[0])
    token = sessions.open(OPERATOR)
    assert sessions.role(token) == OPERATOR
    assert sessions.role(token + "x") is None
    now_s[0] = 3600.0
    assert sessions.role(token) is None
    first = sessions.open(VIEWER)
    for _ in range(1000):
        sessions.open(VIEWER)
    assert sessions.role(first) is None


def test_tries_are_counted_by_address_and_by_all() -> None:
    now_s = [0.0]
    tries = Tries(lambda: now_s[0])
    for _ in range(5):
        assert tries.wait_s("a") == 0
        tries.fail("a")
    assert tries.wait_s("a") == 60
    assert tries.wait_s("b") == 0
    for number in range(60):
        tries.fail(f"10.0.0.{number}")
    assert tries.wait_s("b") > 0
    now_s[0] = 61.0
    assert tries.wait_s("a") == 0


def test_passwords_are_hashed_slowly_and_alone_in_their_file(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    set_password(file, OPERATOR, PASSWORD)
    set_password(file, VIEWER, VIEWERS)
    set_password(file, OPERATOR, PASSWORD + "!")
    text = file.read_text()
    assert PASSWORD not in text
    assert file.stat().st_mode & 0o077 == 0
    assert sorted(read_passwords(file)) == [OPERATOR, VIEWER]
    assert text.count(f"$argon2id$v=19$m={HASHER.memory_cost},t=2,p=1$") == 2
    with pytest.raises(SettingsError, match="8 to 1000 characters"):
        set_password(file, OPERATOR, "short")


@pytest.mark.parametrize(
    ("text", "message"),
    [("operator:secret\n", "line 1"), ("# nothing\n", "no line for the operator"), ("root:$argon2id$x\n", "line 1")],
)
def test_a_wrong_password_file_is_told_without_what_is_in_it(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "passwords").write_text(text)
    with pytest.raises(SettingsError, match=message) as told:
        read_passwords(tmp_path / "passwords")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "where", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/a\r\nSet-Cookie: x", ""]
)
def test_a_login_leads_to_pages_of_ours_alone(where: str) -> None:
    assert safe_next(where) == "/"
    assert safe_next("/history?machine=fan") == "/history?machine=fan"
