"""`asd-daemon enroll`: learn a machine on this box, and show how far it is."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from asd_daemon.cli.options import PATH, config_option, json_option, plan_from, scoring_option
from asd_daemon.errors import UsageError

if TYPE_CHECKING:
    from asd_daemon.judge.scoring.scoring_choice import Scoring
    from asd_daemon.learn.enrolment import EnrolmentResult

DEFAULT_MINUTES = 20.0
LEARNING_WINDOWS, MOST_WINDOWS = 600, 2000  # those of tell/commands.py, which is not imported for a help text

MOSTLY = 0.2  # a family of less is not worth a word


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
    "--over",
    metavar="TIME",
    help="Spread what is heard over the clock, a window now and then: 90m, 12h, 3d. Finds the machine's states; off is one.",
)
@click.option(
    "--windows",
    type=click.IntRange(16, MOST_WINDOWS),
    metavar="N",
    help=f"How many windows of 10 s, with --over.  [default: {LEARNING_WINDOWS}]",
)
@click.option(
    "--state",
    metavar="NAME",
    help="In which state the machine is while this is heard (product B, idle, off): it gets a normal of its own.",
)
@config_option
@click.option(
    "--bundle", type=PATH, metavar="FOLDER", help="Models.  [default: configured, installed, or the program's own]"
)
@scoring_option
@click.option("--source", metavar="KIND:TARGET", help="What to hear.  [default: the machine's configured source]")
@click.option("--add", is_flag=True, help="Extend what was learned before: another season, another product.")
@click.option("--relearn", is_flag=True, help="Replace what was learned before, once the new state passes.")
@click.option("--resume", is_flag=True, help="Go on with the windows that an interrupted --relearn has collected.")
@click.option(
    "--anew", is_flag=True, help="Forget the windows that an earlier call has collected, whatever they were for."
)
@json_option
def enroll(
    machine: str,
    minutes: float | None,
    over: str | None,
    windows: int | None,
    state: str | None,
    add: bool,
    relearn: bool,
    resume: bool,
    anew: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Learn a machine from its healthy sound on this box; `run --machine NAME` and `score` know it from then on.

    Interrupted, it goes on where it was when it is called the same way within a day; --relearn begins anew unless --resume is given. The
    state learned before stays until the new one passes.

    \b
    Examples:
      asd-daemon enroll --machine press-3
      asd-daemon enroll --machine press-3 --over 3d
      asd-daemon enroll --machine press-3 --minutes 60 --add
      asd-daemon enroll --machine press-3 --state "product B" --add
      asd-daemon enroll --machine lathe --source folder:recordings/lathe
    """
    from asd_daemon.hear.opening import open_source
    from asd_daemon.judge.bundle.bundle import load_bundle
    from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test
    from asd_daemon.learn.enrolment import EnrolmentRequest, enrol
    from asd_daemon.run.shared_bundle import enrolled_folder
    from asd_daemon.run.source_memories import source_memory_of
    from asd_daemon.tell.commands import checked_state
    from asd_daemon.waveform import WINDOW_S

    if add and relearn:
        raise UsageError("--add extends and --relearn replaces what was learned: give one of them")
    if resume and anew:
        raise UsageError("--resume goes on with what was collected and --anew forgets it: give one of them")
    over_s, spread = _spread(over, windows, minutes)
    if state is not None:
        try:
            checked_state(state)
        except ValueError as e:
            raise UsageError(f"--state {state!r}: {e}") from e
    plan = plan_from({"machines": (machine,), **options})
    (name,) = plan.machines
    model, spec = plan.model_of(name), plan.sources[name]
    source = open_source(spec)
    wanted = math.ceil((minutes or DEFAULT_MINUTES) * 60 / WINDOW_S) if minutes or source.live else None
    wanted = spread or wanted
    request = EnrolmentRequest(
        model,
        str(spec),
        wanted,
        add=add,
        relearn=relearn,
        earlier="resume" if resume else "forget" if anew else "ask",
        keeps_sound=plan.settings.keep.keeps_enrolment_sound,
        over_s=over_s,
        off_below_dbfs=plan.machines[name].quality.off_below_dbfs,
        state=state,
        scoring=plan.scoring_of(name),
    )
    bundle = load_bundle(plan.bundle, plan.bundle_key)
    if request.scoring == "paper":
        bounded_self_test(bundle, extent="models")
    with _ProgressDisplay(model) as shown:
        done = enrol(bundle, enrolled_folder(), request, source, shown)
    record = done.record
    memory = source_memory_of(name, spec)
    if memory is not None and record.microphone is not None:
        memory.keep_identity(record.microphone)
        memory.keep_level(record.level_dbfs[1])
    if as_json:
        facts = record.model_dump(mode="json", by_alias=True, exclude={"files", "entry", "window_states", "sound_rows"})
        click.echo(json.dumps({**facts, "threshold": done.threshold}, ensure_ascii=False))
        return
    _print_learned(model, done, request.scoring)
    click.echo(f"next: asd-daemon run --machine {name}{_options_that_hold(options)}")


