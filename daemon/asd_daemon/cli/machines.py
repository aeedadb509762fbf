"""`asd-daemon machines`: list, rename, remove, export, import.

Reads the words and prints; machine_names.py and machine_archive.py do the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.cli.options import PATH, json_option, scoring_option
from asd_daemon.errors import AsdError, CannotStartError, UsageError
from asd_daemon.wording import counted

if TYPE_CHECKING:
    from asd_daemon.judge.scoring.scoring_choice import Scoring
    from asd_daemon.learn.machine_names import KnownMachine
    from asd_daemon.settings.chosen import Chosen
    from asd_daemon.settings.keys import Settings


@click.group()
def machines() -> None:
    """Look after machines that this box knows: list, rename, remove, back up and restore."""


@machines.command("list")
@json_option
def list_machines(as_json: bool) -> None:
    """List what is kept of each machine: what it was learned from, scores, clips, alerts that wait."""
    from asd_daemon.learn.machine_names import known_machines
    from asd_daemon.settings.file import load_settings, settings_file, state_folder
    from asd_daemon.settings.keys import Settings

    found, file = known_machines(state_folder()), settings_file(None)
    settings = load_settings(file) if file else Settings()
    ways = {known.name: scoring_of(settings, known.name) for known in found}
    if as_json:
        facts = [{**_facts(known), "scoring": ways[known.name]} for known in found]
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    if not found:
        click.echo(f"{state_folder()}: knows no machine yet; `asd-daemon enroll --machine NAME` teaches one", err=True)
    for known in found:
        by = "; judged by the paper's back end" if ways[known.name] == "paper" else ""
        click.echo(f"{known.name}: {_words(known)}{by}")


def scoring_of(settings: Settings, machine: str) -> Scoring:
    """By what a machine is judged, as the configuration says; its machines may have other names than those that are learned."""
    configured = [one for name, one in settings.machines.items() if (one.model or name) == machine]
    return next((one.scoring for one in configured if one.scoring is not None), settings.scoring)


def _facts(known: KnownMachine) -> dict[str, Any]:
    record = known.record
    return {
        "machine": known.name,
        "learned": None if record is None else record.created,
        "windows": None if record is None else record.windows,
        "states": [] if record is None else list(record.state_names),
        "bundle": None if record is None else record.bundle,
        "views": None if record is None else sorted(record.views_used),
        "sounds": None if record is None else record.sounds,
        "embeddings": None if record is None or record.nearest is None else record.nearest.vectors,
        "trouble": known.trouble,
        "state_bytes": known.state_bytes,
        **asdict(known.traces),
    }


def _words(known: KnownMachine) -> str:
    record, traces = known.record, known.traces
    if record is not None:
        learned = f"learned on {record.created[:10]} from {record.windows} windows, {known.state_bytes / 1e6:.1f} MB"
        if record.nearest is not None:
            learned += f", {record.nearest.vectors} embeddings"
        if record.state_names:
            learned += f", states: {'; '.join(record.state_names)}"
    else:
        learned = known.trouble or "not learned here"
    return (
        f"{learned}; {counted(traces.scores, 'score')}, {counted(traces.clips, 'clip')} ({traces.clip_bytes / 1e6:.1f} MB),"
        f" {counted(traces.alerts_waiting, 'alert')} waiting"
    )


@machines.command()
@click.argument("name")
@click.argument("new")
def rename(name: str, new: str) -> None:
    """Give a machine another name, with all that is kept of it. The configuration is yours: change the name there too."""
    from asd_daemon.learn.machine_names import rename_machine
    from asd_daemon.settings.file import state_folder

    _refuse_while_heard(name)
    rename_machine(state_folder(), name, new)
    was_added = _change_chosen(lambda chosen: chosen.renamed(name, new), name)
    todo = "" if was_added else f"; write {new}: in place of {name}: below machines: of the configuration"
    click.echo(f"{name} is {new} now{todo}")
    _clear_at_brokers(name)


@machines.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(name: str, yes: bool) -> None:
    """Forget a machine: what was learned, its scores, clips, alerts that wait. There is no way back but an export."""
    from asd_daemon.learn.machine_names import remove_machine
    from asd_daemon.settings.file import state_folder

    _refuse_while_heard(name)
    if not yes:
        click.confirm(f"forget all that is known of {name}?", abort=True, err=True)
    remove_machine(state_folder(), name)
    was_added = _change_chosen(lambda chosen: chosen.without_machine(name), name)
    click.echo(f"{name} is forgotten{'' if was_added else '; delete it below machines: of the configuration'}")
    _clear_at_brokers(name)


def _change_chosen(change: Callable[[Chosen], Chosen], name: str) -> bool:
    """Change what people have chosen of a machine; whether it was they who added it."""
    from asd_daemon.settings.chosen import change_choices
    from asd_daemon.settings.chosen_keys import SOURCE
    from asd_daemon.settings.file import state_folder

    folder = state_folder()
    try:
        return change_choices(folder, name, change).find(name, SOURCE) is not None
    except OSError as e:
        raise CannotStartError(f"{folder}: can't be written: {e.strerror or e}") from e


@machines.command()
@click.option("--bundle", type=PATH, metavar="FOLDER", help="Models.  [default: installed, or the program's own]")
@scoring_option
def relearn(bundle: Path | None, scoring: Scoring | None) -> int:
    """Learn machines anew from what was kept, where this program or bundle can't judge them as they were learned.

    For after an upgrade; a daemon does the same when it starts. With `--scoring paper`, or where the configuration says so, their
    embeddings are made of what was kept. Exit code 1 where one must be heard again.
    """
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.nearest_neighbour import check_scoring
    from asd_daemon.learn.embedding_kept import embed_kept
    from asd_daemon.learn.enrolled_machines import enrolled_names
    from asd_daemon.learn.relearning import relearn_from_kept, relearning_needs
    from asd_daemon.run.shared_bundle import enrolled_folder
    from asd_daemon.settings.file import load_settings, settings_file
    from asd_daemon.settings.keys import Settings
    from asd_daemon.settings.plan import configured_bundle, installed_or_default_bundle

    file = settings_file(None)
    settings = load_settings(file) if file else Settings()
    found, root = load_bundle(bundle or configured_bundle(settings) or installed_or_default_bundle()), enrolled_folder()
    ways = {name: scoring or scoring_of(settings, name) for name in enrolled_names(root)}
    by_paper = [name for name, way in ways.items() if way == "paper"]
    if by_paper and found.manifest.embedder is None:
        check_scoring(found, by_paper[0], "paper")
    needs = relearning_needs(found, root, [name for name in ways if name not in by_paper])
    needs += relearning_needs(found, root, by_paper, "paper")
    well = True
    for need in needs:
        click.echo(f"{need.machine}: {need.why}", err=True)
        try:
            if need.machine in by_paper:
                record = embed_kept(found, root, need.machine)
            else:
                record = relearn_from_kept(found, root, need.machine, keeps_sound=settings.keep.keeps_enrolment_sound)
        except AsdError as e:
            well = False
            click.echo(f"{need.machine}: {e}", err=True)
        else:
            click.echo(f"{need.machine}: learned anew from {record.windows} kept windows")
    if not needs:
        click.echo(f"all machines can be judged with {found.name} {found.version} as they were learned")
    return 0 if well else 1


@machines.command("export")
@click.argument("name")
@click.argument("file", type=PATH)
def export_(name: str, file: Path) -> None:
    """Write a learned machine into one FILE, to be kept elsewhere or taken to another box. It holds sound if sound was kept."""
    from asd_daemon.learn.machine_archive import export_machine
    from asd_daemon.run.shared_bundle import enrolled_folder

    contents = export_machine(enrolled_folder(), name, file)
    size = sum(entry.bytes for entry in contents.files.values())
    click.echo(f"{file}: {name}, {len(contents.files)} files, {size / 1e6:.1f} MB")


@machines.command("import")
@click.argument("file", type=PATH)
@click.option("--as", "name", metavar="NAME", help="What it is called here.  [default: as it was called]")
@click.option("--replace", is_flag=True, help="Take the place of a machine of this name that was learned here.")
def import_(file: Path, name: str | None, replace: bool) -> None:
    """Take a machine over from a FILE that `export` wrote. A daemon that runs takes it at its next start."""
    from asd_daemon.learn.machine_archive import import_machine
    from asd_daemon.run.shared_bundle import enrolled_folder
    from asd_daemon.settings.text_formats import checked_name

    if name is not None:
        try:
            checked_name(name)
        except ValueError as e:
            raise UsageError(f"--as {name!r}: {e}") from e
    record = import_machine(enrolled_folder(), file, name, replaces=replace)
    click.echo(f"{record.machine}: learned on {record.created[:10]} from {record.windows} windows is known here now")


def _refuse_while_heard(name: str) -> None:
    """A daemon that hears the machine would write under its old name.

    Raises:
        UsageError: there is one.
    """
    from asd_daemon.settings.file import state_folder
    from asd_daemon.tell.storage.machine_locks import is_heard

    if is_heard(state_folder(), name):
        raise UsageError(f"{name}: a daemon hears it at this moment; stop it first")


def _clear_at_brokers(name: str) -> None:
    """Have brokers forget a machine: at once where the configured one answers, else on the next connection of a daemon."""
    import sqlite3

    from asd_daemon.run.publishing import broker_address
    from asd_daemon.run.stores import outbox_file
    from asd_daemon.settings.file import load_settings, settings_file, state_folder
    from asd_daemon.tell.mqtt.clearing import clear_machine

    outbox, file = outbox_file(state_folder()), settings_file(None)
    if not outbox.exists():  # no daemon has published anything from here
        return
    try:
        settings = load_settings(file) if file else None
        has_broker = settings is not None and settings.mqtt is not None
        address = broker_address(settings, [name], "remove") if settings is not None and has_broker else None
        done = clear_machine(outbox, name, address)
    except (AsdError, sqlite3.Error, OSError) as e:
        click.echo(f"what brokers keep of {name} is not cleared: {e}", err=True)
        return
    if done.queued:
        why = f": {done.trouble}" if done.trouble else ""
        click.echo(
            f"{len(done.queued)} topics of {name} are cleared when a daemon next connects to their broker{why}",
            err=True,
        )
