"""Real messages through apprise to real servers: a webhook, a mail server, a push service; and what is said of those that refuse."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
from pathlib import Path

import psutil
import pytest

from asd_daemon.tell.notifications.notice import Message
from asd_daemon.tell.notifications.recipients import Recipient, read_recipients
from asd_daemon.tell.notifications.sender import Job, Sender, is_installed
from asd_daemon.tell.notifications.sending import masked
from asd_daemon.tell.notifications.trial import trial_message
from rig.broker import free_port
from rig.people import HOST, Mailbox, Webhook
from rig.waiting import PATIENT_S, wait_until

pytestmark = pytest.mark.skipif(not is_installed(), reason="needs the extra `notify`")
MESSAGE = trial_message("box", 1_768_219_200.0, pictures=True)


def recipient(url: str) -> Recipient:
    return Recipient(url[:12], "one", frozenset(), url)


def send(*urls: str, message: Message = MESSAGE, sender: Sender | None = None) -> list[str | None]:
    """What became of each."""
    found: dict[int, str | None] = {}
    (sender or Sender()).send([Job(recipient(url), message) for url in urls], found.__setitem__)
    return [found[number] for number in range(len(urls))]


def test_webhook_mailbox_and_push_service_get_words_and_picture_side_by_side() -> None:
    with Webhook() as hook, Mailbox() as mailbox, Webhook() as push:
        urls = (
            f"json://{HOST}:{hook.port}/secretpath",
            f"mailto://{HOST}:{mailbox.port}?from=box@example.com&to=crew@example.com&mode=insecure",
            f"ntfy://{HOST}:{push.port}/fans",
        )
        assert send(*urls) == [None, None, None]
        (told,) = hook.wait_for(1)
        assert (told["title"], told["message"], told["type"]) == (MESSAGE.title, MESSAGE.body, "success")
        assert base64.b64decode(told["attachments"][0]["base64"]) == MESSAGE.picture
        (mail,) = mailbox.mails
        assert (mail["subject"], mail["to"]) == (MESSAGE.title, "crew@example.com")
        parts = {part.get_content_type(): part for part in mail.walk()}
        assert parts["image/png"].get_content() == MESSAGE.picture
        assert parts["image/png"].get_filename() == "spectrogram.png"
        assert any("nothing is wrong" in str(p.get_content()) for kind, p in parts.items() if kind.startswith("text/"))
        assert any(MESSAGE.picture in body for body in push.bodies if MESSAGE.picture)


def test_one_that_refuses_is_explained_without_its_address_and_the_others_are_told() -> None:
    with Webhook() as hook, Webhook() as other:
        hook.status = 503
        refused, told, gone, nonsense = send(
            f"json://box:hunter2@{HOST}:{hook.port}/s3cretpath?token=abcdef",
            f"json://{HOST}:{other.port}",
            f"json://box:hunter2@{HOST}:{free_port()}/s3cretpath",
            "nonsense://hunter2@s3cretpath",
        )
    assert told is None
    assert refused is not None
    assert "503" in refused
    assert gone is not None
    assert "Connection refused" in gone
    assert nonsense is not None
    assert "does not understand this address" in nonsense
    for words in (refused, gone, nonsense):
        assert not any(secret in words for secret in ("hunter2", "s3cretpath", "abcdef", HOST))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("no such topic: fans-1f3a", "ntfy://fans-1f3a"),
        ("401 for bot123:ABC-def at /botbot123:ABC-def/send", "tgram://bot123:ABC-def/42"),
        ("a p%40ss and p@ss", "mailto://u:p%40ss@example.com"),
        ("HUNTER2 in capitals", "json://hunter2@h"),
    ],
)
def test_words_of_a_service_are_masked_whatever_of_the_address_they_hold(text: str, url: str) -> None:
    said = masked(text, url).lower()
    for part in ("fans-1f3a", "bot123", "abc-def", "p%40ss", "p@ss", "hunter2"):
        assert part not in said


def test_addresses_are_read_without_sending_anything(tmp_path: Path) -> None:
    with Webhook() as hook:
        file = tmp_path / "urls"
        file.write_text(f"ops = json://{HOST}:{hook.port}\nboss = mailtoo://hunter2@example.com\n")
        file.chmod(0o600)
        _, boss = recipients = read_recipients(file)
        wrong = Sender().read(recipients)
        assert list(wrong) == [boss.key]
        assert "hunter2" not in wrong[boss.key]
        assert hook.bodies == []


def test_process_that_takes_too_long_is_ended_and_what_it_had_sent_stays_sent() -> None:
    with Webhook() as hook, Webhook() as slow:
        slow.may_answer.clear()
        urls = (f"json://{HOST}:{hook.port}?rto=100&cto=100", f"json://{HOST}:{slow.port}?rto=100&cto=100")
        sender = Sender(within_s=PATIENT_S)
        told = threading.Event()
        found: dict[int, str | None] = {}

        def result(number: int, why: str | None) -> None:
            found[number] = why
            told.set()

        work = threading.Thread(target=sender.send, args=([Job(recipient(u), MESSAGE) for u in urls], result))
        work.start()
        assert told.wait(PATIENT_S)
        sender.close()
        work.join(PATIENT_S)
        assert found == {0: None, 1: "the process that sends ended early"}
        assert send(urls[0], sender=sender) == ["the process that sends can't be started: the daemon stops"]
        assert send(urls[1], sender=Sender(within_s=0.01)) == ["no answer within 0.01 s"]


def test_address_is_in_no_command_line_and_no_file_and_the_process_ends() -> None:
    with Webhook() as hook:
        hook.may_answer.clear()
        work = threading.Thread(target=send, args=(f"json://box:hunter2@{HOST}:{hook.port}",))
        work.start()
        me = psutil.Process()
        wait_until(lambda: any("sending" in " ".join(c.cmdline()) for c in me.children()), "the process")
        (child,) = [c for c in me.children() if "sending" in " ".join(c.cmdline())]
        assert "hunter2" not in json.dumps(child.cmdline()) + json.dumps(child.environ())
        os.kill(child.pid, signal.SIGCONT)
        hook.may_answer.set()
        work.join(PATIENT_S)
        assert not child.is_running()
