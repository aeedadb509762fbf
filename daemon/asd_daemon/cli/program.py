"""The commands of `asd-daemon`. Each reads its words, calls the part that does the work, and prints.

Heavy libraries are imported by the command that needs them, so that --help is quick.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.cli.bundle import bundle
from asd_daemon.cli.console import CommandGroup, use_one_thread
from asd_daemon.cli.enroll import enroll
from asd_daemon.cli.machines import machines
from asd_daemon.cli.service import service
from asd_daemon.errors import RecordingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from asd_daemon.settings.plan import Plan

_PATH = click.Path(path_type=Path)
_EPILOG = "Exit codes: 0 well, 1 found something wrong, 2 wrong usage or configuration, 3 cannot start."

_machine = click.option("--machine", metavar="NAME", help="Machine to listen to.  [default: all that are configured]")
_config = click.option(
    "--config",
    type=_PATH,
    metavar="FILE",
    help="Configuration.  [default: $ASD_CONFIG, /etc/asd-daemon/asd-daemon.yaml]",
)
_bundle = click.option(
    "--bundle", type=_PATH, metavar="FOLDER", help="Models.  [default: configured, or the program's own]"
)
_source = click.option(
    "--source",
    metavar="KIND:TARGET",
    help="device:NAME, file:PATH, folder:PATH, command:PROGRAM or simulate:MACHINE, with ?option=value&…",
)
_broker = click.option("--broker", metavar="HOST[:PORT]", help="MQTT broker.  [default: configured]")
_no_mqtt = click.option("--no-mqtt", is_flag=True, help="Print events as JSON lines instead of publishing them.")
_node = click.option("--node", metavar="NAME", help="Name of this box in all topics.  [default: configured, host name]")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=CommandGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("asd-edge"), prog_name="asd-daemon")
def cli() -> None:
    """Listen to machines and tell when one goes wrong."""


def _plan(**words: Any) -> Plan:
    from asd_daemon.settings.plan import CommandLineOptions, make_plan

    return make_plan(CommandLineOptions(**words))


@cli.command()
@_machine
@_config
@_bundle
@_source
@_broker
@_no_mqtt
@_node
@click.option(
    "--wait-for-device",
    is_flag=True,
    help="Wait for a microphone that isn't there, and a broker that refuses us.",
)
@click.option(
    "--log", type=click.Choice(["text", "json"]), help="Form of the log on stderr.  [default: configured, text]"
)
@click.option("--verbose", is_flag=True, help="Log what is usually of no interest.")
def run(wait_for_device: bool, log: str | None, verbose: bool, **words: Any) -> None:
    """Listen, judge and publish until told to stop.

    A microphone that goes away later is waited for in any case; --wait-for-device, for unattended boxes, also waits for one that is
    missing at the start and for a broker that refuses us. Recordings end the run when they are played. Without a broker, events are
    printed as JSON lines.

    \b
    Examples:
      asd-daemon run --machine fan --source simulate:fan --no-mqtt
      asd-daemon run --machine fan --source 'simulate:fan?fail=rubbing&fail_after=60&speed=10' --no-mqtt
      asd-daemon run --machine fan --source device:default --broker broker.local
      asd-daemon run --config asd-daemon.yaml
    """
    from asd_daemon.watch.log import log_to_stderr

    log_to_stderr(as_json=log == "json", verbose=verbose)
    plan = _plan(**words)
    log_to_stderr(as_json=(log or plan.settings.log) == "json", verbose=verbose)
    from asd_daemon.run.assembly import make_service

    make_service(plan, wait_for_device=wait_for_device).run()


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=_PATH, metavar="PATH…")
@click.option("--machine", required=True, metavar="NAME", help="Machine whose sound it is.")
@_bundle
@click.option("--channel", default=0, show_default=True, type=click.IntRange(0, 63), help="Channel, counted from 0.")
@_as_json
def score(paths: tuple[Path, ...], machine: str, bundle: Path | None, channel: int, as_json: bool) -> int:
    """Score recordings: files, or all below a folder. Each is padded or cut to 10 s, as in training.

    A recording that can't be read, or holds digital silence, is named on stderr and the others are scored; the exit code is 2 then.

    \b
    Examples:
      asd-daemon score recordings/ --machine fan
      asd-daemon score clip.wav --machine press-3 --json
    """
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.scorer import Scorer
    from asd_daemon.learn.enrolled_machines import with_enrolled
    from asd_daemon.run.assembly import enrolled_folder
    from asd_daemon.settings.plan import usual_bundle
    from asd_daemon.waveform import fit_length

    known = with_enrolled(load_bundle(bundle or usual_bundle()), enrolled_folder(), machine)
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


@cli.command()
@_as_json
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
        click.echo(f"device:{device.name}  {device.channels} channel(s), {device.rate_hz:g} Hz{usb}{default}")


@cli.command()
@_machine
@_config
@_bundle
@_source
@_broker
@_no_mqtt
@_node
@click.option("--seconds", default=2.0, show_default=True, type=click.FloatRange(0.5, 60), help="How long to listen.")
@_as_json
def check(seconds: float, as_json: bool, **words: Any) -> int:
    """Look whether configuration, bundle, microphone and broker are well, one line each; exit code 1 if not.

    \b
    Examples:
      asd-daemon check --machine fan --source device:default --broker broker.local
      asd-daemon check --config asd-daemon.yaml
    """
    plan = _plan(**words)
    from asd_daemon.cli.inspection import inspect

    well = True
    for finding in inspect(plan, seconds):
        well = well and finding.well
        if as_json:
            click.echo(json.dumps(asdict(finding), ensure_ascii=False))
        else:
            click.echo(f"{'ok  ' if finding.well else 'FAIL'}  {finding.what}: {finding.detail}")
    return 0 if well else 1


@cli.command()
@click.option("--alive", is_flag=True, help="Exit code 0 while windows go through, whatever the machines' states.")
@_as_json
def status(alive: bool, as_json: bool) -> int:
    """Show how the daemons on this box are doing, machine by machine; exit code 1 unless all are well.

    Those of this user, and those of systemd's services, for which it may need sudo.
    """
    from asd_daemon.errors import CannotStartError
    from asd_daemon.settings.file import state_folder
    from asd_daemon.watch.status import describe, read_statuses, status_folder

    try:
        found = read_statuses(status_folder(state_folder()), time.monotonic())
    except PermissionError as e:
        raise CannotStartError(f"{e.filename}: is not ours to read; try sudo asd-daemon status") from e
    if as_json:
        entries = [{"well": s.well, "trouble": s.trouble, "file": str(s.file), **s.content} for s in found]
        click.echo(json.dumps(entries, ensure_ascii=False))
    elif not found:
        click.echo("no daemon is running here", err=True)
    for one in () if as_json else found:
        for line in describe(one):
            click.echo(line)
    return 0 if found and all(s.trouble is None if alive else s.well for s in found) else 1


@cli.command()
@click.option("--machine", required=True, metavar="NAME", help="Machine whose scores are played again.")
@_config
@click.option("--since", metavar="TIME", help="From when on: 12h, 2d, 1w ago or an ISO 8601 time.  [default: all]")
@click.option("--threshold", type=float, metavar="SCORE", help="Judge by this one.  [default: that of the time]")
@_as_json
def replay(machine: str, config: Path | None, since: str | None, threshold: float | None, as_json: bool) -> None:
    """Show what would have fired on the scores that were kept, with the alarm as it is configured now.

    For choosing a threshold: no sound is needed, and nothing is told to anybody. The score log is in the state folder.

    \b
    Examples:
      asd-daemon replay --machine fan --since 1w
      asd-daemon replay --machine fan --since 2d --threshold 1.4
    """
    from asd_daemon.cli.replay import describe_replay, parse_since, play
    from asd_daemon.run.assembly import alarm_rule
    from asd_daemon.run.stores import scores_file
    from asd_daemon.settings.file import load_settings, settings_file, state_folder
    from asd_daemon.settings.keys import AlarmSettings, Settings
    from asd_daemon.tell.storage.score_log import read_scores

    file = settings_file(config)
    settings = load_settings(file) if file else Settings()
    configured = settings.machines.get(machine)
    rule = alarm_rule(configured.alarm if configured else AlarmSettings())
    begin = parse_since(since, datetime.now(UTC)) if since else None
    played = play(read_scores(scores_file(state_folder()), machine, begin), rule, threshold)
    for line in describe_replay(played, settings.node, machine, as_json=as_json):
        click.echo(line)


@cli.command("sample-config")
def sample_config() -> None:
    """Print a configuration with every key, its meaning and its default.

    \b
    Example:
      asd-daemon sample-config > asd-daemon.yaml
    """
    from asd_daemon.settings.sample import sample_text

    click.echo(sample_text(), nl=False)


cli.add_command(bundle)
cli.add_command(enroll)
cli.add_command(machines)
cli.add_command(service)


def main(words: Sequence[str] | None = None) -> None:
    """The program: a mistake is one line and its exit code. The words are those of the command line unless given."""
    use_one_thread()
    cli.main(args=words, prog_name="asd-daemon")
