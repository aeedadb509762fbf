"""Is a new bundle worse than the one before it? By what it would have told beside it, and by what it tells once it judges.

Pure but for reading past alerts. The rules:

* Trial. Windows count as normal where the present bundle has no alert open, and in alerts of it that people called normal. On these, `a`
  alerts of the present one and `b` that the new one would have opened; one that stays open counts again each hour, else a bundle to
  which everything is abnormal would have told one alert. It is worse where b > a and one of two one-sided tests says so at
  2.5 % (5 % together, Bonferroni): were both alike, b of a + b would be binomial with ½; were it within the budget of false alarms, b
  would be Poisson with the budget's mean for the windows that were heard.
* After the switch, for six hours: worse where alerts, on at least half of the machines that the bundle judges, are so many that a Poisson
  variable with the budget's mean until then reaches them with less than 0.1 %: of one machine with an alert a week, one within ten
  minutes, or two within six hours.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asd_daemon.rollout.rollout_state import TrialRecord
from asd_daemon.wording import counted

ALPHA = 0.025
JUMP_ALPHA = 0.001
WATCHED_S = 6 * 3600.0
LEAST_WINDOWS = 60
"""A trial goes on until both have judged so many."""
MOST_LOAD = 0.5
"""Of a core, that the new bundle may take for all its machines."""
_WEEK_S = 7 * 86_400.0
_AROUND = timedelta(minutes=10)
ALERT_COUNTS_AGAIN = timedelta(hours=1)


@dataclass(frozen=True)
class PastAlert:
    """An alert that people were told of."""

    machine: str
    opened: datetime
    closed: datetime | None
    """None while it is open."""
    is_normal: bool
    """Whether people called it normal."""


@dataclass(frozen=True)
class JudgedMachine:
    """A machine that the bundle judges."""

    name: str
    false_alarms_per_week: float
    hop_s: float


@dataclass(frozen=True)
class TrialVerdict:
    """What a trial has shown."""

    is_worse: bool
    words: str


def past_alerts(history: Path, since: datetime) -> list[PastAlert]:
    """Alerts that were open at or after a UTC time; none where the file can't be read."""
    if not history.exists():
        return []
    since_ms = since.timestamp() * 1000
    with contextlib.suppress(sqlite3.Error, ValueError):
        database = sqlite3.connect(f"{history.resolve().as_uri()}?mode=ro", uri=True)
        try:
            rows = database.execute(
                "select machine, opened_ms, closed_ms, latest from event where opened_ms >= ? or coalesce(closed_ms, 9e18) >= ?",
                (since_ms, since_ms),
            ).fetchall()
        finally:
            database.close()
        return [
            PastAlert(
                m,
                _time(opened),
                None if closed is None else _time(closed),
                json.loads(latest).get("outcome") == "accepted",
            )
            for m, opened, closed, latest in rows
        ]
    return []


def _time(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def false_alarms(
    record: TrialRecord, machines: Sequence[JudgedMachine], alerts: Sequence[PastAlert]
) -> tuple[int, int]:
    """False alarms in a trial by the rule above: of the present bundle, and those that the new one would have told."""
    of = {machine.name for machine in machines}
    told = [alert for alert in alerts if alert.machine in of and alert.is_normal and alert.opened >= record.began_at]
    would = [
        (name, at)
        for name, seen in record.machines.items()
        if name in of
        for at in seen.opened
        if not any(_is_within(name, at, alert) for alert in alerts if not alert.is_normal)
    ]
    return sum(_times(alert) for alert in told), len(would)


def trial_verdict(record: TrialRecord, machines: Sequence[JudgedMachine], alerts: Sequence[PastAlert]) -> TrialVerdict:
    """Whether the new bundle is worse, by the rule above, or too slow."""
    of = {machine.name: machine for machine in machines}
    a, b = false_alarms(record, machines, alerts)
    seconds = {name: seen.windows * of[name].hop_s for name, seen in record.machines.items() if name in of}
    expected = sum(of[name].false_alarms_per_week * lasted / _WEEK_S for name, lasted in seconds.items())
    by_pairs, by_budget = binomial_tail(b, a + b), poisson_tail(b, expected)
    load = sum(
        seen.cpu_s / (seen.windows * of[name].hop_s)
        for name, seen in record.machines.items()
        if name in of and seen.windows
    )
    figures = f"{record.windows} windows: {b} false alarms beside {a}, {expected:.2g} allowed"
    if load > MOST_LOAD:
        return TrialVerdict(True, f"{figures}; it takes {load:.0%} of a core")
    if b > a and min(by_pairs, by_budget) < ALPHA:
        return TrialVerdict(True, f"{figures} (p = {min(by_pairs, by_budget):.2g})")
    return TrialVerdict(False, figures)


def _times(alert: PastAlert) -> int:
    """How often an alert that has ended counts."""
    return 1 if alert.closed is None else 1 + max(0, (alert.closed - alert.opened) // ALERT_COUNTS_AGAIN)


def _is_within(machine: str, at: datetime, alert: PastAlert) -> bool:
    """Whether the present bundle had told of it too, a little earlier or later."""
    ended = alert.closed or datetime.max.replace(tzinfo=UTC) - _AROUND
    return machine == alert.machine and alert.opened - _AROUND <= at <= ended + _AROUND


def jump(opened: Mapping[str, int], machines: Sequence[JudgedMachine], hours: float) -> str | None:
    """Why alerts since a switch are too many, in words; None where they are not.

    Args:
        opened: by machine, since the switch.
        machines: those that the bundle judges.
        hours: for which it has judged.
    """
    names = {machine.name for machine in machines}
    alerts = sum(count for name, count in opened.items() if name in names)
    touched = sum(1 for name, count in opened.items() if name in names and count)
    expected = sum(machine.false_alarms_per_week for machine in machines) * max(hours, 1 / 60) * 3600 / _WEEK_S
    if not alerts or 2 * touched < len(names) or poisson_tail(alerts, expected) >= JUMP_ALPHA:
        return None
    return f"{counted(alerts, 'alert')} on {touched} of {counted(len(names), 'machine')} within {hours:.1f} h of it"


def binomial_tail(k: int, n: int) -> float:
    """P(X ≥ k) for X binomial with n and ½."""
    return float(sum(math.comb(n, i) for i in range(k, n + 1)) / 2**n)


def poisson_tail(k: int, mean: float) -> float:
    """P(X ≥ k) for X Poisson."""
    if mean > 700:
        return 1.0 if k <= mean else 0.0
    term, below = math.exp(-mean), 0.0
    for i in range(k):
        below += term
        term *= mean / (i + 1)
    return max(0.0, 1.0 - below)
