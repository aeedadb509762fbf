"""`asd-daemon sample-config`: a configuration to start from."""

from __future__ import annotations

import click


@click.command("sample-config")
def sample_config() -> None:
    """Print a configuration with every key, its meaning and its default.

    \b
    Example:
      asd-daemon sample-config > asd-daemon.yaml
    """
    from asd_daemon.settings.sample import sample_text

    click.echo(sample_text(), nl=False)
