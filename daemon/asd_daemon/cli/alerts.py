"""`asd-daemon alerts`: look at past alerts, and say what they were.

Reads the words and prints. Where a daemon hears the machine it is asked to take the word; where none does, the word is noted here and the
daemon takes it when it starts.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.options import json_option
from asd_daemon.errors import AsdError, CannotStartError, UsageError
from asd_daemon.wording import counted, score_of

if TYPE_CHECKING:
    from asd_daemon.tell.commands import Answer, Command
    from asd_daemon.tell.storage.alert_archive import AlertArchive, ArchivedAlert

ANSWER_S = 30.0
_machine_option = click.option("--machine", metavar="NAME", help="This machine only.")
_undo_option = click.option("--undo", is_flag=True, help="Take it back.")


@click.group()
def alerts() -> None:
    """Look at past alerts, and say what they were: normal, or a fault with a name."""


@alerts.command("list")
@_machine_option
@json_option
def list_alerts(machine: str | None, as_json: bool) -> None:
    """List alerts that are kept, the oldest first."""
    found = [(name, alert) for name, archive in _archives(machine) for alert in archive.all()]
    for name, alert in sorted(found, key=lambda each: each[1].started_at):
        click.echo(json.dumps(_facts(name, alert), ensure_ascii=False) if as_json else _line(name, alert))
    if not found and not as_json:
        click.echo("no alert is kept here", err=True)


@alerts.command()
@click.argument("alert_id")
@_machine_option
@json_option
def show(alert_id: str, machine: str | None, as_json: bool) -> None:
    """Show an alert; the beginning of its name is enough."""
    from asd_daemon.settings.file import state_folder

    name, _, alert = _find(alert_id, machine)
    if as_json:
        click.echo(json.dumps(_facts(name, alert), ensure_ascii=False))
        return
    click.echo(_line(name, alert))
    click.echo(
        f"  {alert.event_id}: peak score {score_of(alert.peak_score, alert.threshold)}, {counted(alert.windows, 'window')} kept"
    )
    if alert.note is not None:
        click.echo(f"  note: {alert.note}")
    if alert.clip is not None:
        file = state_folder() / alert.clip
        click.echo(f"  sound: {file}" if file.exists() else "  its sound is not kept any more")


@alerts.command()
@click.argument("alert_id")
@_machine_option
@_undo_option
def normal(alert_id: str, machine: str | None, undo: bool) -> int:
    """Say that an alert was normal: its windows are taken for normal at once, and it closes if it is open.

    For another product, a new setting, a door that was repaired: sound that will come again. It can be taken back with --undo.
    """
    return _say("normal", alert_id, machine, {"undo": undo})


@alerts.command()
@click.argument("alert_id")
@click.option("--name", metavar="WORDS", help="What the fault is called, such as bearing.")
@_machine_option
@_undo_option
def fault(alert_id: str, name: str | None, machine: str | None, undo: bool) -> int:
    """Say that an alert was a fault, and which: later alerts that resemble it carry its name."""
    if name is None and not undo:
        raise UsageError("--name: a fault needs a name, such as --name bearing")
    return _say("fault", alert_id, machine, {"undo": undo, **({"name": name} if name is not None else {})})


@alerts.command()
@click.argument("alert_id")
@click.argument("text", nargs=-1)
@_machine_option
def note(alert_id: str, text: tuple[str, ...], machine: str | None) -> int:
    """Write something down about an alert: what was found, what was done. Without words what was written goes."""
    return _say("note", alert_id, machine, {"text": " ".join(text)})


@alerts.command()
@click.argument("alert_id")
@_machine_option
@click.option("--device", metavar="NAME", help="Where to play it, by name or number.  [default: the system's]")
def play(alert_id: str, machine: str | None, device: str | None) -> None:
    """Play the sound around an alert on this box; Ctrl-C ends it."""
    from asd_daemon.cli.playback import play_sound
    from asd_daemon.settings.file import state_folder
    from asd_daemon.waveform import read_waveform

    name, _, alert = _find(alert_id, machine)
    file = None if alert.clip is None else state_folder() / alert.clip
    if file is None or not file.exists():
        raise UsageError(f"{alert_id}: its sound is not kept{'' if file is None else ' any more'}")
    click.echo(f"{name}: {file}", err=True)
    play_sound(read_waveform(file), device)


def _say(word: str, alert_id: str, only: str | None, more: dict[str, object]) -> int:
    """Give somebody's word to the daemon that hears the machine, or note it; the exit code."""
    from asd_daemon.run.stores import commands_folder
    from asd_daemon.settings.file import state_folder
    from asd_daemon.tell.commands import parse_command
    from asd_daemon.tell.storage.command_spool import CommandSpool
    from asd_daemon.tell.storage.machine_locks import is_heard

    machine, archive, alert = _find(alert_id, only)
    wish = {"command": word, "event_id": alert.event_id, **more}
    try:
        command = parse_command(json.dumps(wish).encode())
    except ValueError as e:
        raise UsageError(f"{'--name ' if word == 'fault' else ''}{e}") from e
    spool = CommandSpool(commands_folder(state_folder()))
    try:
        if is_heard(state_folder(), machine):
            answer = spool.wait(machine, spool.put(machine, command), ANSWER_S)
        else:
            answer = _noted(archive, alert, command)
            if answer.ok and alert.closed_at is None:
                spool.put(machine, command)  # the daemon closes it when it starts
    except OSError as e:
        raise CannotStartError(f"{state_folder()}: can't be written: {e.strerror or e}; try sudo") from e
    if answer is None:
        click.echo(
            f"{machine}: the daemon has not answered yet; it takes the word when it judges the next window", err=True
        )
        return 1
    click.echo(answer.text, err=not answer.ok)
    return 0 if answer.ok else 1


