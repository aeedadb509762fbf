"""Where a broker is, as people write it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_daemon.errors import SettingsError, UsageError
from asd_daemon.settings.broker_words import parse_broker
from asd_daemon.settings.file import parse_settings, read_password
from asd_daemon.settings.keys import MqttSettings
from asd_daemon.settings.plan import CommandLineOptions, make_plan


@pytest.mark.parametrize(
    ("words", "host", "port", "tls"),
    [
        ("broker.local", "broker.local", 1883, False),
        ("mqtt://broker.local:1884", "broker.local", 1884, False),
        ("mqtt://broker.local", "broker.local", 1883, False),
        ("MQTTS://broker.local/", "broker.local", 8883, True),
        ("ssl://h:1234", "h", 1234, True),
        ("h:1234", "h", 1234, False),
        ("  h ", "h", 1883, False),
        ("10.0.0.7:1883", "10.0.0.7", 1883, False),
        ("[fe80::1]:1884", "fe80::1", 1884, False),
        ("fe80::1", "fe80::1", 1883, False),
        ("fe80::1%eth0", "fe80::1%eth0", 1883, False),
        ("my_broker.", "my_broker.", 1883, False),
    ],
)
def test_host_that_is_clear_is_taken(words: str, host: str, port: int, tls: bool) -> None:
    mqtt = parse_settings(f"mqtt: {{host: {words!r}}}", "F").mqtt
    assert mqtt is not None
    assert (mqtt.host, mqtt.effective_port, mqtt.tls) == (host, port, tls)
    plan = make_plan(CommandLineOptions(machines=("fan",), source="simulate:fan", broker=words, config=_empty()))
    assert plan.settings.mqtt == mqtt


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("${BROKER}", "variables are not filled in"),
        ("$BROKER", "variables are not filled in"),
        ("{{ broker }}", "variables are not filled in"),
        ("broker local", "no name or address"),
        ("mqtt://user:hunter2@h", "username and password_file"),
        ("ws://h:9001", "websockets"),
        ("amqp://h", "amqp:// is unknown"),
        ("h:mqtt", "the port must be a number"),
        ("h:0", "the port must be a number"),
        ("h:70000", "the port must be a number"),
        ("mqtt://h/topic", "no path"),
        ("mqtt://", "name is missing"),
        ("[fe80::1", "[ADDRESS]:PORT"),
        ("h..x", "no name or address"),
        ("x" * 64, "no name or address"),
    ],
)
def test_host_that_is_not_clear_is_refused_when_it_is_read(words: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"F:1: mqtt.host: ") as refused:
        parse_settings(f"mqtt: {{host: {words!r}}}", "F")
    assert reason in str(refused.value)
    with pytest.raises(UsageError, match="must be HOST or HOST:PORT") as refused_too:
        make_plan(CommandLineOptions(machines=("fan",), source="simulate:fan", broker=words, config=_empty()))
    assert reason in str(refused_too.value)


def _empty() -> Path:
    return Path("/dev/null")


@pytest.mark.parametrize("more", ["port: 1", "tls: false"])
def test_host_that_says_something_else_than_its_keys_is_refused(more: str) -> None:
    with pytest.raises(SettingsError, match="keep one of them"):
        parse_settings(f"mqtt: {{host: 'mqtts://h:8883', {more}}}", "F")
    same = parse_settings("mqtt: {host: 'mqtts://h:8883', port: 8883, tls: true}", "F").mqtt
    assert same is not None
    assert same.effective_port == 8883


@pytest.mark.parametrize(
    ("hosts", "names", "port", "tls"),
    [
        ("[broker-1, broker-2]", ("broker-1", "broker-2"), 1883, False),
        ("[10.0.0.1]", ("10.0.0.1",), 1883, False),
        ("['mqtts://a', b]", ("a", "b"), 8883, True),
        ("['a:1884', 'b:1884', c]", ("a", "b", "c"), 1884, False),
    ],
)
def test_nodes_of_a_cluster_are_a_list(hosts: str, names: tuple[str, ...], port: int, tls: bool) -> None:
    mqtt = parse_settings(f"mqtt: {{host: {hosts}}}", "F").mqtt
    assert mqtt is not None
    assert (mqtt.hosts, mqtt.effective_port, mqtt.tls) == (names, port, tls)


@pytest.mark.parametrize(
    ("hosts", "reason"),
    [
        ("[]", "mqtt.host: must be a name, or a list of names"),
        ("[a, 5]", "mqtt.host: must be a name, or a list of names"),
        ("{a: b}", "mqtt.host: must be a name, or a list of names"),
        ("[a, b, a]", "mqtt.host: a is there twice"),
        ("[a, 'b c']", "mqtt.host: is no name or address"),
        ("['a:1', 'b:2']", "host says port 1 and 2; all nodes have the same"),
        ("['mqtt://a', 'mqtts://b']", "host says tls false and true"),
    ],
)
def test_list_of_nodes_that_is_none_is_refused(hosts: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=r"F:1: mqtt") as refused:
        parse_settings(f"mqtt: {{host: {hosts}}}", "F")
    assert reason in str(refused.value)


@given(st.text(max_size=40))
def test_any_text_is_taken_or_refused_in_words(text: str) -> None:
    try:
        said = parse_broker(text)
    except ValueError as e:
        assert str(e)
        return
    assert said.host
    assert not set(said.host) & set(" \t\n/@$")


def test_password_file_and_configuration_with_a_mark_in_front_are_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbfs3cret\r\n")
    assert read_password(MqttSettings(host="h", username="u", password_file=file)) == "s3cret"
    configuration = tmp_path / "asd.yaml"
    configuration.write_bytes(b"\xef\xbb\xbfmqtt: {host: h}\r\n")
    plan = make_plan(CommandLineOptions(machines=("fan",), source="simulate:fan", config=configuration))
    assert plan.settings.mqtt is not None
