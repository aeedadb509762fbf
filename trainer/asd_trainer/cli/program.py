"""asd-train: the group of the trainer's commands.

Owns the program's own words, logging and what a signal does. Each command is a module or shares one with its kin; heavy
libraries are imported by the command that needs them.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from asd_daemon.cli.console import CommandGroup
from asd_trainer.cli.data import cancel, fetch, simulate
from asd_trainer.cli.embed import embed
from asd_trainer.cli.evaluate import evaluate
from asd_trainer.cli.results import models, recipes, report
from asd_trainer.cli.run import distil, finetune, pretrain, run, separate, synthesize
from asd_trainer.cli.shard import shard
from asd_trainer.training.interruption import Interrupted


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="asd-edge", prog_name="asd-train")
@click.option("-v", "--verbose", is_flag=True, help="Also print what is of use in search of a fault.")
def main(verbose: bool) -> None:
    """Learn what machines sound like when they are well.

    \b
    From nothing to figures in a few minutes, on simulated machines:
      asd-train simulate data --small
      asd-train run smoke --data data --out runs/smoke
      asd-train evaluate runs/smoke --data data
      asd-train report runs/smoke

    \b
    Exit codes: 0 well; 2 wrong usage, recipe or data; 3 the archive of data sets does not answer; 130 or 143 stopped by a
    signal (the same command goes on).
    """
    logging.basicConfig(
        stream=sys.stderr,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        level=logging.DEBUG if verbose else logging.INFO,
    )
    for noisy in ("accelerate", "matplotlib", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(number, f"by {signal.Signals(number).name}; what was finished stays")


for command in (
    simulate,
    fetch,
    cancel,
    shard,
    run,
    separate,
    synthesize,
    pretrain,
    distil,
    finetune,
    evaluate,
    embed,
    report,
    models,
    recipes,
):
    main.add_command(command)
