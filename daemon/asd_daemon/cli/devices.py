"""`asd-daemon devices`: the microphones of this box."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from asd_daemon.cli.options import json_option
from asd_daemon.wording import counted


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """List the microphones there are, as `--source` and the configuration name them."""
    from asd_daemon.hear.sources.microphone import list_microphones

    found = list_microphones()
    if as_json:
        click.echo(json.dumps([asdict(device) for device in found], ensure_ascii=False))
        return
    if not found:
        click.echo("no microphone: this box has no sound input", err=True)
    for device in found:
        usb = f"  {device.identity} usb-path:{device.usb_path}" if device.usb_id else ""
        default = "  (default)" if device.is_default else ""
        click.echo(f"device:{device.name}  {counted(device.channels, 'channel')}, {device.rate_hz:g} Hz{usb}{default}")
