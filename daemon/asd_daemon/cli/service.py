"""`asd-daemon service`: the daemon as a service of this box."""

from __future__ import annotations

from pathlib import Path

import click

from asd_daemon.cli.options import PATH
from asd_daemon.errors import UsageError

_prefix = click.option(
    "--prefix",
    type=PATH,
    default=Path("/"),
    show_default=True,
    metavar="FOLDER",
    help="Root of the system to write to: an image, say.",
)


@click.group()
def service() -> None:
    """Install the daemon as a systemd service, or take it away."""


@service.command()
@click.option("--machine", "machines", multiple=True, metavar="NAME", help="Machine to listen to; may be repeated.")
@_prefix
@click.option(
    "--program",
    type=PATH,
    metavar="FILE",
    help="asd-daemon as the service shall call it.  [default: this one]",
)
def install(machines: tuple[str, ...], prefix: Path, program: Path | None) -> None:
    """Write the systemd units, the udev rules and, where there is none, a first configuration; and say what to do next.

    Run it again after changing a machine's device or the password's place: rules and units follow the configuration. What you
    want different in a unit belongs into a drop-in (`systemctl edit`), which stays. Nothing is started.
    """
    from asd_daemon.cli import service_installation as installation
    from asd_daemon.settings.file import SYSTEM_FILE, load_settings
    from asd_daemon.settings.text_formats import checked_name

    for name in machines:
        try:
            checked_name(name)
        except ValueError as e:
            raise UsageError(f"--machine {name!r}: {e}") from e
    for change in installation.install(prefix, (program or installation.own_program()).absolute()):
        click.echo(f"{change.what:8} {change.path}")
    configured = load_settings(prefix / SYSTEM_FILE.relative_to("/")).machines
    for name in machines:
        if name not in configured:
            click.echo(f"note: {SYSTEM_FILE} knows no machine {name!r} yet", err=True)
    click.echo("next:")
    for command in installation.next_commands(configured, machines):
        click.echo(f"  {command}")


@service.command()
@_prefix
def uninstall(prefix: Path) -> None:
    """Remove the units and udev rules; configuration and everything learned stay, and it is said where."""
    from asd_daemon.cli import service_installation as installation
    from asd_daemon.settings.file import SYSTEM_FILE

    if prefix == Path("/"):
        click.echo("first, if it still runs: sudo systemctl disable --now 'asd-daemon@*' asd-daemon", err=True)
    for change in installation.uninstall(prefix):
        click.echo(f"{change.what:8} {change.path}")
    click.echo(f"left: {SYSTEM_FILE.parent} and /var/lib/asd-daemon; then: sudo systemctl daemon-reload")
