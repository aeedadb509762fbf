"""`asd-daemon notify`: try whether messages reach the people they are for."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from asd_daemon.cli.options import config_option, json_option
from asd_daemon.errors import SettingsError, UsageError


@click.group()
def notify() -> None:
    """Messages to people: mail, chat, push services and webhooks."""


@notify.command()
@click.option("--recipient", "tags", multiple=True, metavar="TAG", help="Only those with this tag; may be repeated.")
@config_option
@json_option
def test(tags: tuple[str, ...], config: Path | None, as_json: bool) -> int:
    """Send everybody, or those with a tag, a message with a picture, and say what became of each; exit code 1 if one failed.

    \b
    Examples:
      asd-daemon notify test
      asd-daemon notify test --recipient ops
    """
    from asd_daemon.run.telling_people import configured_recipients
    from asd_daemon.settings.file import load_settings, settings_file
    from asd_daemon.settings.keys import Settings
    from asd_daemon.tell.notifications.recipients import chosen, unknown_tags
    from asd_daemon.tell.notifications.sender import Job, Sender
    from asd_daemon.tell.notifications.trial import trial_message

    file = settings_file(config)
    settings = load_settings(file) if file else Settings()
    if settings.notify is None:
        raise SettingsError(f"{file or 'there is no configuration'}: notify: nobody is configured to be told")
    recipients = configured_recipients(settings.notify)
    if unknown := unknown_tags(recipients, tags):
        known = ", ".join(sorted({tag for recipient in recipients for tag in recipient.tags})) or "none"
        raise UsageError(f"--recipient {unknown[0]!r}: nobody has this tag; there are {known}")
    told = chosen(recipients, tags)
    message = trial_message(settings.node, time.time(), pictures=settings.notify.pictures)
    failed: list[str] = []

    def result(number: int, why: str | None) -> None:
        name = told[number].name
        failed.extend([name] if why is not None else [])
        if as_json:
            click.echo(json.dumps({"recipient": name, "ok": why is None, "why": why}, ensure_ascii=False))
        else:
            click.echo(f"{'ok  ' if why is None else 'FAIL'}  {name}" + (f": {why}" if why is not None else ""))

    Sender().send([Job(recipient, message) for recipient in told], result)
    return 1 if failed else 0
