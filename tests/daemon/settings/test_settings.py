"""The configuration: what is accepted, and how a mistake is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asd_daemon.errors import SettingsError
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.judge.bundle.bundle import default_bundle
from asd_daemon.settings.file import (
    SYSTEM_FILE,
    load_settings,
    parse_settings,
    read_password,
    settings_file,
    state_folder,
)
from asd_daemon.settings.keys import AlarmSettings, MachineSettings, MqttSettings, Settings
from asd_daemon.settings.plan import CommandLineOptions, make_plan
from asd_daemon.settings.sample import sample_text
from asd_daemon.settings.sections import SourceSettings

ROOT = Path(__file__).resolve().parents[3]

DESIGN = """
node: line-3
machines:
  fan:
    source: {device: "usb-id:0d8c:0014", channel: 0}
    alarm: {open_after: 2, of: 3, close_after: 6, false_alarms_per_week: 1}
bundle: /var/lib/asd/bundles/current
mqtt: {host: broker.local, port: 8883, tls: true, username: line-3, password_file: /run/credentials/asd/mqtt, prefix: asd}
"""


def test_configuration_of_the_design_is_accepted() -> None:
    settings = parse_settings(DESIGN, "F")
    assert settings.node == "line-3"
    assert settings.machine("fan").source.spec() == SourceSpec("device", "usb-id:0d8c:0014", {"channel": "0"})
    assert settings.mqtt is not None
    assert settings.mqtt.effective_port == 8883


@pytest.mark.parametrize(
    "source",
    [
        "{device: card, channel: 1, far: 0}",
        "{near: {device: card, channel: 1}, far: {device: card, channel: 0}}",
        "{near: {device: card, channel: 1}, far: {device: card}}",
    ],
)
def test_a_second_microphone_is_another_channel_of_the_device(source: str) -> None:
    fan = parse_settings(f"machines: {{fan: {{source: {source}}}}}", "F").machine("fan")
    assert fan.source.spec() == SourceSpec("device", "card", {"channel": "1", "far": "0"})


def test_a_second_microphone_may_be_a_device_of_its_own() -> None:
    text = "machines: {fan: {source: {near: {device: a, channel: 1}, far: {device: b, channel: 1}}}}"
    spec = parse_settings(text, "F").machine("fan").source.spec()
    assert spec == SourceSpec("device", "a", {"channel": "1", "far": "1", "far_device": "b"})
    assert spec.far_device == SourceSpec("device", "b", {"channel": "1"})


def test_empty_configuration_has_a_default_for_everything_but_the_broker() -> None:
    settings = parse_settings("", "F")
    assert settings.machines == {}
    assert settings.mqtt is None
    assert settings.node
    fan = parse_settings("machines: {fan: {}}", "F").machine("fan")
    assert fan.source.spec() == SourceSpec("device", "default")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "machines:\n  fan:\n    alarm:\n      open_afer: 2",
            "F:4: machines.fan.alarm.open_afer: unknown key (did you mean open_after?)",
        ),
        (
            "machines:\n  fan: {}\n  pump: {}\n  fan: {model: x}",
            "F:4: machines.fan: is given twice, on line 2 and here; keep one of them",
        ),
        (
            "machines: {fan: {source: {simulate: 'fan?x'}}}",
            "F:1: machines.fan.source: source 'simulate:fan?x': 'x' must be option=value&option=value",
        ),
        (
            "machines: {fan: {source: {near: {device: a}, far: {file: b}}}}",
            "F:1: machines.fan.source: near and far must be two devices, or channels of one device, file or folder; got device: a and"
            " file: b",
        ),
        (
            "machines: {fan: {source: {device: a, far_device: a}}}",
            "F:1: machines.fan.source: source device:a?far_device=a: far_device is the machine's own; leave it out, and far is a channel of"
            " that",
        ),
        (
            "machines: {fan: {source: {device: a, far: 0}}}",
            "F:1: machines.fan.source: source device:a?far=0: far must be another channel than that of the machine, which is 0",
        ),
        (
            "machines: {fan: {source: {near: a, far: b}}}",
            "F:1: machines.fan.source: near and far must be sources of their own and stand alone: {near: {…}, far: {…}}",
        ),
        (
            "machines: {fan: {source: {simulate: fan, far: 1}}}",
            "F:1: machines.fan.source: far has no meaning for simulate; write simulate: fan?far=1",
        ),
        ("mashines: {}", "F:1: mashines: unknown key (did you mean machines?)"),
        (
            "machines: {fan: {zzz: 1}}",
            "F:1: machines.fan.zzz: unknown key; known keys: source, title, model, hop_s, alarm, quality",
        ),
        ("node: a\nmqtt: {hots: a}", "F:2: mqtt.host: is missing (and 1 more)"),
        (
            "node: a\nmqtt:\n  host: a\n  port: 99999",
            "F:4: mqtt.port: input should be less than or equal to 65535, got 99999",
        ),
        (
            "machines: {fan: {source: {file: a, device: b}}}",
            "F:1: machines.fan.source: give exactly one of device, file, folder, command, simulate; got device, file",
        ),
        (
            "machines: {fan: {source: {simulate: fan, channel: 1}}}",
            "F:1: machines.fan.source: channel has no meaning for simulate",
        ),
        (
            "machines: {fan: {alarm: {open_after: 4}}}",
            "F:1: machines.fan.alarm: open_after (4) must not be more than of (3)",
        ),
        ("machines: {fan: {hop_s: .nan}}", "F:1: machines.fan.hop_s: input should be a finite number, got nan"),
        (
            "mqtt: {host: a, ca_file: b}",
            "F:1: mqtt: ca_file, cert_file and key_file have a meaning with tls: true only",
        ),
        ("mqtt: {host: a, prefix: a/#}", "F:1: mqtt.prefix: must be a topic without +"),
        (
            "machines:\n  no: {}",
            'F:2: machines.no: YAML reads no as false, where a text is meant; write it in quotes: "no"',
        ),
        (
            "machines:\n  fan: {}\n  3: {}",
            "F:3: machines.3: YAML reads 3 as 3, where a text is meant; write it in quotes",
        ),
        (
            "machines: {fan: {source: {2026-01-02: 1}}}",
            'F:1: machines.fan.source.2026-01-02: YAML reads 2026-01-02 as "2',
        ),
        ("\nnode: yes", 'F:2: node: YAML reads yes as true, where a text is meant; write it in quotes: "yes"'),
        (
            "node: a b",
            "F:1: node: a name is 1 to 64 letters (a-z), digits, _, . and -, without blanks, and begins with",
        ),
        ("machines: {my fan: {}}", "F:1: machines.my fan: a name is 1 to 64 letters (a-z), digits"),
        ("a: [", "F:1: is no YAML: expected the node content"),
        ("- 1", "F: must hold keys and values, holds a list"),
        ("node: !!python/object/apply:os.getcwd []", "F:1: is no YAML: could not determine a constructor"),
    ],
)
def test_mistake_is_named_with_line_key_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        parse_settings(text, "F")
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_mistake_in_a_text_never_shows_a_pattern() -> None:
    for text in ("node: é", "machines: {a b: {}}", "mqtt: {host: a, prefix: +}", "health: {ping_url: x}"):
        with pytest.raises(SettingsError) as raised:
            parse_settings(text, "F")
        assert not re.search(r"\^|\$|\\|\[|pattern", str(raised.value)), raised.value


def test_machine_name_that_no_topic_can_hold_is_refused() -> None:
    for name in ("a/b", "a+", "#", "", "a b", "-a", "ä"):
        with pytest.raises(SettingsError, match="machines"):
            parse_settings(yaml.safe_dump({"machines": {name: {}}}), "F")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["machines", "fan", "source", "device", "alarm", "of", "mqtt", "host", "port"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_content_is_accepted_or_refused_with_file_and_reason(content: object) -> None:
    try:
        parse_settings(yaml.safe_dump(content), "F")
    except SettingsError as e:
        assert str(e).startswith("F:")


@given(st.text(max_size=60))
def test_any_text_is_accepted_or_refused_with_file_and_reason(text: str) -> None:
    try:
        parse_settings(text, "F")
    except SettingsError as e:
        assert str(e).startswith("F:")


def test_unknown_machine_lists_those_there_are() -> None:
    with pytest.raises(SettingsError, match="machine 'lathe' is unknown; machines: fan"):
        parse_settings(DESIGN, "F").machine("lathe")


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_settings(tmp_path / "binary.yaml")
    with pytest.raises(SettingsError, match="Is a directory"):
        load_settings(tmp_path)


def test_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    mqtt = MqttSettings(host="a", username="u", password_file=file)
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        read_password(mqtt)
    file.write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        read_password(mqtt)
    file.write_text("pass word \nrest\n")
    assert read_password(mqtt) == "pass word "
    assert read_password(MqttSettings(host="a")) is None


def test_settings_file_is_the_given_then_the_environments_then_the_systems() -> None:
    given_file = Path("/given.yaml")
    assert settings_file(given_file, {"ASD_CONFIG": "/env.yaml"}) == given_file
    assert settings_file(None, {"ASD_CONFIG": "/env.yaml"}) == Path("/env.yaml")
    assert settings_file(None, {}) == (SYSTEM_FILE if SYSTEM_FILE.exists() else None)


def test_state_folder_is_ours_then_systemds_then_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    full = {"ASD_STATE_DIR": "/a", "STATE_DIRECTORY": "/b:/c", "XDG_STATE_HOME": "/d"}
    assert state_folder(full) == Path("/a")
    assert state_folder({k: full[k] for k in ("STATE_DIRECTORY", "XDG_STATE_HOME")}) == Path("/b")
    assert state_folder({"XDG_STATE_HOME": "/d"}) == Path("/d/asd-daemon")
    assert state_folder({}) == Path("/home/u/.local/state/asd-daemon")


def test_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", classmethod(nobodys_home))
    with pytest.raises(SettingsError, match="no home folder; set ASD_STATE_DIR"):
        state_folder({})
    assert state_folder({"XDG_STATE_HOME": "/d"}) == Path("/d/asd-daemon")


def nobodys_home(_: type[Path]) -> Path:
    raise RuntimeError("Could not determine home directory.")  # as pathlib says it to a service's user


def test_password_from_a_systemd_credential(tmp_path: Path) -> None:
    mqtt = MqttSettings(host="a", username="u", password_credential="mqtt-password")
    (tmp_path / "mqtt-password").write_text("s3cret\n")
    assert read_password(mqtt, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == "s3cret"
    with pytest.raises(SettingsError, match="LoadCredential=mqtt-password"):
        read_password(mqtt, {})
    with pytest.raises(SettingsError, match="password_credential: .* can't be read"):
        read_password(mqtt, {"CREDENTIALS_DIRECTORY": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("mqtt", "message"),
    [
        ("{host: a, password_credential: b}", "password_credential needs username"),
        ("{host: a, username: u, password_file: b, password_credential: c}", "password_file or password_credential"),
        ("{host: a, password_credential: ../b, username: u}", "must be the name of a file in /etc/asd-daemon"),
    ],
)
def test_password_in_two_places_or_of_nobody_is_refused(mqtt: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_settings(f"mqtt: {mqtt}", "F")


def test_sound_that_may_not_be_stored_makes_no_clips_whatever_else_is_said() -> None:
    assert parse_settings("keep: {clips: alerts}", "F").keep.keeps_clips
    assert not parse_settings("keep: {clips: none}", "F").keep.keeps_clips
    assert not parse_settings("keep: {clips: alerts, store_sound: false}", "F").keep.keeps_clips
    assert parse_settings("{}", "F").keep.keeps_enrolment_sound
    for keep in ("{store_sound: false}", "{enrolment_sound: true, store_sound: false}", "{enrolment_sound: false}"):
        assert not parse_settings(f"keep: {keep}", "F").keep.keeps_enrolment_sound


def test_sample_is_valid_and_shows_every_key() -> None:
    text = sample_text()
    settings = parse_settings(text, "sample")
    assert settings.mqtt is not None
    assert settings.machines["fan"].source.device == "default"
    shown = {line.strip().lstrip("#").split(":")[0] for line in text.splitlines() if not line.strip().startswith("# ")}
    sections = (Settings, MachineSettings, SourceSettings, AlarmSettings, MqttSettings)
    assert {name for section in sections for name in section.model_fields} <= shown


def test_sample_with_any_one_key_uncommented_is_understood() -> None:
    """Every example has a value of the right kind; only keys that exclude each other may be refused."""
    lines = sample_text().splitlines()
    for number, line in enumerate(lines):
        if not line.strip().startswith("#") or line.strip().startswith("# "):
            continue
        changed = [*lines[:number], line.replace("#", "", 1), *lines[number + 1 :]]
        try:
            parse_settings("\n".join(changed), "sample")
        except SettingsError as e:
            assert any(words in str(e) for words in ("exactly one of", "with tls: true only", "needs")), str(e)


def test_every_key_has_a_sentence() -> None:
    for section in (Settings, MachineSettings, SourceSettings, AlarmSettings, MqttSettings):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            if name.endswith("_s"):
                assert "second" in field.description


def test_committed_sample_is_current() -> None:
    assert (ROOT / "deploy" / "asd-daemon.yaml").read_text() == sample_text(), (
        "run: asd-daemon sample-config > deploy/asd-daemon.yaml"
    )


def test_configured_bundle_that_is_current_no_more_is_the_programs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    shared = tmp_path / "shared" / "bundles"
    (shared / "versions").mkdir(parents=True)
    (tmp_path / "asd.yaml").write_text(f"bundle: {shared / 'current'}\nmachines: {{fan: {{}}}}\n")
    options = CommandLineOptions(config=tmp_path / "asd.yaml")
    assert make_plan(options).bundle == default_bundle()
    (shared / "versions" / "one").mkdir()
    (shared / "current").symlink_to("versions/one")
    assert make_plan(options).bundle == shared / "current"
    (tmp_path / "asd.yaml").write_text(f"bundle: {tmp_path / 'nowhere'}\nmachines: {{fan: {{}}}}\n")
    assert make_plan(options).bundle == tmp_path / "nowhere"


@pytest.mark.parametrize(
    ("text", "words"),
    [("machines:", "holds nothing"), ("machines: [fan]", "holds ['fan']"), ("machines: {fan: 3}", "holds 3")],
)
def test_section_that_is_none_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(text, "c.yaml")
    assert f"must hold keys and values, {words}" in str(refused.value)
    assert "dictionary" not in str(refused.value)


def test_bundle_is_a_folder_or_what_a_server_offers(tmp_path: Path) -> None:
    alone = parse_settings("bundle: /opt/bundle\n", "a.yaml").bundle
    assert (alone.folder, alone.url) == (Path("/opt/bundle"), None)
    text = "bundle_key: /k.pem\nbundle: {url: 'https://b/x', check: 90m, trial: 0s, window: 'sat-sun 02:00-04:00'}\n"
    offered = parse_settings(text, "a.yaml").bundle
    assert (offered.check_s, offered.trial_s, offered.channel) == (5400.0, 0.0, "stable")
    assert parse_settings("bundle:\n  # all commented out\n", "a.yaml").bundle.folder is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bundle: {url: 'https://b/x'}", "bundle.url needs bundle_key"),
        ("bundle_key: /k\nbundle: {url: 'http://b/x'}", "insecure: true"),
        ("bundle_key: /k\nbundle: {url: 'https://b', folder: /opt/b}", "folder or url, not both"),
        ("bundle: {check: soon}", "bundle.check: must be a time up to 90 days"),
        ("bundle: {check: 0s}", "bundle.check: must be at least 1s"),
        ("bundle: {trial: 91d}", "bundle.trial"),
        ("bundle: {window: night}", "bundle.window"),
        ("bundle: {timezone: Europe/Nowhere}", "no time zone"),
        ("bundle: {urll: x}", "did you mean url"),
        ("bundle: {check: 1}", "bundle.check: must be a time up to 90 days, such as 90m, 12h or 3d, got 1"),
        ("bundle: {trial: true}", "bundle.trial: must be a time up to 90 days, such as 90m, 12h or 3d, got True"),
        ("bundle: {insecure: maybe}", "bundle.insecure: must be true or false, got 'maybe'"),
        ("bundle: {ca_file: 3}", "bundle.ca_file: must be the path of a file or folder, got 3"),
        ("bundle: {ring: [plant]}", "bundle.ring: must be one text, got ['plant']"),
        ("bundle: {window: [a]}", "bundle.window: must be one text, got ['a']"),
        ("bundle: {url: 'https://b/x?y=1'}", "bundle.url: must be a URL without ? and #"),
        ("bundle: {url: 'https://b/x/rollout.json'}", "bundle.url: must be the folder of rollout.json, without that"),
        (
            "bundle: {url: 'https://b:99999/x'}",
            "bundle.url: must be a URL: port out of range 0-65535, got 'https://b:9",
        ),
        ("bundle: {url: 'https://me:secret@b/x'}", "bundle.url: must be a URL without user and password"),
        ("bundle: {url: 'https://b:x/x'}", "bundle.url: must be a URL: port could not be cast"),
        ("bundle: https://b/x", "bundle: is a folder when it stands alone; write it as url: below bundle, got 'https"),
        ("bundle_key: /k\nbundle: {url: 'http://b/x'}", "bundle: url: http://b/x is fetched with insecure: true only"),
    ],
)
def test_wrong_words_of_a_rollout_are_named(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(words)):
        parse_settings(text, "a.yaml")
