"""`asd-daemon`: the group of its commands, each in a module of its own.

Heavy libraries are imported by the command that needs them, so that --help is quick.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from asd_daemon.cli.alerts import alerts
from asd_daemon.cli.bundle import bundle
from asd_daemon.cli.check import check
from asd_daemon.cli.console import CommandGroup, leave_pydantic_alone, use_one_thread
from asd_daemon.cli.devices import devices
from asd_daemon.cli.enroll import enroll
from asd_daemon.cli.first_process import end_on_sigterm_as_first_process
from asd_daemon.cli.machines import machines
from asd_daemon.cli.notify import notify
from asd_daemon.cli.replay import replay
from asd_daemon.cli.run import run
from asd_daemon.cli.sample_config import sample_config
from asd_daemon.cli.score import score
from asd_daemon.cli.service import service
from asd_daemon.cli.settings import settings
from asd_daemon.cli.status import status
from asd_daemon.cli.watch import watch
from asd_daemon.cli.web import web

_EPILOG = "Exit codes: 0 well, 1 found something wrong, 2 wrong usage or configuration, 3 cannot start."


@click.group(cls=CommandGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asd-edge", prog_name="asd-daemon")
def cli() -> None:
    """Listen to machines and tell when one goes wrong."""


for command in (
    run,
    score,
    devices,
    check,
    status,
    watch,
    web,
    replay,
    sample_config,
    enroll,
    machines,
    settings,
    alerts,
    notify,
    bundle,
    service,
):
    cli.add_command(command)


def main(words: Sequence[str] | None = None) -> None:
    """The program: a mistake is one line and its exit code. The words are those of the command line unless given."""
    end_on_sigterm_as_first_process()
    use_one_thread()
    leave_pydantic_alone()
    cli.main(args=words, prog_name="asd-daemon")
