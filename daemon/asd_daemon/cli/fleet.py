"""`asd-fleet`: what a broker knows of all boxes.

Reads the words and prints; tell/mqtt/inventory.py asks the broker. `publish` is in publish.py.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.cli.console import CommandGroup
from asd_daemon.cli.options import broker_option, config_option, json_option
from asd_daemon.cli.publish import publish
from asd_daemon.errors import UsageError
from asd_daemon.wording import counted

if TYPE_CHECKING:
    from asd_daemon.tell.mqtt.inventory import FleetMachine

_EPILOG = "Exit codes: 0 all are heard and well, 1 some are not, 2 wrong usage or configuration, 3 cannot start."


@click.group(cls=CommandGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asd-edge", prog_name="asd-fleet")
def fleet() -> None:
    """See all boxes that publish to a broker; offer bundles to them."""


fleet.add_command(publish)


@fleet.command()
@broker_option
@config_option
@click.option("--prefix", metavar="WORD", help="First part of the topics.  [default: configured, or asd]")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for spreadsheets.")
def status(broker: str | None, config: Path | None, prefix: str | None, as_json: bool, as_csv: bool) -> int:
    """List every machine of every box: heard or not, state, drift, version, bundle, how far a rollout is, when it was learned, free disk.

    From what the broker keeps, so it takes a second however many there are. Where the broker wants a password, --config names a
    configuration that knows it.
    """
    from asd_daemon.run.publishing import broker_address
    from asd_daemon.settings.file import load_settings, settings_file
    from asd_daemon.settings.keys import Settings
    from asd_daemon.settings.plan import broker_settings
    from asd_daemon.tell.mqtt.inventory import read_inventory

    if as_json and as_csv:
        raise UsageError("--json or --csv, not both")
    file = settings_file(config)
    settings = load_settings(file) if file else Settings()
    if broker is not None:
        settings = settings.model_copy(update={"mqtt": broker_settings(broker, settings.mqtt)})
    if settings.mqtt is None:
        raise UsageError("which broker? give --broker HOST, or --config FILE with mqtt: in it")
    found = read_inventory(broker_address(settings, [], "fleet"), prefix or settings.mqtt.prefix)
    rows = [_row(machine) for machine in found.machines]
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        _print_table(found.machines)
    if found.not_understood:
        click.echo(f"{counted(found.not_understood, 'message')} on these topics made no sense", err=True)
    return 0 if found.machines and not any(machine.trouble for machine in found.machines) else 1


_COLUMNS = (
    "node",
    "machine",
    "title",
    "heard",
    "state",
    "since",
    "trouble",
    "score",
    "threshold",
    "calibration",
    "drift",
    "version",
    "bundle",
    "offered",
    "rollout",
    "rollout_reason",
    "learned",
    "started_at",
    "about_at",
    "disk_free_bytes",
    "disk_bytes",
    "system",
)


def _row(machine: FleetMachine) -> dict[str, Any]:
    state, about = machine.state, machine.about
    return {
        "node": machine.node,
        "machine": machine.machine,
        "title": about.get("title"),
        "heard": machine.is_heard,
        "state": state.get("state"),
        "since": state.get("since"),
        "trouble": machine.trouble,
        "score": state.get("score"),
        "threshold": state.get("threshold"),
        "calibration": (state.get("calibration") or {}).get("state"),
        "drift": (state.get("drift") or {}).get("fraction"),
        "version": about.get("version"),
        "bundle": about.get("bundle"),
        "offered": (about.get("rollout") or {}).get("offered"),
        "rollout": (about.get("rollout") or {}).get("phase"),
        "rollout_reason": (about.get("rollout") or {}).get("reason"),
        "learned": about.get("learned"),
        "started_at": about.get("started_at"),
        "about_at": about.get("at"),
        "disk_free_bytes": about.get("disk_free_bytes"),
        "disk_bytes": about.get("disk_bytes"),
        "system": about.get("system"),
    }


def _print_table(machines: Sequence[FleetMachine]) -> None:
    head = (
        "BOX",
        "MACHINE",
        "STATE",
        "SINCE",
        "DRIFT",
        "VERSION",
        "BUNDLE",
        "ROLLOUT",
        "LEARNED",
        "DISK FREE",
        "TROUBLE",
    )
    lines = [head, *(_line(machine) for machine in machines)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        click.echo("  ".join([*cells, line[-1]]).rstrip())
    heard, boxes = sum(machine.is_heard for machine in machines), len({machine.node for machine in machines})
    click.echo(f"{counted(boxes, 'box', 'boxes')}, {counted(len(machines), 'machine')}, {heard} heard", err=True)


def _line(machine: FleetMachine) -> tuple[str, ...]:
    row = _row(machine)
    drift, free, total = row["drift"], row["disk_free_bytes"], row["disk_bytes"]
    return (
        machine.node,
        machine.machine,
        str(row["state"] or "-") if machine.is_heard else "NOT HEARD",
        _ago(row["since"]),
        "-" if drift is None else f"{100 * drift:.0f} %",
        str(row["version"] or "-"),
        str(row["bundle"] or "-"),
        str(row["rollout"] or "-"),
        str(row["learned"] or "-")[:10],
        "-" if not free or not total else f"{free / 1e9:.0f} GB {100 * free / total:.0f} %",
        str(row["trouble"] or ""),
    )


def _ago(since: str | None) -> str:
    """How long ago, shortly."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(since or "")).total_seconds()
    except ValueError:
        return "-"
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def main() -> None:
    """The program."""
    fleet.main(prog_name="asd-fleet")
