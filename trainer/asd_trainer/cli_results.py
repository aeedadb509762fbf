"""asd-train evaluate and models: what a run is worth, and what networks cost.

Owns their words and output. The work is done in `backend`, `evaluation` and `catalogue`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from asd_trainer.cli_options import Data, Json, Run, noted_data, read_table, with_threads


@click.command()
@Run
@Data
@Json
@with_threads
def evaluate(run: Path, roots: Sequence[Path], as_json: bool) -> None:
    """Score the test clips with RUN and print AUC (source, target), pAUC and their harmonic mean Ω.

    The recordings are those of `asd-train run` unless --data names them. Figures are also written to RUN/evaluation.json.

    \b
    Examples:
      asd-train evaluate runs/smoke
      asd-train evaluate runs/smoke --data data --json
    """
    from asd_trainer.backend import score_run
    from asd_trainer.evaluation import machine_results, print_evaluation, write_evaluation

    results = machine_results(score_run(run, read_table(roots or noted_data(run))))
    write_evaluation(run, results)
    print_evaluation(results, as_json=as_json)


@click.command()
@Json
def models(as_json: bool) -> None:
    """List every size of every network with its parameters and what it costs to run.

    \b
    Example:
      asd-train models --json
    """
    from asd_trainer.catalogue import catalogue

    rows = catalogue()
    if as_json:
        click.echo(json.dumps([row.as_json() for row in rows], indent=2))
        return
    click.echo(f"{'network':<12}{'size':<8}{'parameters':>12}{'GMAC per second of sound':>26}")
    for row in rows:
        click.echo(f"{row.network:<12}{row.size:<8}{row.parameters / 1e6:>10.2f} M{row.gmac_per_second:>26.3f}")
