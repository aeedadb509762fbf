"""Scores in batches, and what replaying them says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from asd_daemon.cli.replay import describe_replay, parse_since
from asd_daemon.errors import UsageError
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.run.score_replay import replay_scores
from asd_daemon.tell.storage.plausible_clock import PlausibleClock
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog, read_scores

START = datetime(2026, 1, 31, tzinfo=UTC)
RULE = AlarmRule(open_after=2, of=3, close_after=2, update_every_s=0)


class Clock:
    """A steady clock that is set by hand."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def windows(scores: Sequence[float | None], machine: str = "fan", start: datetime = START) -> list[LoggedScore]:
    return [
        LoggedScore(machine, start + timedelta(seconds=10 * n), s, None if s is None else 0.5, None if s else "silence")
        for n, s in enumerate(scores)
    ]


def log_of(file: Path, kept: Sequence[LoggedScore], clock: Clock | None = None, **more: float) -> ScoreLog:
    log = ScoreLog(
        file, every_s=60, days=more.get("days", 90), clock_s=clock or Clock(), now_s=lambda: START.timestamp() + 3600
    )
    for one in kept:
        log.add(one)
    return log


def test_scores_that_were_written_are_read_in_order(tmp_path: Path) -> None:
    kept = [*windows([0.1, None, 0.9]), *windows([0.3], machine="lathe")]
    log_of(tmp_path / "s.sqlite", kept).flush()
    assert list(read_scores(tmp_path / "s.sqlite", "fan")) == kept[:3]
    assert list(read_scores(tmp_path / "s.sqlite", "lathe")) == kept[3:]


def test_scores_are_written_only_when_it_is_time(tmp_path: Path) -> None:
    clock = Clock()
    log = log_of(tmp_path / "s.sqlite", windows([0.1] * 5), clock)
    assert not (tmp_path / "s.sqlite").exists()
    clock.at_s = 61
    log.add(windows([0.2])[0])
    assert len(list(read_scores(tmp_path / "s.sqlite", "fan"))) == 6


def test_scores_when_the_clock_is_set_back_keep_the_order_in_which_they_were_heard(tmp_path: Path) -> None:
    kept = [*windows([0.1, 0.2]), *windows([0.3, 0.4], start=START - timedelta(days=1))]
    log_of(tmp_path / "s.sqlite", kept).flush()
    assert [k.score for k in read_scores(tmp_path / "s.sqlite", "fan")] == [0.1, 0.2, 0.3, 0.4]
    assert [k.score for k in read_scores(tmp_path / "s.sqlite", "fan", START)] == [0.1, 0.2]


def test_scores_older_than_the_budget_are_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file = tmp_path / "s.sqlite"
    log_of(file, [*windows([0.1], start=START - timedelta(days=9)), *windows([0.2])], days=2).flush()
    assert len(list(read_scores(file, "fan"))) == 2, "what a run has written itself is not old"
    log_of(file, windows([0.3]), days=2).flush()
    assert [k.score for k in read_scores(file, "fan")] == [0.2, 0.3]
    assert "deleted: 1 score older than 2 days" in caplog.text


def test_scores_of_a_clock_that_was_wrong_go_with_their_neighbours_only(tmp_path: Path) -> None:
    file, stamped = tmp_path / "s.sqlite", datetime(1970, 1, 2, tzinfo=UTC)
    old, young = START - timedelta(days=9), START - timedelta(days=1)
    for score, at in ((0.1, stamped), (0.2, old), (0.3, stamped), (0.4, young), (0.5, stamped)):
        log_of(file, windows([score], start=at)).flush()
    log_of(file, windows([0.6]), days=2).flush()
    assert [k.score for k in read_scores(file, "fan")] == [0.3, 0.4, 0.5, 0.6]


