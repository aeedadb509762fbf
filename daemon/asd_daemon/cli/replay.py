"""`asd-daemon replay`: what would have fired, had the alarm been set so, on the scores that were kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asd_daemon.cli.options import config_option, json_option
from asd_daemon.errors import UsageError
from asd_daemon.wording import counted, score_of, score_text

if TYPE_CHECKING:
    from asd_daemon.run.score_replay import Replay


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@click.command()
@click.option("--machine", required=True, metavar="NAME", help="Machine whose scores are played again.")
@config_option
@click.option("--since", metavar="TIME", help="From when on: 12h, 2d, 1w ago or an ISO 8601 time.  [default: all]")
@click.option("--threshold", type=float, metavar="SCORE", help="Judge by this one.  [default: that of the time]")
@json_option
def replay(machine: str, config: Path | None, since: str | None, threshold: float | None, as_json: bool) -> None:
    """Show what would have fired on the scores that were kept, with the alarm as it is configured now.

    For choosing a threshold: no sound is needed, and nothing is told to anybody. The score log is in the state folder.

    \b
    Examples:
      asd-daemon replay --machine fan --since 1w
      asd-daemon replay --machine fan --since 2d --threshold 1.4
    """
    from asd_daemon.run.rules import alarm_rule
    from asd_daemon.run.score_replay import replay_scores
    from asd_daemon.run.stores import scores_file
    from asd_daemon.settings.file import load_settings, settings_file, state_folder
    from asd_daemon.settings.keys import AlarmSettings, Settings
    from asd_daemon.tell.storage.score_log import read_scores

    file = settings_file(config)
    settings = load_settings(file) if file else Settings()
    configured = settings.machines.get(machine)
    rule = alarm_rule(configured.alarm if configured else AlarmSettings())
    begin = parse_since(since, datetime.now(UTC)) if since else None
    played = replay_scores(read_scores(scores_file(state_folder()), machine, begin), rule, threshold)
    for line in describe_replay(played, settings.node, machine, as_json=as_json):
        click.echo(line)


def parse_since(words: str, now: datetime) -> datetime:
    """A time in the past: `90m`, `12h`, `2d`, `1w` ago, or an ISO 8601 date or time, UTC where it says no other zone.

    Raises:
        UsageError: it is neither.
    """
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", words.strip())
    try:
        if ago:
            return now - timedelta(seconds=float(ago[1]) * _UNITS_S[ago[2]])
        at = datetime.fromisoformat(words.strip())
    except (ValueError, OverflowError) as e:
        raise UsageError(f"--since {words!r} must be like 12h, 2d or 2026-01-31T12:00") from e
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def describe_replay(played: Replay, node: str, machine: str, *, as_json: bool) -> Iterator[str]:
    """Lines for people, or one JSON object an event and a last one that sums up."""
    from asd_daemon.tell.payloads import alert_payload, time_text

    per_week = played.alerts_per_week
    for event in played.events:
        if as_json:
            yield json.dumps(alert_payload(node, machine, event), ensure_ascii=False)
        else:
            yield (
                f"{time_text(event.at)}  {event.kind.value:6} alert {event.event_id}: score {score_text(event.score, event.threshold)}, "
                f"peak {score_of(event.peak_score, event.threshold)}"
            )
    if as_json:
        summary = {
            "machine": machine,
            "windows": played.windows,
            "unusable": played.unusable,
            "alerts": played.alerts,
            "alerts_per_week": per_week,
            "first_at": time_text(played.first_at) if played.first_at else None,
            "last_at": time_text(played.last_at) if played.last_at else None,
        }
        yield json.dumps(summary)
        return
    often = "" if per_week is None else f", {score_text(per_week)} a week"
    yield f"{counted(played.windows, 'window')}, {played.unusable} of them unusable: {counted(played.alerts, 'alert')}{often}"
