"""`asd-daemon watch`: what running daemons hear, as it happens."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from asd_daemon.watch.status import DaemonStatus

_LOOK_EVERY_S = 0.5


@click.command()
@click.option("--machine", "machines", multiple=True, metavar="NAME", help="Show this machine only; may be repeated.")
@click.option(
    "--past",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, 1e6),
    help="Minutes of logged scores to show first.",
)
def watch(machines: tuple[str, ...], past: float) -> int:
    """Show what the daemons on this box hear: a bar for each window's score, states and alerts, until Ctrl-C.

    The middle of a bar is the threshold. With more than eight machines, windows below it are summed up in one line. Nothing is asked of
    the daemons: their status files are read, and their score logs, which are written every five minutes. Those of systemd's services may
    need sudo. In a pipe lines are as long as they are.

    \b
    Examples:
      asd-daemon watch
      sudo asd-daemon watch --machine fan --past 60
    """
    try:
        return _watch(machines, past)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # head has seen enough
        sys.stderr.close()  # or Python complains of what it could not write at the end
        return 0


def _watch(machines: tuple[str, ...], past: float) -> int:
    from asd_daemon.errors import UsageError
    from asd_daemon.watch.live_view import LiveView
    from asd_daemon.watch.watching import Watching

    found = _statuses()
    running = [status for status in found if status.is_running]
    if not running:
        for status in found:
            click.echo(f"{status.content.get('node', status.file)}: {status.trouble}", err=True)
        click.echo("no daemon is running here; `asd-daemon run` starts one", err=True)
        return 1
    known = [name for status in running for name in status.content.get("machines", {})]
    if unknown := [name for name in machines if name not in known]:
        raise UsageError(f"--machine {unknown[0]!r}: no daemon here hears it; machines: {', '.join(known)}")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    watching = Watching(LiveView(width), machines)
    for line in watching.past(running, past):
        click.echo(line)
    tick = threading.Event()
    while True:
        for line in watching.lines(_statuses()):
            click.echo(line)
        tick.wait(_LOOK_EVERY_S)


def _statuses() -> list[DaemonStatus]:
    from asd_daemon.errors import CannotStartError
    from asd_daemon.settings.file import state_folder
    from asd_daemon.watch.status import read_statuses, status_folder

    try:
        return read_statuses(status_folder(state_folder()), time.monotonic())
    except PermissionError as e:
        raise CannotStartError(f"{e.filename}: is not ours to read; try sudo asd-daemon watch") from e
