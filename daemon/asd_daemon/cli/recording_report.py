"""`asd-daemon score`: judged windows → a line for each, or for each recording.

Owns the words. Recordings are judged by run/scored_recordings.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asd_daemon.errors import RecordingError
from asd_daemon.hear.windows.quality import UnfitReason
from asd_daemon.run.scored_recordings import ScoredWindow
from asd_daemon.sound_file import printable

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class _Heard:
    """One recording's windows, counted."""

    windows: int = 0
    usable: int = 0
    anomalous: int = 0
    worst: ScoredWindow | None = None
    reasons: tuple[str, ...] = ()

    def with_window(self, window: ScoredWindow) -> _Heard:
        reasons = self.reasons
        if window.unusable is not None and window.unusable.value not in reasons:
            reasons = (*reasons, window.unusable.value)
        worst = self.worst
        if window.score is not None and (worst is None or worst.score is None or window.score > worst.score):
            worst = window
        return _Heard(
            self.windows + 1,
            self.usable + (window.score is not None),
            self.anomalous + bool(window.anomalous),
            worst,
            reasons,
        )


class RecordingReport:
    """The lines of one call: for people, or a JSON object each.

    Args:
        machine: whose sound it is.
        as_json: objects instead of words.
        summary: one line a recording instead of one a window.
    """

    def __init__(self, machine: str, *, as_json: bool, summary: bool) -> None:
        self._machine, self._as_json, self._summary = machine, as_json, summary
        self.refused = 0
        """Recordings of which nothing, or not all, could be judged."""

    def lines(self, path: Path, windows: Iterator[ScoredWindow]) -> Iterator[tuple[str, bool]]:
        """Lines of one recording, and whether each is an error."""
        heard, error = _Heard(), None
        several: list[
            ScoredWindow
        ] = []  # the first, until it is known whether there are more: one window needs no time
        try:
            for window in windows:
                heard = heard.with_window(window)
                if self._summary:
                    continue
                if heard.windows == 1:
                    several.append(window)
                    continue
                for one in (*several, window):
                    yield self._line(path, one, is_only=False), False
                several.clear()
        except RecordingError as e:
            error = str(e)
        for one in several:
            yield self._line(path, one, is_only=True), False
        if self._summary and heard.windows:
            yield self._total(path, heard), False
        if error is None and heard.usable == 0:
            other = "; is another --channel meant?" if UnfitReason.SILENCE.value in heard.reasons else ""
            error = f"{printable(path)}: not usable: {', '.join(heard.reasons) or 'no sound'}{other}"
        if error is not None:
            self.refused += 1
            yield f"error: {error}", True

    def _line(self, path: Path, window: ScoredWindow, *, is_only: bool) -> str:
        if self._as_json:
            return _json(
                path=str(path),
                machine=self._machine,
                score=window.score,
                threshold=window.threshold,
                anomalous=window.anomalous,
                start_s=round(window.start_s, 3),
                seconds=round(window.seconds, 3),
                unusable=window.unusable.value if window.unusable else None,
            )
        at = "" if is_only else f"  at {_clock(window.start_s)}"
        return f"{_verdict(window)}  {printable(path)}{at}"

    def _total(self, path: Path, heard: _Heard) -> str:
        worst = heard.worst
        if self._as_json:
            return _json(
                path=str(path),
                machine=self._machine,
                score=worst.score if worst else None,
                threshold=worst.threshold if worst else None,
                anomalous=worst.anomalous if worst else None,
                worst_start_s=round(worst.start_s, 3) if worst else None,
                windows=heard.windows,
                unusable_windows=heard.windows - heard.usable,
                unusable=list(heard.reasons),
                anomalous_windows=heard.anomalous,
                anomalous_share=round(heard.anomalous / heard.usable, 4) if heard.usable else None,
            )
        if worst is None:
            return f"{'unusable':9} {', '.join(heard.reasons)}  {printable(path)}"
        unusable = f", {heard.windows - heard.usable} not usable ({', '.join(heard.reasons)})" if heard.reasons else ""
        return (
            f"{_verdict(worst)}  {printable(path)}: {heard.anomalous} of {heard.usable} windows anomalous{unusable},"
            f" the worst at {_clock(worst.start_s)}"
        )


def _verdict(window: ScoredWindow) -> str:
    if window.score is None or window.threshold is None:
        return f"{'unusable':9} {window.unusable.value if window.unusable else ''}"
    return f"{'ANOMALOUS' if window.anomalous else 'normal':9} {window.score:8.4f} of {window.threshold:.4f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return (
        f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:04.1f}" if minutes >= 60 else f"{int(minutes)}:{rest:04.1f}"
    )


def _json(**content: Any) -> str:
    """One object in UTF-8; a byte of a name that is no UTF-8 stays as Python and JSON can give it back."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(content, ensure_ascii=False))
