"""No secret leaves the process in a text, whatever somebody has typed."""

from __future__ import annotations

import io
import json
import logging
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asd_daemon.redaction import HIDDEN, redact, redact_all
from asd_daemon.tell.payloads import Condition, MachineState, state_payload, to_json
from asd_daemon.watch.log import JsonFormatter, TextFormatter

# What stands in a secret: any sign that does not end the word. A secret shorter than four could be part of the rest by chance
_SIGNS = st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="'\"<>")
_SECRETS = st.text(_SIGNS, min_size=4, max_size=30).map(lambda text: f"S3cr{text}")
_PLAIN = _SECRETS.map(lambda text: "".join(c for c in text if c not in "&;,)]}="))
_USERS = st.from_regex(r"[a-z][a-z0-9_.-]{0,10}", fullmatch=True)


@given(
    _USERS, _SECRETS, st.sampled_from(["rtsp", "http", "https", "mqtt", "mqtts", "ftp"]), st.text(_SIGNS, max_size=10)
)
@example("user", "S3cr/a@b/c", "rtsp", "")
@example("user", "S3cr@x", "rtsp", "?a=b@c")
def test_password_in_an_address_is_hidden(user: str, secret: str, scheme: str, path: str) -> None:
    told = redact(f"[in#0] {scheme}://{user}:{secret}@camera.local:554/{path}: 401 Unauthorized")
    assert "S3cr" not in told
    assert "401 Unauthorized" in told


@given(_SECRETS.map(lambda text: text.replace("/", "").replace("?", "").replace("#", "")))
def test_token_before_a_host_is_hidden(secret: str) -> None:
    assert "S3cr" not in redact(f"GET https://{secret}@api.example.com/x failed")


@given(_USERS, _SECRETS)
def test_name_and_password_before_a_host_are_hidden_without_a_scheme_too(user: str, secret: str) -> None:
    assert "S3cr" not in redact(f"--broker '{user}:{secret}@broker.local' must be HOST or HOST:PORT")
    assert "S3cr" not in redact(f"curl -u {user}:{secret} failed")


@given(
    st.sampled_from(
        ["password", "token", "key", "api_key", "access_token", "PASSWORD", "X-Amz-Signature", "pwd", "secret", "auth"]
    ),
    _PLAIN,
    st.sampled_from(["http://h/x?a=1&{}={}&b=2", "failed: {}={}", "rtsp://h/?{}={}", '{{"{}": "{}"}}', "{} = '{}'"]),
)
def test_value_that_is_named_a_secret_is_hidden(name: str, secret: str, form: str) -> None:
    assert "S3cr" not in redact(form.format(name, secret))


@given(_PLAIN, st.sampled_from(["--password {}", "--api-key {}", "Authorization: Bearer {}abcdefgh", "-u me:{}"]))
def test_word_of_a_command_that_is_a_secret_is_hidden(secret: str, form: str) -> None:
    if "Bearer" in form:
        secret = "".join(c for c in secret if c.isascii() and c.isalnum())
    assert "S3cr" not in redact(form.format(secret))


@pytest.mark.parametrize("secret", ["12345", "1", "8080"])
def test_password_of_figures_is_no_port(secret: str) -> None:
    assert redact(f"rtsp://admin:{secret}@camera:554/x") == f"rtsp://{HIDDEN}@camera:554/x"
    assert redact(f"admin:{secret}@camera") == f"{HIDDEN}@camera"


@given(st.text())
@example("a:b@c:d@e")
@example("://:@")
def test_redaction_of_a_redacted_text_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "fan: sound is back after 3.2 s",
        "broker broker.local:8883 can't be reached: no answer",
        "connected to broker [fe80::1]:1883 by MQTT 5, 0 alerts waiting",
        "mqtt.password_file: /etc/asd/pw can't be read: Permission denied",
        "http://127.0.0.1:9187/metrics",
        "--broker 'host:port' must be HOST or HOST:PORT",
        "device:usb-id:0d8c:0014?channel=1&rate_hz=48000",
        "simulate:fan?fail=rubbing&fail_after=60&speed=10: what is a key?",
        "rtsp://camera.local:554/stream: 404 Not Found",
        "the key is not known; give another --key FILE",
        "mail me@example.com, or a@b",
    ],
)
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_redaction_is_quick_on_long_texts() -> None:
    began = datetime.now(UTC)
    for text in ("a" * 100_000 + "@", "a:" * 50_000 + "@", "://" * 30_000 + "@", "pw=" * 30_000, "x@" * 50_000):
        redact(text)
    assert (datetime.now(UTC) - began).total_seconds() < 5


def test_log_state_and_traceback_hold_no_secret() -> None:
    address = "rtsp://user:hunter2@camera/x?token=abcd"
    out = io.StringIO()
    log = logging.getLogger("redaction-test")
    log.propagate = False
    for formatter in (TextFormatter(), JsonFormatter()):
        handler = logging.StreamHandler(out)
        handler.setFormatter(formatter)
        log.handlers[:] = [handler]
        try:
            raise ValueError(address)
        except ValueError:
            log.exception("%s: %s failed", "fan", address)
    state = MachineState(Condition.MIC_LOST, datetime(2026, 1, 1, tzinfo=UTC), reason=address, troubles=(address,))
    told = out.getvalue() + to_json(state_payload("n", "fan", state)).decode()
    assert "hunter2" not in told
    assert "abcd" not in told
    assert told.count(HIDDEN) >= 10
    assert json.loads(to_json(redact_all({"a": [address, 1, None]})))["a"][1:] == [1, None]
