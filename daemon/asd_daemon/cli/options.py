"""Options that several commands of `asd-daemon` share, and the plan that they make with the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from asd_daemon.settings.plan import CommandLineOptions, Plan

PATH = click.Path(path_type=Path)

machines_option = click.option(
    "--machine",
    "machines",
    multiple=True,
    metavar="NAME",
    help="Machine to listen to; may be repeated.  [default: all that are configured]",
)
config_option = click.option(
    "--config",
    type=PATH,
    metavar="FILE",
    help="Configuration.  [default: $ASD_CONFIG, /etc/asd-daemon/asd-daemon.yaml]",
)
bundle_option = click.option(
    "--bundle", type=PATH, metavar="FOLDER", help="Models.  [default: configured, or the program's own]"
)
source_option = click.option(
    "--source",
    metavar="KIND:TARGET",
    help="device:NAME, file:PATH, folder:PATH, command:PROGRAM or simulate:MACHINE, with ?option=value&…",
)
broker_option = click.option("--broker", metavar="HOST[:PORT]", help="MQTT broker.  [default: configured]")
no_mqtt_option = click.option(
    "--no-mqtt", is_flag=True, help="Publish nothing: show or print events on standard output."
)
node_option = click.option(
    "--node", metavar="NAME", help="Name of this box in all topics.  [default: configured, host name]"
)
scoring_option = click.option(
    "--scoring",
    type=click.Choice(["auto", "paper"]),
    help="By what evidence has chosen, or by the paper's back end alone.  [default: configured, auto]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def options_from(options: dict[str, Any]) -> CommandLineOptions:
    """What the command line asks for, by the options of a command that are named like those of `CommandLineOptions`."""
    from asd_daemon.settings.plan import CommandLineOptions

    return CommandLineOptions(**options)


def plan_from(options: dict[str, Any]) -> Plan:
    """What shall run, by the options of a command that are named like those of `CommandLineOptions`.

    Raises:
        SettingsError, UsageError: as `make_plan`.
    """
    from asd_daemon.settings.plan import make_plan

    return make_plan(options_from(options))