def test_scores_stay_when_the_clock_jumps_and_when_the_box_was_off(tmp_path: Path) -> None:
    file, now_s, steady = tmp_path / "s.sqlite", [START.timestamp()], Clock()
    log_of(file, windows([0.1], start=START - timedelta(days=1))).flush()
    clock = PlausibleClock(lambda: now_s[0], steady)
    log = ScoreLog(file, every_s=1e9, days=30, clock_s=steady, now_s=lambda: now_s[0], clock=clock)
    now_s[0] += 60 * 86_400
    log.add(windows([0.2])[0])
    log.flush()
    off = PlausibleClock(lambda: now_s[0], steady, alive_until_s=START.timestamp())
    later = ScoreLog(file, every_s=1e9, days=30, clock_s=steady, now_s=lambda: now_s[0], clock=off)
    later.add(windows([0.3])[0])
    later.flush()
    assert [k.score for k in read_scores(file, "fan")] == [0.1, 0.2, 0.3]


def test_scores_that_cannot_be_written_wait_and_are_written_later(tmp_path: Path) -> None:
    blocked = tmp_path / "state"
    blocked.write_text("in the way")
    log = log_of(blocked / "s.sqlite", windows([0.1, 0.2]))
    log.flush()
    assert log.write_error is not None
    blocked.unlink()
    log.flush()
    assert log.write_error is None
    assert len(list(read_scores(blocked / "s.sqlite", "fan"))) == 2


def test_scores_file_that_is_broken_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "s.sqlite"
    file.write_bytes(b"no database" * 999)
    with pytest.raises(UsageError, match="can't be read as scores"):
        list(read_scores(file, "fan"))
    log_of(file, windows([0.1])).flush()
    assert len(list(read_scores(file, "fan"))) == 1
    assert len(list(tmp_path.glob("s.sqlite.broken-*"))) == 1


def test_scores_that_wait_too_long_are_given_up_and_counted(tmp_path: Path) -> None:
    log = ScoreLog(tmp_path / "no" / "s.sqlite", every_s=1e9, days=1, most_waiting=3, clock_s=Clock())
    for one in windows([0.1, 0.2, 0.3, 0.4, 0.5]):
        log.add(one)
    assert log.dropped == 2


def test_machine_or_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        list(read_scores(tmp_path / "none.sqlite", "fan"))
    log_of(tmp_path / "s.sqlite", windows([0.1])).flush()
    with pytest.raises(UsageError, match="no machine 'pump'; machines: fan"):
        list(read_scores(tmp_path / "s.sqlite", "pump"))


def test_play_tells_what_fired_and_what_would_have_by_another_threshold() -> None:
    kept = windows([0.1, 0.6, 0.7, None, 0.1, 0.1, 0.3, 0.4, 0.1, 0.1])
    as_it_was = replay_scores(kept, RULE)
    assert [(e.kind.value, e.peak_score, e.threshold) for e in as_it_was.events] == [
        ("open", 0.7, 0.5),
        ("close", 0.7, 0.5),
    ]
    assert (as_it_was.windows, as_it_was.unusable, as_it_was.alerts) == (10, 1, 1)
    assert replay_scores(kept, RULE, threshold=0.2).alerts == 2
    assert replay_scores(kept, RULE, threshold=0.8).alerts == 0
    assert replay_scores([], RULE).alerts_per_week is None


def test_replay_as_json_is_events_and_a_summary() -> None:
    lines = [
        json.loads(line)
        for line in describe_replay(replay_scores(windows([0.9, 0.9]), RULE), "box", "fan", as_json=True)
    ]
    assert [line.get("kind") for line in lines] == ["open", None]
    assert lines[-1]["alerts"] == 1
    *_, last = describe_replay(replay_scores(windows([0.9, 0.9]), RULE), "box", "fan", as_json=False)
    assert "1 alert, 60480 a week" in last


@pytest.mark.parametrize(
    ("words", "ago"),
    [
        ("90s", timedelta(seconds=90)),
        ("12h", timedelta(hours=12)),
        ("1.5d", timedelta(hours=36)),
        ("2w", timedelta(14)),
    ],
)
def test_since_in_words_is_that_long_ago(words: str, ago: timedelta) -> None:
    assert parse_since(words, START) == START - ago


def test_since_that_is_no_time_is_refused() -> None:
    assert parse_since("2026-01-30", START) == START - timedelta(days=1)
    assert parse_since("2026-01-31T02:00+02:00", START) == START
    for wrong in ("yesterday", "9999999999w", ""):
        with pytest.raises(UsageError, match="--since"):
            parse_since(wrong, START)
