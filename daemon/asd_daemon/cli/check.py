"""`asd-daemon check`: is everything there that the daemon needs?"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from asd_daemon.cli.options import (
    broker_option,
    bundle_option,
    config_option,
    json_option,
    machines_option,
    no_mqtt_option,
    node_option,
    plan_from,
    scoring_option,
    source_option,
)


@click.command()
@machines_option
@config_option
@bundle_option
@source_option
@broker_option
@no_mqtt_option
@node_option
@scoring_option
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.5, 60), help="How long to listen.")
@json_option
def check(seconds: float, as_json: bool, **options: Any) -> int:
    """Look whether configuration, bundle, microphone and broker are well, one line each; exit code 1 if not.

    \b
    Examples:
      asd-daemon check --machine fan --source device:default --broker broker.local
      asd-daemon check --config asd-daemon.yaml
    """
    plan = plan_from(options)
    from asd_daemon.run.inspection import inspect_plan

    well = True
    for finding in inspect_plan(plan, seconds):
        well = well and finding.well
        if as_json:
            click.echo(json.dumps(asdict(finding), ensure_ascii=False))
        else:
            click.echo(f"{'ok  ' if finding.well else 'FAIL'}  {finding.what}: {finding.detail}")
    return 0 if well else 1
