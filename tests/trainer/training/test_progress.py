"""Progress as log lines, with a clock that the test moves."""

from __future__ import annotations

import logging

import pytest

from asd_trainer.training.progress import LOG_INTERVAL_S, LoggedProgress, counted, counted_steps, time_in_words


def test_log_lines_come_at_intervals_with_the_time_that_is_left(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    progress = LoggedProgress("work", total=40, done=10, clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        for done in range(11, 41):
            now[0] += LOG_INTERVAL_S / 5
            progress(done, {"loss": 0.5, "gradient_norm": 3.0})
    assert len(caplog.messages) == 7
    assert caplog.messages[0] == "work: 11 of 40, loss 0.5, 1 min 27 s to go"
    assert caplog.messages[-1] == "work: 40 of 40, loss 0.5, 0 s to go"


def test_hidden_progress_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), counted_steps("work", 2, shown=False) as advance:
        advance(1, {})
        advance(2, {})
    assert not caplog.messages


def test_work_that_tells_its_total_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), counted("work", "clips") as tell:
        for done in range(4):
            tell(done, 3)
    assert caplog.messages == ["work (clips): 3 of 3, 0 s to go"]


@pytest.mark.parametrize(("seconds", "spoken"), [(44.6, "45 s"), (200, "3 min 20 s"), (7505, "2 h 05 min")])
def test_time_is_spoken(seconds: float, spoken: str) -> None:
    assert time_in_words(seconds) == spoken
