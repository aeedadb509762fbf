"""`asd-daemon status`: how the daemons of this box are doing."""

from __future__ import annotations

import json
import time

import click

from asd_daemon.cli.options import json_option


@click.command()
@click.option("--alive", is_flag=True, help="Exit code 0 while windows go through, whatever the machines' states.")
@json_option
def status(alive: bool, as_json: bool) -> int:
    """Show how the daemons on this box are doing, machine by machine; exit code 1 unless all are well.

    Those of this user, and those of systemd's services, for which it may need sudo.
    """
    from asd_daemon.errors import CannotStartError
    from asd_daemon.settings.file import state_folder
    from asd_daemon.watch.status import read_statuses, status_folder
    from asd_daemon.watch.status_words import status_lines

    try:
        found = read_statuses(status_folder(state_folder()), time.monotonic())
    except PermissionError as e:
        raise CannotStartError(f"{e.filename}: is not ours to read; try sudo asd-daemon status") from e
    if as_json:
        entries = [{"well": s.well, "trouble": s.trouble, "file": str(s.file), **s.content} for s in found]
        click.echo(json.dumps(entries, ensure_ascii=False))
    elif not found:
        click.echo("no daemon is running here", err=True)
    for one in () if as_json else found:
        for line in status_lines(one):
            click.echo(line)
    return 0 if found and all(s.trouble is None if alive else s.well for s in found) else 1
