"""`asd-daemon score`: recordings → scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.options import PATH, bundle_option, json_option, scoring_option
from asd_daemon.errors import UsageError

if TYPE_CHECKING:
    from asd_daemon.judge.scoring.scoring_choice import Scoring


@click.command()
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="PATH…")
@click.option("--machine", required=True, metavar="NAME", help="Machine whose sound it is.")
@bundle_option
@scoring_option
@click.option("--channel", default=0, show_default=True, type=click.IntRange(0, 63), help="Channel, counted from 0.")
@click.option(
    "--far",
    default=None,
    type=click.IntRange(0, 63),
    metavar="CHANNEL",
    help="Channel of the second microphone, of a machine that was learned with two.",
)
@click.option(
    "--hop",
    "hop_s",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="From the start of one window to that of the next.",
)
@click.option("--summary", is_flag=True, help="One line a recording: its worst window and how many are anomalous.")
@json_option
def score(
    paths: tuple[Path, ...],
    machine: str,
    bundle: Path | None,
    scoring: Scoring | None,
    channel: int,
    far: int | None,
    hop_s: float,
    summary: bool,
    as_json: bool,
) -> int:
    """Score recordings: files, or all below a folder. Each is judged from its beginning to its end in windows of 10 s.

    What is left at the end is judged in a window that ends with the recording, if it is more than 2 s. A recording of 5 to 10 s is
    repeated to fill a window, as in training; one that is shorter is not judged, nor are silence, clipping and what has too little band:
    such windows are `unusable`, with the reason. A recording that can't be read, or of which nothing is usable, is named on stderr and the
    others are scored; the exit code is 2 then, and 0 where all were scored, whatever the scores are.

    Judged by the provisional threshold of enrolment, whatever a daemon has learned since or `alarm.threshold` says, and by what evidence
    has chosen unless `--scoring paper` is given, whatever is configured.

    \b
    Examples:
      asd-daemon score recordings/ --machine fan
      asd-daemon score clip.wav --machine press-3 --json
      asd-daemon score night.flac --machine fan --hop 5 --summary
    """
    from asd_daemon.cli.recording_report import RecordingReport
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.scorer import Scorer
    from asd_daemon.learn.enrolled_machines import with_enrolled_machine
    from asd_daemon.run.alert_teaching import AlertTeaching
    from asd_daemon.run.scored_recordings import named_recordings, score_recording
    from asd_daemon.run.shared_bundle import enrolled_folder
    from asd_daemon.run.stores import alerts_folder
    from asd_daemon.run.taught_judge import taught_scorer
    from asd_daemon.settings.file import state_folder
    from asd_daemon.settings.plan import installed_or_default_bundle
    from asd_daemon.tell.storage.alert_archive import AlertArchive

    if far == channel:
        raise UsageError(f"--far {far} is the machine's own --channel; the second microphone is another one")
    way = scoring or "auto"
    found = load_bundle(bundle or installed_or_default_bundle())
    known = with_enrolled_machine(found, enrolled_folder(), machine, way)
    teaching = AlertTeaching(machine, AlertArchive(alerts_folder(state_folder()), machine))
    scorer = taught_scorer(machine, Scorer(known, machine, scoring=way), teaching.accepted())
    report = RecordingReport(machine, as_json=as_json, summary=summary)
    for path in named_recordings(paths):
        for line, is_error in report.lines(path, score_recording(scorer, path, channel, hop_s, far)):
            click.echo(line, err=is_error)
    return 2 if report.refused else 0
