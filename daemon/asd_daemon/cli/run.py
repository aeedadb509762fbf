"""`asd-daemon run`: listen until told to stop."""

from __future__ import annotations

import contextlib
import gc
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.cli.options import (
    broker_option,
    bundle_option,
    config_option,
    machines_option,
    no_mqtt_option,
    node_option,
    options_from,
    plan_from,
    scoring_option,
    source_option,
)

if TYPE_CHECKING:
    from asd_daemon.watch.live_view import LiveView


@click.command()
@machines_option
@config_option
@bundle_option
@source_option
@broker_option
@no_mqtt_option
@node_option
@scoring_option
@click.option(
    "--wait-for-device",
    is_flag=True,
    help="Wait for a microphone that isn't there, and a broker that refuses us.",
)
@click.option(
    "--log", type=click.Choice(["text", "json"]), help="Form of the log on stderr.  [default: configured, text]"
)
@click.option(
    "--events",
    type=click.Choice(["view", "json"]),
    help="Form of events on stdout where there is no broker.  [default: view on a terminal, json elsewhere]",
)
@click.option("--verbose", is_flag=True, help="Log what is usually of no interest.")
def run(wait_for_device: bool, log: str | None, events: str | None, verbose: bool, **options: Any) -> None:
    """Listen, judge and publish until told to stop.

    A microphone that goes away later is waited for in any case; --wait-for-device, for unattended boxes, also waits for one that is
    missing at the start and for a broker that refuses us. Recordings end the run when they are played. Without a broker, events are
    shown as they happen on a terminal, and printed as JSON lines elsewhere.

    \b
    Examples:
      asd-daemon run --machine fan --source simulate:fan --no-mqtt
      asd-daemon run --machine fan --source 'simulate:fan?fail=rubbing&fail_after=60&speed=10' --no-mqtt
      asd-daemon run --machine fan --source device:default --broker broker.local
      asd-daemon run --config asd-daemon.yaml
    """
    from asd_daemon.run.reload_signal import ReloadSignal

    with ReloadSignal() as reload_signal, no_collecting() as collect:
        from asd_daemon.watch.log import log_to_stderr

        log_to_stderr(as_json=log == "json", verbose=verbose)
        plan = plan_from(options)
        view = _view(events) if plan.settings.mqtt is None else None
        view_width = shutil.get_terminal_size().columns if view is not None and sys.stderr.isatty() else None
        log_to_stderr(as_json=(log or plan.settings.log) == "json", verbose=verbose, view_width=view_width)
        from asd_daemon.run.beginning import Beginning

        with Beginning(plan, waits=wait_for_device) as begun:
            # Sound is on its way: only now comes all else, which takes as long again
            from asd_daemon.run.assembly import make_service
            from asd_daemon.run.memory_arenas import limit_memory_arenas

            limit_memory_arenas()
            service = make_service(
                plan, begun, wait_for_broker=wait_for_device, options=options_from(options), view=view
            )
            reload_signal.heed(service.reload, service.stop)
            collect()
            service.run()


@contextlib.contextmanager
def no_collecting() -> Iterator[Callable[[], None]]:
    """Let Python look for no garbage until what is given is called; what is there by then is never looked at again.

    Modules come by the hundred and stay: looking through them over and over is a tenth of the start.
    """

    def collect() -> None:
        gc.freeze()
        gc.enable()

    gc.disable()
    try:
        yield collect
    finally:
        gc.unfreeze()
        gc.enable()


def _view(events: str | None) -> LiveView | None:
    """What shows events to people, where that is asked for or there is a terminal."""
    is_terminal = sys.stdout.isatty()
    if events == "json" or (events is None and not is_terminal):
        return None
    from asd_daemon.watch.live_view import LiveView

    return LiveView(shutil.get_terminal_size().columns if is_terminal else None)
