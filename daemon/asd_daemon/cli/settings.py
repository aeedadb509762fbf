"""`asd-daemon settings`: what may be chosen while the daemon runs, without a right to the configuration.

Where a daemon hears the machine it is asked; where none does, the choice is noted and the daemon takes it when it starts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.cli.options import config_option, json_option
from asd_daemon.errors import CannotStartError, UsageError

if TYPE_CHECKING:
    from asd_daemon.settings.plan import Plan
    from asd_daemon.tell.commands import Answer

_machine_option = click.option("--machine", metavar="NAME", help="Whose setting it is.")


@click.group()
def settings() -> None:
    """Change settings of a running daemon: limits, budgets, names, machines that were added at the page.

    They are kept in chosen.yaml of the state folder and are above the configuration, which stays as it is.
    """


@settings.command("list")
@_machine_option
@config_option
@json_option
def list_settings(machine: str | None, config: Path | None, as_json: bool) -> None:
    """List what can be chosen, with what holds and where that comes from."""
    from asd_daemon.settings.value_words import value_text

    plan = _plan(config)
    if machine is not None and machine not in plan.settings.machines:
        raise UsageError(f"--machine {machine!r}: there are {', '.join(plan.settings.machines) or 'none'}")
    for row in _rows(plan, machine):
        if as_json:
            click.echo(json.dumps(row, ensure_ascii=False, default=str))
        else:
            click.echo(f"{row['key']}: {value_text(row['value'])}  ({row['from']})")
    for trouble in (*plan.laid.troubles, *plan.laid.notes):
        click.echo(trouble, err=True)


@settings.command("set", context_settings={"ignore_unknown_options": True})  # a value may begin with a minus
@click.argument("key")
@click.argument("value")
@_machine_option
@config_option
def set_setting(key: str, value: str, machine: str | None, config: Path | None) -> int:
    """Choose a value; it holds from the machine's next window on.

    \b
    Examples:
      asd-daemon settings set alarm.threshold 1.4 --machine fan
      asd-daemon settings set source device:default --machine press-3      # adds a machine
    """
    import yaml

    try:
        read = value if key == "source" else yaml.safe_load(value)
    except yaml.YAMLError as e:
        raise UsageError(f"{key}: {value!r} can't be read; write it as in the configuration") from e
    return _choose(machine, {"command": "set", "key": key, "value": read}, config)


@settings.command()
@click.argument("key")
@_machine_option
@config_option
def unset(key: str, machine: str | None, config: Path | None) -> int:
    """Let the configuration's value hold again; `unset source` takes an added machine away."""
    return _choose(machine, {"command": "unset", "key": key}, config)


def _choose(machine: str | None, wish: dict[str, Any], config: Path | None) -> int:
    """Ask the daemon that hears the machine, or one that may; note it where there is none. The exit code."""
    from asd_daemon.settings.file import state_folder
    from asd_daemon.watch.live_client import running_daemons
    from asd_daemon.watch.status import status_folder

    answers: list[Answer] = []
    for daemon in running_daemons(status_folder(state_folder())):
        hears = machine is None or machine in daemon.machines
        if hears or wish["key"] == "source":
            answers.append(daemon.command(machine, wish))
            if answers[-1].ok and machine is not None:
                break
    answer = next((one for one in answers if one.ok), answers[0] if answers else None) or _noted(machine, wish, config)
    click.echo(answer.text, err=not answer.ok)
    return 0 if answer.ok else 1


def _noted(machine: str | None, wish: dict[str, Any], config: Path | None) -> Answer:
    """Keep a choice where no daemon hears the machine."""
    from asd_daemon.run.choosing import changed_choices, done_words
    from asd_daemon.settings.chosen import only_writer, read_chosen, write_chosen
    from asd_daemon.settings.file import state_folder
    from asd_daemon.settings.plan import CommandLineOptions, make_plan
    from asd_daemon.tell.commands import Answer, parse_command

    try:
        command = parse_command(json.dumps(wish).encode())
    except ValueError as e:
        raise UsageError(str(e)) from e
    try:
        with only_writer(state_folder()):
            kept = read_chosen(state_folder())
            after, plan = changed_choices(
                kept, machine, command, lambda chosen: make_plan(CommandLineOptions(config=config), chosen=chosen)
            )
            write_chosen(kept, after)
    except OSError as e:
        raise CannotStartError(f"{state_folder()}: can't be written: {e.strerror or e}; try sudo") from e
    return Answer(True, f"{done_words(machine, str(wish['key']), plan)}; no daemon hears it now")


def _plan(config: Path | None) -> Plan:
    from asd_daemon.settings.plan import CommandLineOptions, make_plan

    return make_plan(CommandLineOptions(config=config))


def _rows(plan: Plan, machine: str | None) -> list[dict[str, Any]]:
    from asd_daemon.settings.chosen_keys import CHOOSABLE, path_of
    from asd_daemon.settings.value_words import value_at, value_text

    names = [machine] if machine is not None else list(plan.settings.machines)
    wanted: list[tuple[str | None, str]] = [(name, one.key) for name in names for one in CHOOSABLE if one.of_machine]
    wanted += [(None, one.key) for one in CHOOSABLE if not one.of_machine and machine is None]
    held = {(one.machine, one.key) for one in plan.laid.held}
    return [
        {
            "key": path_of(name, key),
            "value": value_at(plan.settings, name, key),
            "from": f"chosen; the configuration: {value_text(value_at(plan.configured, name, key))}"
            if (name, key) in held
            else str(plan.file or "default"),
        }
        for name, key in wanted
    ]
