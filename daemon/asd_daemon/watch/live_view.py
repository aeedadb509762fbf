"""What happens, as lines that people read while it happens: a bar for each window's score, states, alerts. `run` on a terminal, `watch` and
`make demo` show it.

Plain lines without control codes: they scroll, can be piped, and fit the width. Of many machines only what is out of the ordinary has
lines of its own, and now and then one line sums up. It is told what the topics are told, and knows no broker, file or thread.
"""

from __future__ import annotations

import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from asd_daemon.wording import counted, score_of

_NAME_WIDTH, _BAR_WIDTH = 16, 24
_MOST_WITH_BARS = 8
_SUM_UP_EVERY_S = 10.0
_TEXT_COLUMN = 10  # behind the time
_MOST_NAMES = 3
_ORDINARY = ("starting", "normal", "off", "stopped")


@dataclass
class _Shown:
    at: str = ""
    """The latest time that was told, UTC."""
    state: str = ""
    reason: str | None = None
    event_id: str | None = None
    score: float = 0.0
    threshold: float = 0.0
    troubles: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """The score in thresholds."""
        return self.score / self.threshold if self.threshold > 0 else 0.0


class LiveView:
    """Remembers how each machine was shown last; from one thread.

    Args:
        width: columns that a line may fill; None: any number, as in a pipe.
        zone: of the times that are shown; None: this box's.
        clock_s: a steady clock.
    """

    def __init__(
        self, width: int | None = None, zone: tzinfo | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._width, self._zone, self._clock_s = width, zone, clock_s
        self._shown: dict[str, _Shown] = {}
        self._name_width = 0
        self._summed_up_s = clock_s()

    def expect(self, machines: Iterable[str]) -> None:
        """These are the machines that there will be something to say of: with many, only what is out of the ordinary is shown."""
        for machine in machines:
            self._of(machine)

    def forget(self, machine: str) -> None:
        """It is not there any more."""
        self._shown.pop(machine, None)

    def lines(self, what: str, content: Mapping[str, Any], machine: str | None = None) -> Iterator[str]:
        """The lines of one message.

        Args:
            what: state, score or alert; of anything else there are no lines.
            content: as it would be published.
            machine: what to call it; None: as it is called there.
        """
        name = machine or str(content["machine"])
        told = {"state": self._state_lines, "score": self._score_lines, "alert": self._alert_lines}
        if what in told:
            yield from told[what](name, content)

    def note(self, text: str) -> Iterator[str]:
        """Lines of what is of no machine."""
        yield from self._fitted("", text)

    def _of(self, machine: str) -> _Shown:
        self._name_width = min(max(self._name_width, len(machine)), _NAME_WIDTH)
        return self._shown.setdefault(machine, _Shown())

    @property
    def _is_crowd(self) -> bool:
        return len(self._shown) > _MOST_WITH_BARS

    def _score_lines(self, machine: str, content: Mapping[str, Any]) -> Iterator[str]:
        shown = self._of(machine)
        shown.at, shown.score, shown.threshold = content["at"], content["score"], content["threshold"]
        if not self._is_crowd or content["anomalous"]:
            verdict = "anomalous" if content["anomalous"] else "normal"
            words = f"{score_of(shown.score, shown.threshold):>14}  {verdict}"
            yield self._cut(
                f"{self._head(content['at'], machine)}  {score_bar(shown.share, self._bar_width())}  {words}"
            )
        if self._is_crowd and self._clock_s() - self._summed_up_s >= _SUM_UP_EVERY_S:
            self._summed_up_s = self._clock_s()
            yield from self._fitted(self._time(content["at"]), self._summary())

    def _state_lines(self, machine: str, content: Mapping[str, Any]) -> Iterator[str]:
        shown, state, reason = self._of(machine), str(content["state"]), content["reason"]
        troubles = tuple(content.get("troubles", ()))
        is_new = (state, reason) != (shown.state, shown.reason)
        is_ordinary = self._is_crowd and reason is None and state in _ORDINARY
        was_ordinary = shown.state in ("", *_ORDINARY)
        new_troubles = [trouble for trouble in troubles if trouble not in shown.troubles]
        shown.state, shown.reason, shown.event_id, shown.troubles = state, reason, content["event_id"], troubles
        shown.at = max(shown.at, str(content.get("said_at") or content["since"]))  # some seconds may be simulated ones
        head = self._head(shown.at, machine)
        if is_new and not (is_ordinary and was_ordinary):
            yield from self._fitted(head, f"{state}: {reason}" if reason else state)
        for trouble in new_troubles:
            yield from self._fitted(head, f"trouble: {trouble}")

    def _alert_lines(self, machine: str, content: Mapping[str, Any]) -> Iterator[str]:
        happens = {"open": "ALERT", "update": "ALERT goes on", "close": "ALERT is over"}[content["kind"]]
        if content.get("repeated"):
            happens = "ALERT is still open"
        if content.get("outcome") == "unknown":
            happens = "ALERT ends as unknown: the machine can't be judged"
        score = f"score {score_of(content['peak_score'], content['threshold'])}"
        if "windows" in content:  # else it is known from a status file only
            score = f"{score.replace('score', 'score up to')}, {content['anomalous_windows']} of"
            score = f"{score} {counted(content['windows'], 'window')} above"
        text = f": {content['text']}" if content.get("text") else ""
        yield from self._fitted(f"{self._head(content['at'], machine)} >>", f"{happens}, {score}{text}")

    def _summary(self) -> str:
        """How all are, in one sentence; those that are not normal by name."""
        states = Counter(shown.state or "starting" for shown in self._shown.values())
        parts = []
        for state, count in states.most_common():
            names = [name for name, shown in self._shown.items() if (shown.state or "starting") == state]
            more = ", …" if count > _MOST_NAMES else ""
            named = "" if state in _ORDINARY else f" ({', '.join(names[:_MOST_NAMES])}{more})"
            parts.append(f"{count} {state}{named}")
        highest, shown = max(self._shown.items(), key=lambda item: item[1].share)
        said = f"; highest {highest} {score_of(shown.score, shown.threshold)}" if shown.threshold else ""
        return f"{counted(len(self._shown), 'machine')}: {', '.join(parts)}{said}"

    def _head(self, at: str, machine: str) -> str:
        name = machine if len(machine) <= _NAME_WIDTH else f"{machine[: _NAME_WIDTH - 1]}…"
        return f"{self._time(at)}  {name:{self._name_width}}"

    def _time(self, at: str) -> str:
        return datetime.fromisoformat(at).astimezone(self._zone).strftime("%H:%M:%S")

    def _bar_width(self) -> int:
        """As wide as there is room for, with time, name, score and verdict beside it."""
        if self._width is None:
            return _BAR_WIDTH
        others = len("00:00:00    [|]  12.34 of 12.34   anomalous") + self._name_width
        return max(4, min(_BAR_WIDTH, self._width - others) // 2 * 2)

    def _fitted(self, head: str, text: str) -> Iterator[str]:
        """A line, or as many as its words need."""
        line = f"{head}  {text}" if head else text
        if self._width is None:
            yield line
            return
        yield from textwrap.wrap(
            line, self._width, subsequent_indent=" " * _TEXT_COLUMN, drop_whitespace=True, replace_whitespace=True
        )

    def _cut(self, line: str) -> str:
        return line if self._width is None or len(line) <= self._width else f"{line[: self._width - 1]}…"


def score_bar(share: float, width: int = _BAR_WIDTH) -> str:
    """A score as a bar whose middle is the threshold.

    Args:
        share: the score in thresholds.
        width: columns between the brackets, an even number; the mark in the middle comes on top.
    """
    filled = min(width, max(0, round(width / 2 * share)))
    drawn = "#" * filled + " " * (width - filled)
    return f"[{drawn[: width // 2]}|{drawn[width // 2 :]}]"