def _options_that_hold(options: Mapping[str, Any]) -> str:
    """What was given here and is not configured: without it the machine would be judged otherwise."""
    given = {name: options.get(name) for name in ("config", "bundle", "scoring")}
    return "".join(f" --{name} {shlex.quote(str(value))}" for name, value in given.items() if value)


def _spread(over: str | None, windows: int | None, minutes: float | None) -> tuple[float | None, int | None]:
    """Over how many seconds how many windows are spread; None where they are not.

    Raises:
        UsageError: words that don't fit together.
    """
    from asd_daemon.tell.commands import parse_duration_s
    from asd_daemon.waveform import WINDOW_S

    if over is None:
        if windows is not None:
            raise UsageError("--windows says how many windows are spread over a time: give --over too, or --minutes")
        return None, None
    if minutes is not None:
        raise UsageError("--minutes hears all at once and --over now and then: give one of them")
    try:
        over_s = parse_duration_s(over)
    except ValueError as e:
        raise UsageError(f"--over {e}") from e
    count = windows or min(LEARNING_WINDOWS, int(over_s / WINDOW_S))
    if count * WINDOW_S > over_s:
        raise UsageError(f"--windows {count}: so many windows of 10 s do not fit into --over {over}")
    return over_s, count


def _print_learned(model: str, done: EnrolmentResult, scoring: Scoring) -> None:
    """Say what was learned and how well."""
    from asd_daemon.learn.enrolment import DRIFT_TO_WARN_OF

    record = done.record
    views = ", ".join(f"{view} {weight:.0%}" for view, weight in record.weights)
    low, middle, high = record.level_dbfs
    usual = "normal windows score about 1" if scoring == "auto" else "a distance of embeddings: paper's back end"
    click.echo(
        f"{model}: learned from {record.windows} windows; provisional threshold {done.threshold:.3f} ({usual}),"
        " until a week of listening knows it better"
    )
    if done.learned.words:
        click.echo(f"found {done.learned.words}")
    by = f"{_families(record.weights)} ({views})"
    if scoring == "paper":
        separated = record.nearest is not None and record.nearest.separated
        what = "what is heard and of the machine's part of it" if separated else "what is heard"
        by = f"the embeddings of {what}, beside those of its normal sound; under scoring: auto by {by}"
    click.echo(f"judged by {by}")
    click.echo(f"level {middle:.0f} dBFS ({low:.0f} to {high:.0f}); heard by {record.microphone or record.source}")
    if record.place:
        click.echo(f"warning: at the microphone's place: {', '.join(record.place).replace('_', ' ')}", err=True)
    if record.drift > DRIFT_TO_WARN_OF:
        click.echo(
            f"warning: the sound changed while it was learned ({record.drift:.1f} times); more of it makes fewer false alarms: --add",
            err=True,
        )


def _families(weights: Sequence[tuple[str, float]]) -> str:
    """By what of its sound a machine is judged, in words."""
    moving = sum(weight for view, weight in weights if view.startswith("moving"))
    if moving < MOSTLY:
        return "its steady sound: its movements could not be told from those of other machines"
    if moving > 1 - MOSTLY:
        return "its movements: strokes, rhythm, texture"
    return "its steady sound and its movements"


class _ProgressDisplay:
    """A bar on a terminal, a line now and then elsewhere; on standard error."""

    def __init__(self, machine: str) -> None:
        self._machine = machine
        self._is_terminal = sys.stderr.isatty()
        self._last = -1

    def __enter__(self) -> _ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_terminal:
            click.echo(err=True)

    def __call__(self, progress: Any) -> None:
        """Show how far it is."""
        start = "\r\033[K" if self._is_terminal else ""
        if progress.message:
            click.echo(f"{start}{progress.message}", err=True)
        wanted = f" of {progress.wanted}" if progress.wanted else ""
        options = f"{self._machine}: {progress.windows}{wanted} windows heard, {progress.unusable} not usable"
        if self._is_terminal:
            filled = round(30 * progress.windows / progress.wanted) if progress.wanted else 0
            bar = f"[{'#' * filled}{'.' * (30 - filled)}] " if progress.wanted else ""
            click.echo(f"{start}{bar}{options}", err=True, nl=False)
        elif progress.windows // 6 != self._last:
            self._last = progress.windows // 6
            click.echo(options, err=True)