def _noted(archive: AlertArchive, alert: ArchivedAlert, command: Command) -> Answer:
    """Take the word here, where no daemon hears the machine."""
    from asd_daemon.run.alert_teaching import say_of

    return say_of(archive, alert, command, datetime.now(UTC))


def _archives(machine: str | None) -> list[tuple[str, AlertArchive]]:
    from asd_daemon.run.stores import alerts_folder
    from asd_daemon.settings.file import state_folder
    from asd_daemon.tell.storage.alert_archive import AlertArchive, archived_machines

    root = alerts_folder(state_folder())
    names = archived_machines(root)
    if machine is not None and machine not in names:
        raise UsageError(
            f"--machine {machine!r}: no alerts of it are kept; there are those of {', '.join(names) or 'none'}"
        )
    return [(name, AlertArchive(root, name)) for name in names if machine in (None, name)]


def _find(alert_id: str, machine: str | None) -> tuple[str, AlertArchive, ArchivedAlert]:
    """The machine and the alert that is meant.

    Raises:
        UsageError: there is none, or there are several.
    """
    found, refusal = [], UsageError(f"{alert_id}: there is no such alert; `asd-daemon alerts list` has them")
    for name, archive in _archives(machine):
        try:
            found.append((name, archive, archive.read(alert_id)))
        except AsdError as e:
            refusal = UsageError(str(e))
    if len(found) > 1:
        raise UsageError(f"{alert_id}: alerts of {', '.join(name for name, _, _ in found)} begin so; say more of it")
    if not found:
        raise refusal
    return found[0]


def _line(machine: str, alert: ArchivedAlert) -> str:
    """One line for people."""
    lasted = "open" if alert.closed_at is None else f"until {alert.closed_at:%H:%M}"
    word = {"normal": "  NORMAL", "fault": f"  FAULT {alert.name}", None: ""}[alert.word]
    text = f"  {alert.text}" if alert.text else ""
    return f"{alert.event_id[:8]}  {alert.started_at:%Y-%m-%d %H:%M:%S}Z {lasted:11} {machine}{word}{text}"


def _facts(machine: str, alert: ArchivedAlert) -> dict[str, object]:
    return {"machine": machine, **alert.model_dump(mode="json", exclude={"probes"})}
