"""From a plan to whom people are told by: recipients from their file, rules from the settings, for all machines and for each."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from asd_daemon.errors import SettingsError
from asd_daemon.run.stores import Stores
from asd_daemon.settings.file import credential_file
from asd_daemon.settings.keys import MachineSettings
from asd_daemon.settings.notify import MachineNotifySettings, NotifySettings
from asd_daemon.settings.plan import Plan
from asd_daemon.tell.notifications.notice import MachineRules, NoticeKind, NotificationRules
from asd_daemon.tell.notifications.notifier import Notifier, Telling
from asd_daemon.tell.notifications.quiet_hours import QuietHours, parse_quiet_time
from asd_daemon.tell.notifications.recipients import Recipient, read_recipients, unknown_tags
from asd_daemon.tell.notifications.sender import is_installed

_LOG = logging.getLogger(__name__)
_PER_MACHINE = tuple(MachineNotifySettings.model_fields)


def make_notifier(plan: Plan, stores: Stores) -> Notifier:
    """Whoever tells people; it tells nobody where nothing of that is configured.

    What was chosen while the daemon ran and can't be used any more, such as a tag that is gone from the file, stops nobody.

    Raises:
        SettingsError: as `telling_of`.
    """
    try:
        telling = telling_of(plan)
    except SettingsError as e:
        if not any(choice.key.startswith("notify.") for choice in plan.laid.held):
            raise
        machines = {name: plan.configured.machines.get(name, machine) for name, machine in plan.machines.items()}
        telling = telling_of(replace(plan, settings=plan.configured, machines=machines))
        _LOG.warning("%s: what was chosen of notify is ignored: %s", plan.chosen.file, e)
    return Notifier(plan.settings.node, stores.notices, stores.pictures, telling)


def telling_of(plan: Plan, environment: Mapping[str, str] = os.environ) -> Telling | None:
    """Who is told of a plan's machines, and by which rules; None where nobody is.

    Raises:
        SettingsError: the file of addresses can't be used, a tag is nobody's, nobody is named for whom an alert shall be escalated, or the
            extra is not installed; names file, line and key.
    """
    notify = plan.settings.notify
    if notify is None:
        return None
    if not is_installed():
        raise SettingsError("notify: messages to people need further packages: pip install 'asd-edge[notify]'")
    recipients = configured_recipients(notify, environment)
    _check_tags(plan, notify, recipients)
    _check_escalation(plan, notify)
    rules = NotificationRules(
        {name: _machine_rules(notify, machine) for name, machine in plan.machines.items()},
        storm_s=notify.storm_s,
        most_per_hour=notify.most_per_hour,
        keep_s=notify.keep_hours * 3600,
        deaf_after_s=notify.deaf_after_s,
        page_url=notify.page_url,
        pictures=notify.pictures,
    )
    return Telling(rules, recipients, _zone(notify))


def configured_recipients(notify: NotifySettings, environment: Mapping[str, str] = os.environ) -> tuple[Recipient, ...]:
    """The addresses of the file that is configured.

    Raises:
        SettingsError: it can't be used; names file and line, and shows no address.
    """
    name = notify.urls_credential
    if name is not None:
        key = "notify.urls_credential"
        file = credential_file(key, name, "the addresses", environment)
        return read_recipients(file, key, is_handed_over="CREDENTIALS_DIRECTORY" in environment)
    return read_recipients(notify.urls_file or Path())


def _check_tags(plan: Plan, notify: NotifySettings, recipients: tuple[Recipient, ...]) -> None:
    named = {"notify.tell": notify.tell, "notify.escalate_to": notify.escalate_to}
    for machine, settings in plan.machines.items():
        named[f"machines.{machine}.notify.tell"] = settings.notify.tell or ()
        named[f"machines.{machine}.notify.escalate_to"] = settings.notify.escalate_to or ()
    for key, tags in named.items():
        if unknown := unknown_tags(recipients, tags):
            known = ", ".join(sorted({tag for recipient in recipients for tag in recipient.tags})) or "none"
            raise SettingsError(
                f"{_place(plan, key)}: nobody has the tag {unknown[0]!r}; tags of the file of addresses: {known}"
            )


def _check_escalation(plan: Plan, notify: NotifySettings) -> None:
    """A time without anybody to tell then would be a promise that nobody keeps; it may be chosen after the configuration was checked."""
    unkept = ["notify.escalate_after_min"] if notify.escalate_after_min is not None and not notify.escalate_to else []
    unkept += [
        f"machines.{name}.notify.escalate_after_min"
        for name, machine in plan.machines.items()
        if machine.notify.escalate_after_min is not None and not _told(notify, machine)["escalate_to"]
    ]
    if unkept:
        where = _place(plan, unkept[0])
        raise SettingsError(f"{where}: needs escalate_to beside it: the tags of those who are told then")


def _place(plan: Plan, key: str) -> str:
    return f"{plan.file}: {key}" if plan.file else key


def _told(notify: NotifySettings, machine: MachineSettings) -> dict[str, Any]:
    """What holds for a machine: its own, and of what it does not set that of all."""
    own = {key: getattr(machine.notify, key) for key in _PER_MACHINE}
    return {key: getattr(notify, key) if value is None else value for key, value in own.items()}


def _machine_rules(notify: NotifySettings, machine: MachineSettings) -> MachineRules:
    told = _told(notify, machine)
    after_min = told["escalate_after_min"]
    escalates = after_min is not None and told["escalate_to"]
    return MachineRules(
        tell=tuple(told["tell"]),
        events=frozenset(NoticeKind(kind) for kind in told["events"]),
        quiet=QuietHours(tuple(parse_quiet_time(text) for text in told["quiet_hours"]), _zone(notify)),
        quiet_passes=frozenset(NoticeKind(kind) for kind in notify.quiet_passes),
        escalate_after_s=after_min * 60 if escalates else None,
        escalate_to=tuple(told["escalate_to"]),
        title=machine.title,
    )


def _zone(notify: NotifySettings) -> ZoneInfo | None:
    return None if notify.timezone is None else ZoneInfo(notify.timezone)
