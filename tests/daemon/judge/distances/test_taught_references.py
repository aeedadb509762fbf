"""Windows that people called normal become references; named examples are recognised."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.judge.distances.fusion import Candidate, Family, Fusion
from asd_daemon.judge.distances.taught_references import likeness, with_references
from asd_daemon.judge.distances.whitening import F32

DIMS = 6


def windows(rng: np.random.Generator, count: int, centre: float = 0.0, spread: float = 1.0) -> dict[str, F32]:
    return {"a": (centre + spread * rng.standard_normal((count, DIMS))).astype(np.float32)}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


@pytest.fixture
def fusion(rng: np.random.Generator) -> Fusion:
    normal = {"a": windows(rng, 60)["a"][:, None]}
    return Fusion.fit([Family({Candidate("a"): 1.0})], normal, np.zeros(60, np.int64))


@pytest.mark.parametrize("spread", [0.3, 1.0, 4.0])
def test_another_product_is_normal_once_a_few_of_its_windows_were_called_so(
    fusion: Fusion, rng: np.random.Generator, spread: float
) -> None:
    heard = windows(rng, 40, 30, spread)
    assert fusion.score(heard).min() > 2
    taught = with_references(fusion, {"a": heard["a"][:6]})
    assert np.median(taught.score({"a": heard["a"][6:]})) < 1.4


def test_what_is_neither_usual_nor_called_normal_stays_as_abnormal_as_it_was(
    fusion: Fusion, rng: np.random.Generator
) -> None:
    taught = with_references(fusion, windows(rng, 6, 30))
    usual, failing = windows(rng, 20), windows(rng, 20, -30)
    np.testing.assert_allclose(taught.score(usual), fusion.score(usual), rtol=1e-5)
    np.testing.assert_allclose(taught.score(failing), fusion.score(failing), rtol=1e-5)


def test_taught_references_are_the_ones_it_had_and_the_accepted_ones(fusion: Fusion, rng: np.random.Generator) -> None:
    accepted = windows(rng, 3, 30)
    (before,), (after,) = fusion.views, with_references(fusion, accepted).views
    np.testing.assert_array_equal(after.bank[:60], before.bank)
    np.testing.assert_allclose(after.bank[60:], before.in_metric(accepted["a"]))
    assert (after.centre, after.unit) == (before.centre, before.unit)
    assert len(after.density.scale) == len(after.density.offset) == 63


def test_one_window_has_only_the_usual_spread(fusion: Fusion, rng: np.random.Generator) -> None:
    (view,) = with_references(fusion, windows(rng, 1, 30)).views
    assert view.density.scale[-1] == 1


def test_a_window_is_alike_to_windows_of_its_kind_and_not_to_others(fusion: Fusion, rng: np.random.Generator) -> None:
    example, same, other = windows(rng, 5, 30), windows(rng, 10, 30), windows(rng, 10, -30)
    assert np.median(likeness(fusion, example, same)) < 1.5
    assert likeness(fusion, example, other).min() > fusion.score(other).min()


@pytest.mark.parametrize(
    "wrong", [{}, {"a": np.ones((2, DIMS + 1), np.float32)}, {"a": np.ones((0, DIMS), np.float32)}]
)
def test_windows_of_other_views_are_refused(fusion: Fusion, wrong: dict[str, F32]) -> None:
    with pytest.raises(ValueError, match="view a"):
        with_references(fusion, wrong)
