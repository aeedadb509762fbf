"""Which family of views counts: told from normal sound alone."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.hear.simulator import SimulatedMachine, mix, render_noise
from asd_daemon.judge.features.moving_views import MOVING_VIEWS
from asd_daemon.judge.features.steady_views import STEADY_VIEWS
from asd_daemon.judge.features.views import VIEW_NAMES, view_sizes, view_vectors
from asd_daemon.learn.reference_sounds import reference_vectors
from asd_daemon.learn.view_families import (
    CONTRAST_VIEWS,
    LEAST_SHARE,
    MOST_SHARE,
    movement_contrast,
    moving_share,
    view_families,
)


def test_reference_sounds_are_those_of_many_machines_in_every_view_of_the_contrast() -> None:
    for view in CONTRAST_VIEWS:
        others = reference_vectors()[view]
        assert others.shape[0] >= 50
        assert others.shape[1] == view_sizes()[view]
        assert np.isfinite(others).all()


def _contrast(windows: list[np.ndarray]) -> float:
    vectors = [view_vectors(window, views=CONTRAST_VIEWS) for window in windows]
    contrast = movement_contrast(
        {v: np.stack([one[v] for one in vectors]) for v in CONTRAST_VIEWS}, reference_vectors()
    )
    assert contrast is not None
    return contrast


def test_a_machine_of_strokes_is_judged_by_its_movement_and_a_hum_in_foreign_noise_is_not() -> None:
    rng = np.random.default_rng(3)
    slider = SimulatedMachine("slider", 3)
    strokes = [
        mix(slider.render(10, np.random.default_rng(n)), render_noise("pink", 10, np.random.default_rng(n)), 6, -30)
        for n in range(16)
    ]
    hum = 0.01 * np.sin(2 * np.pi * 437.5 * np.arange(160_000) / 16_000)
    places = ("chatter", "vehicles", "clanks", "rain")
    buried = [
        (hum + render_noise(places[n % 4], 10, np.random.default_rng(n)) * rng.uniform(0.5, 2)).astype(np.float32)
        for n in range(16)
    ]
    assert moving_share(_contrast(strokes)) == pytest.approx(MOST_SHARE)
    assert moving_share(_contrast(buried)) == pytest.approx(LEAST_SHARE)


@pytest.mark.parametrize(("contrast", "moving"), [(None, 0.1), (1.0, 0.1), (2.5, 0.54), (9.0, 0.98)])
def test_views_of_a_family_count_alike_and_families_by_the_contrast(contrast: float | None, moving: float) -> None:
    families = view_families(VIEW_NAMES, contrast)
    assert [sorted(c.view for c in family.weights) for family in families] == [
        sorted(STEADY_VIEWS),
        sorted(MOVING_VIEWS),
    ]
    assert [family.share for family in families] == pytest.approx([1 - moving, moving])
    assert all(set(family.weights.values()) == {1.0} for family in families)


def test_a_machine_without_views_of_one_family_is_judged_by_the_other() -> None:
    for views in (["steady-mean"], ["moving-coupling", "moving-rhythm"], ["unknown"]):
        (family,) = view_families(views, 0.0)
        assert [c.view for c in family.weights] == views
    assert movement_contrast({}, {}) is None
