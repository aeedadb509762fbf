"""What the configuration says of messages becomes rules for each machine; what is wrong in it is refused by key; a reload takes it on."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.errors import SettingsError
from asd_daemon.run import telling_people
from asd_daemon.run.stores import Stores
from asd_daemon.run.telling_people import configured_recipients, make_notifier, telling_of
from asd_daemon.settings.file import parse_settings
from asd_daemon.settings.plan import CommandLineOptions, Plan, make_plan
from asd_daemon.tell.notifications.notice import NoticeKind
from asd_daemon.tell.notifications.sender import is_installed
from rig.daemon import RunningDaemon, ask
from rig.people import HOST, Webhook
from rig.waiting import wait_until


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling_people, "is_installed", lambda: True)


def addresses(folder: Path, text: str = "ops = json://localhost\nboss = json://other\n") -> Path:
    file = folder / "urls"
    file.write_text(text)
    file.chmod(0o600)
    return file


def plan_of(folder: Path, notify: dict[str, Any] | None, **machines: dict[str, Any]) -> Plan:
    file = folder / "asd.yaml"
    machines = machines or {"fan": {}}
    file.write_text(json.dumps({"node": "box", "machines": machines, "notify": notify}))
    return make_plan(CommandLineOptions(file))


def test_machine_has_the_rules_of_all_but_where_it_has_its_own(tmp_path: Path) -> None:
    notify = {
        "urls_file": str(addresses(tmp_path)),
        "tell": ["ops"],
        "quiet_hours": ["22:00-06:00"],
        "timezone": "Europe/Berlin",
        "escalate_after_min": 30,
        "escalate_to": ["boss"],
        "keep_hours": 2,
    }
    own = {"notify": {"tell": [], "events": ["open"], "quiet_hours": [], "escalate_after_min": 5}}
    telling = telling_of(plan_of(tmp_path, notify, fan={}, mill=own))
    assert telling is not None
    fan, mill = telling.rules.of("fan"), telling.rules.of("mill")
    assert (fan.tell, fan.escalate_after_s, fan.escalate_to) == (("ops",), 1800.0, ("boss",))
    assert fan.events == {NoticeKind.OPEN, NoticeKind.CLOSE, NoticeKind.DEAF}
    assert [quiet.begins for quiet in fan.quiet.times] == [22 * 60]
    assert mill.events == {NoticeKind.OPEN}
    assert not mill.tell
    assert not mill.quiet.times
    assert (mill.escalate_after_s, mill.escalate_to) == (300.0, ("boss",))
    assert telling.rules.keep_s == 7200.0
    assert str(telling.zone) == "Europe/Berlin"


def test_nobody_is_told_where_nothing_is_configured(tmp_path: Path) -> None:
    assert telling_of(plan_of(tmp_path, None)) is None


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tell": ["night"]}, "notify.tell: nobody has the tag 'night'; tags of the file of addresses: boss, ops"),
        ({"escalate_to": ["night"], "escalate_after_min": 5}, "notify.escalate_to: nobody has the tag 'night'"),
    ],
)
def test_tag_that_nobody_has_is_refused(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        telling_of(plan_of(tmp_path, {"urls_file": str(addresses(tmp_path)), **more}))
    assert words in str(refused.value)
    assert str(tmp_path / "asd.yaml") in str(refused.value)


def test_time_of_one_machine_after_which_nobody_would_be_told_is_refused(tmp_path: Path) -> None:
    """It was taken and nothing came of it; so was one that was chosen at the page for all machines."""
    own, urls = {"notify": {"escalate_after_min": 5}}, str(addresses(tmp_path))
    with pytest.raises(SettingsError, match=r"machines\.fan\.notify\.escalate_after_min: needs escalate_to beside it"):
        telling_of(plan_of(tmp_path, {"urls_file": urls}, fan=own))
    assert telling_of(plan_of(tmp_path, {"urls_file": urls, "escalate_to": ["boss"]}, fan=own)) is not None
    plan = plan_of(tmp_path, {"urls_file": urls})
    assert plan.settings.notify is not None
    chosen = plan.settings.notify.model_copy(update={"escalate_after_min": 5.0})
    with pytest.raises(SettingsError, match=r"notify\.escalate_after_min: needs escalate_to"):
        telling_of(replace(plan, settings=plan.settings.model_copy(update={"notify": chosen})))


def test_tag_of_one_machine_that_nobody_has_is_refused(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, {"urls_file": str(addresses(tmp_path))}, fan={"notify": {"tell": ["night"]}})
    with pytest.raises(SettingsError, match=r"machines\.fan\.notify\.tell: nobody has the tag 'night'"):
        telling_of(plan)


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        ("{}", "x:1: notify: notify needs urls_file or urls_credential"),
        ("{urls_file: a, urls_credential: b}", "x:1: notify: notify needs urls_file or urls_credential, and not both"),
        ("{urls_file: a, escalate_after_min: 5}", "escalate_after_min needs escalate_to"),
        ("{urls_file: a, quiet_hours: [22-6]}", 'x:1: notify.quiet_hours.0: must be times as "22:00-06:00"'),
        ("{urls_file: a, timezone: Berlin}", "x:1: notify.timezone: is no time zone that this box knows"),
        ("{urls_file: a, tell: [a b]}", "x:1: notify.tell.0: a tag is 1 to 64 letters"),
        ("{urls_file: a, event: [open]}", "x:1: notify.event: unknown key (did you mean events?)"),
        ("{urls_file: a, page_url: box}", "x:1: notify.page_url: must be a URL"),
    ],
)
def test_key_that_is_wrong_is_named_with_its_line(notify: str, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(f"notify: {notify}", "x")
    assert words in str(refused.value)


def test_section_whose_keys_are_all_commented_out_is_none() -> None:
    assert parse_settings("notify:\n", "x").notify is None


def test_addresses_that_systemd_hands_over_are_read_from_there(tmp_path: Path) -> None:
    addresses(tmp_path).chmod(0o444)
    notify = parse_settings("notify: {urls_credential: urls}", "x").notify
    assert notify is not None
    found = configured_recipients(notify, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert [sorted(recipient.tags) for recipient in found] == [["ops"], ["boss"]]
    with pytest.raises(
        SettingsError, match=r"notify.urls_credential: /etc/asd-daemon/urls can't be read.*service install"
    ):
        configured_recipients(notify, {})


def test_program_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling_people, "is_installed", lambda: False)
    with pytest.raises(SettingsError, match=r"pip install 'asd-edge\[notify\]'"):
        telling_of(plan_of(tmp_path, {"urls_file": str(addresses(tmp_path))}))


def test_choice_of_somebody_who_is_gone_from_the_file_is_ignored_and_named_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    chosen = tmp_path / "state" / "chosen.yaml"
    chosen.write_text("notify: {quiet_hours: [sat-sun]}\nmachines: {fan: {notify: {tell: [ops]}}}\n")
    notify = {"urls_file": str(addresses(tmp_path))}
    plan = plan_of(tmp_path, notify, fan={"title": "Fan of hall 3"})
    telling = telling_of(plan)
    assert telling is not None
    fan = telling.rules.of("fan")
    assert (fan.tell, len(fan.quiet.times), fan.title) == (("ops",), 1, "Fan of hall 3")
    addresses(tmp_path, "night = json://localhost\n")
    stores = Stores(tmp_path / "state", plan.settings.keep, ["fan"])
    notifier = make_notifier(plan, stores)
    assert [recipient.name for recipient in notifier.status.recipients] == ["night (json, line 1)"]
    assert "what was chosen of notify is ignored: " in caplog.text
    chosen.unlink()
    with pytest.raises(SettingsError, match="nobody has the tag 'ops'"):
        make_notifier(plan_of(tmp_path, {**notify, "tell": ["ops"]}), stores)


@pytest.mark.skipif(not is_installed(), reason="needs the extra `notify`")
def test_running_daemon_takes_on_who_is_told_and_refuses_a_file_that_is_broken(tmp_path: Path) -> None:
    plan = {"machines": {"fan": {"source": {"simulate": "fan?speed=50"}}}}
    file = tmp_path / "asd.yaml"

    def reload(content: object, words: str) -> None:
        file.write_text(json.dumps(content))
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(words in line for line in daemon.log), words)

    file.write_text(json.dumps(plan))
    with Webhook() as hook, RunningDaemon("run", "--config", file, home=tmp_path) as daemon:
        wait_until(lambda: any("listening to" in line for line in daemon.log), "it listens")
        urls = addresses(tmp_path, f"ops = json://{HOST}:{hook.port}\n")
        notify = {"urls_file": str(urls), "quiet_hours": ["sat"]}
        told = {**plan, "notify": notify}
        reload(told, "configuration read anew: notify")
        wait_until(lambda: "ops (json, line 1)" in ask("status", home=tmp_path).stdout, "the status names who is told")
        urls.write_text("hunter2\n")
        reload(told, "the configuration is refused, and what runs goes on: notify.urls_file")
        urls.write_text(f"night = json://{HOST}:{hook.port}\n")
        reload({**plan, "notify": {**notify, "quiet_hours": []}}, "read anew: notify.quiet_hours")
        wait_until(lambda: "night (json, line 1)" in ask("status", home=tmp_path).stdout, "the file is read again")
        assert not any("hunter2" in line for line in daemon.log)
        assert daemon.stop() == 0, daemon.log
