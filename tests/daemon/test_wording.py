"""Figures as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asd_daemon.wording import counted, score_of, score_text


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (0.99461234, "0.9946"),
        (1.2663901, "1.266"),
        (12.3456, "12.35"),
        (99_999.4, "99999"),
        (1e9, "1000000000"),
        (0.00023961, "0.0002396"),
        (math.inf, "inf"),
    ],
)
def test_score_has_four_digits_and_no_exponent(score: float, text: str) -> None:
    assert score_text(score) == text


@pytest.mark.parametrize(
    ("score", "threshold", "text"),
    [
        (6.8e-08, 1.2664, "0 of 1.266"),
        (-1e-9, 1.2664, "0 of 1.266"),
        (2.437, 1.271, "2.437 of 1.271"),
        (0.0001234, 0.0002396, "0.0001234 of 0.0002396"),
        (0.5, 0.0, "0.5 of 0"),
    ],
)
def test_score_beside_its_threshold_has_digits_that_mean_something(score: float, threshold: float, text: str) -> None:
    assert score_of(score, threshold) == text


@given(st.floats(1e-8, 1e8), st.floats(0, 1e8))
def test_score_that_is_read_again_is_right_to_four_digits(score: float, beside: float) -> None:
    text = score_text(score, beside)
    assert "e" not in text
    assert math.isclose(float(text), score, rel_tol=5.1e-4, abs_tol=5.1e-4 * beside)


def test_count_agrees_with_its_noun() -> None:
    assert [counted(n, "alert") for n in (0, 1, 2)] == ["0 alerts", "1 alert", "2 alerts"]
    assert counted(1, "loss", "losses") == "1 loss"
    assert counted(2, "loss", "losses") == "2 losses"
