"""`asd-daemon run` as a user types it, without a broker: a webhook and a mailbox are told, through refusals and kill -9."""

from __future__ import annotations

import base64
import json
import re
from email.message import EmailMessage
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.tell.notifications.sender import is_installed
from rig.daemon import RunningDaemon, ask
from rig.ears import Ear, simulated_fan
from rig.people import HOST, Mailbox, Webhook
from rig.player import write_player
from rig.waiting import wait_until

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs the extra `notify`")


@pytest.fixture
def fan() -> Ear:
    return simulated_fan()


def configure(folder: Path, ear: Ear, addresses: list[str], more: str = "") -> Path:
    """A live source that says a file of sound over and over, some twenty times as fast as it was, and who is told of it."""
    player = write_player(folder)
    urls = folder / "urls"
    urls.write_text("\n".join(addresses))
    urls.chmod(0o600)
    file = folder / "asd.yaml"
    file.write_text(
        f"""
node: box
bundle: {ear.bundle}
machines:
  fan:
    source: {{command: "python3 {player} {folder / "sound"}", speed: 0}}
    alarm: {{close_after: 2, cool_down_s: 0}}
notify: {{urls_file: {urls}, storm_s: 0, page_url: "http://box:8470"{more}}}
"""
    )
    return file


def say(folder: Path, sound: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    whole = sound[: len(sound) // 160_000 * 160_000]
    fresh = folder / "sound.new"
    fresh.write_bytes((np.clip(whole, -1, 1) * 32767).astype("<i2").tobytes())
    fresh.replace(folder / "sound")


def test_alert_that_nobody_could_be_told_of_is_told_by_the_run_after_a_kill(fan: Ear, tmp_path: Path) -> None:
    say(tmp_path, np.concatenate([fan.healthy, fan.failing]))
    with Webhook() as hook, Mailbox() as mailbox:
        addresses = [
            f"ops = json://box:hunter2@{HOST}:{hook.port}/s3cretpath",
            f"boss = mailto://{HOST}:{mailbox.port}?from=box@example.com&to=boss@example.com&mode=insecure",
        ]
        file = configure(tmp_path, fan, addresses)
        hook.status = 503
        with RunningDaemon("run", "--config", file, "--events", "json", home=tmp_path) as daemon:
            hook.wait_refused(1)
            wait_until(lambda: bool(mailbox.mails), "the mailbox is told, whatever the webhook does")
            wait_until(lambda: "NOT TOLD" in ask("status", home=tmp_path).stdout, "the status names it")
            told = ask("status", home=tmp_path)
            daemon.process.kill()
            daemon.wait()
        assert told.returncode == 1
        assert "people: ops (json, line 1): NOT TOLD" in told.stdout
        assert "503" in told.stdout
        say(tmp_path, fan.healthy)
        hook.status = 200
        with RunningDaemon("run", "--config", file, "--events", "json", home=tmp_path) as after:
            (first, *_) = hook.wait_for(1)
            wait_until(
                lambda: any("alert is over" in json.loads(b)["title"] + json.loads(b)["message"] for b in hook.bodies),
                "over",
            )
            assert after.stop() == 0, after.log
    # Alone, or with its end in one message where that came before the next attempt
    assert "fan: sounds wrong" in first["title"] + first["message"]
    assert "http://box:8470/alerts" in first["message"]
    pictures = [file.read_bytes() for file in (tmp_path / "state" / "pictures" / "fan").glob("*.png")]
    assert base64.b64decode(first["attachments"][0]["base64"]) in pictures
    mails = [str(mail["subject"]) for mail in mailbox.mails]
    assert mails[0] == "fan: sounds wrong"
    told_of = [event for mail in mailbox.mails if mail["subject"] == "fan: sounds wrong" for event in events_of(mail)]
    assert told_of
    assert len(set(told_of)) == len(told_of), "who had been told of an alert is not told again"
    kept = b"".join(f.read_bytes() for f in (tmp_path / "state").rglob("*") if f.is_file())
    words = "".join([*daemon.log, *daemon.lines, *after.log, *after.lines, told.stdout])
    for secret in ("hunter2", "s3cretpath"):
        assert secret not in words
        assert secret.encode() not in kept


def events_of(mail: EmailMessage) -> list[str]:
    """Ids of the alerts that a mail leads to: the sound is said over and over, so on a slow box there may be several."""
    body = mail.get_body(("plain", "html"))
    return [] if body is None else sorted(set(re.findall(r"/alerts/([0-9a-f-]+)", body.get_content())))


def test_check_and_test_say_per_recipient_what_is_wrong_and_show_no_secret(fan: Ear, tmp_path: Path) -> None:
    say(tmp_path, fan.healthy)
    with Webhook() as hook, Webhook() as down:
        down.status = 401
        good, bad = f"ops = json://{HOST}:{hook.port}", f"boss = json://box:hunter2@{HOST}:{down.port}"
        file = configure(tmp_path, fan, [good, bad])
        tried = ask("notify", "test", "--config", file, home=tmp_path)
        assert tried.returncode == 1
        assert sorted(line[:27] for line in tried.stdout.splitlines()) == [
            "FAIL  boss (json, line 2): ",
            "ok    ops (json, line 1)",
        ]
        assert "401" in tried.stdout
        assert "attachments" in hook.wait_for(1)[0]
        only = ask("notify", "test", "--recipient", "ops", "--json", "--config", file, home=tmp_path)
        assert (only.returncode, json.loads(only.stdout)) == (
            0,
            {"recipient": "ops (json, line 1)", "ok": True, "why": None},
        )
        nobody = ask("notify", "test", "--recipient", "night", "--config", file, home=tmp_path)
        assert (nobody.returncode, "nobody has this tag; there are boss, ops" in nobody.stderr) == (2, True)
        (tmp_path / "urls").write_text(f"{good}\nboss = mailtoo://hunter2@example.com")
        checked = ask("check", "--config", file, home=tmp_path)
        assert checked.returncode == 1
        assert "FAIL  people: boss (mailtoo, line 2): apprise does not understand this address" in checked.stdout
        assert len(hook.bodies) == 2, "check sends nothing"
        (tmp_path / "urls").write_text(f"{good}\nhunter2")
        started = ask("run", "--config", file, home=tmp_path)
        assert started.returncode == 2
        assert f"notify.urls_file: {tmp_path / 'urls'}:2: is no address" in started.stderr
        assert "hunter2" not in tried.stdout + tried.stderr + checked.stdout + checked.stderr + started.stderr
