"""`asd-daemon enroll`: reads the words, shows how far it is, prints what was learned. enrolment.py does the work."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import click

from asd_daemon.errors import UsageError

_PATH = click.Path(path_type=Path)
DEFAULT_MINUTES = 20.0


@click.command()
@click.option(
    "--machine", required=True, metavar="NAME", help="Machine to learn; it must be well and run as it usually does."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="M",
    help="How much usable sound to collect.  [default: 20, or all of a recording or folder]",
)
@click.option(
    "--config",
    type=_PATH,
    metavar="FILE",
    help="Configuration.  [default: $ASD_CONFIG, /etc/asd-daemon/asd-daemon.yaml]",
)
@click.option(
    "--bundle", type=_PATH, metavar="FOLDER", help="Models.  [default: configured, installed, or the program's own]"
)
@click.option("--source", metavar="KIND:TARGET", help="What to hear.  [default: the machine's configured source]")
@click.option("--add", is_flag=True, help="Extend what was learned before: another season, another product.")
@click.option("--relearn", is_flag=True, help="Replace what was learned before, once the new state passes.")
@click.option("--resume", is_flag=True, help="Go on with the windows that an interrupted --relearn has collected.")
@click.option(
    "--anew", is_flag=True, help="Forget the windows that an earlier call has collected, whatever they were for."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def enroll(
    minutes: float | None, add: bool, relearn: bool, resume: bool, anew: bool, as_json: bool, **words: Any
) -> None:
    """Learn a machine from its healthy sound on this box; `run --machine NAME` and `score` know it from then on.

    Interrupted, it goes on where it was when it is called the same way within a day; --relearn begins anew unless --resume is given. The
    state learned before stays until the new one passes.

    \b
    Examples:
      asd-daemon enroll --machine press-3
      asd-daemon enroll --machine press-3 --minutes 60 --add
      asd-daemon enroll --machine lathe --source folder:recordings/lathe
    """
    from asd_daemon.hear.opening import open_source
    from asd_daemon.learn.enrolment import CHANGEABLE, EnrolmentRequest, enrol
    from asd_daemon.run.assembly import SharedBundle, enrolled_folder, memory_of
    from asd_daemon.settings.plan import CommandLineOptions, make_plan
    from asd_daemon.waveform import WINDOW_S

    if add and relearn:
        raise UsageError("--add extends and --relearn replaces what was learned: give one of them")
    if resume and anew:
        raise UsageError("--resume goes on with what was collected and --anew forgets it: give one of them")
    plan = make_plan(CommandLineOptions(**words))
    (name,) = plan.machines
    model, spec = plan.model_of(name), plan.sources[name]
    source = open_source(spec)
    wanted = math.ceil((minutes or DEFAULT_MINUTES) * 60 / WINDOW_S) if minutes or source.live else None
    order = EnrolmentRequest(
        model,
        str(spec),
        wanted,
        add=add,
        relearn=relearn,
        earlier="resume" if resume else "forget" if anew else "ask",
        keeps_sound=plan.settings.keep.keeps_enrolment_sound,
    )
    bundle = SharedBundle(plan.bundle, plan.settings.bundle_key).bundle()
    with _Shown(model) as shown:
        done = enrol(bundle, enrolled_folder(), order, source, shown)
    record = done.record
    memory = memory_of(name, spec)
    if memory is not None and record.microphone is not None:
        memory.keep_identity(record.microphone)
        memory.keep_level(record.level_dbfs[1])
    if as_json:
        facts = record.model_dump(mode="json", by_alias=True, exclude={"files", "entry"})
        click.echo(json.dumps({**facts, "threshold": done.threshold}, ensure_ascii=False))
        return
    views = ", ".join(f"{view} {weight:.0%}" for view, weight in record.weights)
    low, middle, high = record.level_dbfs
    click.echo(
        f"{model}: learned from {record.windows} windows; threshold {done.threshold:.3f} (normal windows score about 1)"
    )
    click.echo(f"judged by {views}; tells {record.pseudo_auc:.0%} of made-up changes from normal sound")
    click.echo(f"level {middle:.0f} dBFS ({low:.0f} to {high:.0f}); heard by {record.microphone or record.source}")
    if record.drift > CHANGEABLE:
        click.echo(
            f"warning: the sound changed while it was learned ({record.drift:.1f} times); more of it makes fewer false alarms: --add",
            err=True,
        )
    click.echo(f"next: asd-daemon run --machine {name}")


class _Shown:
    """A bar on a terminal, a line now and then elsewhere; on standard error."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._is_terminal = sys.stderr.isatty()
        self._last = -1

    def __enter__(self) -> _Shown:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            click.echo(err=True)

    def __call__(self, progress: Any) -> None:
        """Show how far it is."""
        start = "\r\033[K" if self._is_terminal else ""
        if progress.news:
            click.echo(f"{start}{progress.news}", err=True)
        wanted = f" of {progress.wanted}" if progress.wanted else ""
        words = f"{self._machine}: {progress.windows}{wanted} windows heard, {progress.unusable} not usable"
        if self._is_terminal:
            filled = round(30 * progress.windows / progress.wanted) if progress.wanted else 0
            bar = f"[{'#' * filled}{'.' * (30 - filled)}] " if progress.wanted else ""
            click.echo(f"{start}{bar}{words}", err=True, nl=False)
        elif progress.windows // 6 != self._last:
            self._last = progress.windows // 6
            click.echo(words, err=True)
