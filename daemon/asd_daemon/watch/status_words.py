"""How `asd-daemon status` says what a daemon's status file holds; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from asd_daemon.judge.thresholds.threshold import Threshold
from asd_daemon.watch.status import DaemonStatus
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_daemon.wording import counted, score_of


def status_lines(status: DaemonStatus) -> Iterator[str]:
    """Lines for people."""
    content = status.content
    yield f"{content.get('node', '?')}: {status.trouble or 'running'}  ({status.file})"
    yield from _delivery_lines(content)
    if not content.get("machines") and status.trouble is None:
        yield "  no machine yet: learn one at the page (asd-daemon web), or configure it"
    for line in content.get("chosen", ()):
        yield f"  {line}"
    shared = _shared_troubles(content)
    for trouble in shared:
        yield f"  {trouble}"
    for name, machine in content.get("machines", {}).items():
        yield from _machine_lines(name, machine, shared)


def _delivery_lines(content: Mapping[str, Any]) -> Iterator[str]:
    broker, waiting = content.get("broker", {}), content.get("kept", {}).get("alerts_waiting", 0)
    if broker.get("broker"):
        how = broker["trouble"] or (
            f"broker {broker['broker']}: " + ("connected" if broker["connected"] else "connecting")
        )
        yield f"  {how}, {_waiting(waiting)}"
        for trouble in broker.get("troubles", ()):
            yield f"    {trouble}"
    if waiting and not content.get("kept", {}).get("alerts_durable", True):
        yield f"  {_waiting(waiting)} in memory only: a restart would lose them"
    yield from _people_lines(content.get("notifications", {}))


def _people_lines(people: Mapping[str, Any]) -> Iterator[str]:
    """Who is told, and who can't be."""
    for recipient in people.get("recipients", ()):
        waits = f", {recipient['waiting']} to be told" if recipient["waiting"] else ""
        told = f"{counted(recipient['told'], 'message')} so far"
        if recipient["trouble"] is not None:
            told = f"NOT TOLD, {counted(recipient['failures'], 'try', 'tries')}: {recipient['trouble']}"
        yield f"  people: {recipient['name']}: {told}{waits}"
    if people.get("given_up"):
        yield f"  people: {counted(people['given_up'], 'notice')} given up, since they could not be told in time"


def _machine_lines(name: str, machine: Mapping[str, Any], shared: list[str]) -> Iterator[str]:
    reason = f" ({machine['reason']})" if machine["reason"] else ""
    state = ", ".join(dict.fromkeys(filter(None, (machine["state"], machine.get("operating_state")))))
    yield f"  {name}: {state}{reason} since {machine['since']}{_score_words(machine)}"
    if counts := counts_text(machine["counts"]):
        yield f"    {counts}"
    if text := machine.get("text"):
        yield f"    {text}"
    calibration = machine.get("calibration")
    if calibration and machine["threshold"] is not None:
        yield f"    threshold {Threshold(machine['threshold'], **calibration).words}"
    if machine["muted_until"]:
        yield f"    muted until {machine['muted_until']}"
    if machine["drift"]:
        fraction, since = machine["drift"]["fraction"], machine["drift"]["since"]
        yield f"    normal scores have drifted {fraction:.0%} of the way to the threshold, since {since}"
    for trouble in machine["troubles"]:
        if trouble not in shared:
            yield f"    {trouble}"


_COUNTED = {
    "heard": ("window heard", "windows heard"),
    "scored": ("scored", "scored"),
    "unusable": ("unusable", "unusable"),
    "off": ("off", "off"),
    "dropped": ("dropped", "dropped"),
    "refused": ("recording refused", "recordings refused"),
    "gaps": ("gap", "gaps"),
    "losses": ("loss of sound", "losses of sound"),
    "opened": ("alert", "alerts"),
    "deaf": ("time deaf", "times deaf"),
}


def counts_text(counts: Mapping[str, int]) -> str:
    """What has happened so far, in words; what has not is left out."""
    told = [counted(counts[name], *nouns) for name, nouns in _COUNTED.items() if counts.get(name)]
    if missing := counts.get("gap_samples"):
        told.append(f"{missing / SAMPLE_RATE_HZ:.3g} s of sound missing")
    return ", ".join(told)


def _waiting(alerts: int) -> str:
    return f"{counted(alerts, 'alert')} {'waits' if alerts == 1 else 'wait'}"


def _score_words(machine: Mapping[str, Any]) -> str:
    """The last window's score, and what it takes for an alert where it lies above the threshold and there is none."""
    if machine["score"] is None:
        return ""
    score = f"  score {score_of(machine['score'], machine['threshold'])}"
    above = machine.get("above")
    return f"{score}; {above_text(above['windows'], above['opens_at'], above['of'])}" if above else score


def above_text(windows: int, opens_at: int, of: int) -> str:
    """Why so many windows above the threshold make no alert yet."""
    if windows >= opens_at:
        return f"{counted(windows, 'window')} above the threshold so soon after an alert: a new one waits"
    return f"{windows} of the {opens_at} windows above the threshold, among {of}, that open an alert"


def _shared_troubles(content: Mapping[str, Any]) -> list[str]:
    """What all of several machines say, which is of the daemon."""
    said = [machine["troubles"] for machine in content.get("machines", {}).values()]
    return [trouble for trouble in said[0] if all(trouble in other for other in said)] if len(said) > 1 else []
