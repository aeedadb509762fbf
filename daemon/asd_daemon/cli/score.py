"""`asd-daemon score`: recordings → scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.options import PATH, bundle_option, json_option
from asd_daemon.errors import RecordingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATH…")
@click.option("--machine", required=True, metavar="NAME", help="Machine whose sound it is.")
@bundle_option
@click.option("--channel", default=0, show_default=True, type=click.IntRange(0, 63), help="Channel, counted from 0.")
@json_option
def score(paths: tuple[Path, ...], machine: str, bundle: Path | None, channel: int, as_json: bool) -> int:
    """Score recordings: files, or all below a folder. Each is padded or cut to 10 s, as in training.

    Judged by the provisional threshold of enrolment, whatever a daemon has learned since or `alarm.threshold` says. A recording that
    can't be read, or holds digital silence, is named on stderr and the others are scored; the exit code is 2 then.

    \b
    Examples:
      asd-daemon score recordings/ --machine fan
      asd-daemon score clip.wav --machine press-3 --json
    """
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.scorer import Scorer
    from asd_daemon.learn.enrolled_machines import with_enrolled_machine
    from asd_daemon.run.shared_bundle import enrolled_folder
    from asd_daemon.settings.plan import installed_or_default_bundle
    from asd_daemon.waveform import fit_length

    known = with_enrolled_machine(load_bundle(bundle or installed_or_default_bundle()), enrolled_folder(), machine)
    scorer = Scorer(known, machine)
    refused = 0
    for path in _recordings(paths):
        try:
            scored = scorer.score(fit_length(_audible(path, channel)))
        except RecordingError as e:
            click.echo(f"error: {e}", err=True)
            refused += 1
            continue
        line = {
            "path": str(path),
            "machine": machine,
            "score": scored.score,
            "threshold": scored.threshold,
            "anomalous": scored.anomalous,
        }
        if as_json:
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            word = "ANOMALOUS" if scored.anomalous else "normal"
            click.echo(f"{word:9} {scored.score:8.4f} of {scored.threshold:.4f}  {path}")
    return 2 if refused else 0


def _audible(path: Path, channel: int) -> NDArray[np.float32]:
    """One channel of a recording (N,); one in which nothing sounds in the part that is judged is an error."""
    from asd_daemon.hear.windows.quality import QualityLimits
    from asd_daemon.waveform import WINDOW_SAMPLES, read_waveform

    waveform = read_waveform(path, channel)
    if float(abs(waveform[:WINDOW_SAMPLES]).max()) <= QualityLimits().silence_peak:
        raise RecordingError(f"{path}: channel {channel} is silent: there is nothing to judge; give another --channel?")
    return waveform


def _recordings(paths: tuple[Path, ...]) -> list[Path]:
    """The files that are meant; a folder without any is an error."""
    from asd_daemon.hear.sources.recordings import sound_files

    found: list[Path] = []
    for path in paths:
        below = sound_files(path) if path.is_dir() else [path]
        if not below:
            raise RecordingError(f"{path}: there is no sound file in this folder")
        found += below
    return found
