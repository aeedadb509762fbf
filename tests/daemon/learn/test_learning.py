"""What is made of a machine's normal windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from asd_daemon.errors import DataSetError
from asd_daemon.judge.features.views import view_vectors
from asd_daemon.learn.learning import learn
from asd_daemon.learn.normal_sound import NormalSound
from rig.bundles import healthy_noise

VIEWS = ("steady-mean", "steady-floor", "moving-texture")


@pytest.fixture(scope="module")
def sound() -> NormalSound:
    rng = np.random.default_rng(4)
    windows = [view_vectors(healthy_noise(rng, 1.0), views=VIEWS) for _ in range(20)]
    return NormalSound({v: np.stack([one[v] for one in windows]) for v in VIEWS}, {}, np.zeros(20, np.int64))


def test_a_view_in_which_all_windows_are_alike_has_no_say(sound: NormalSound) -> None:
    """Behind a noise gate nothing is steady: in a view of nothing, the least sound would be infinitely far."""
    gated = sound.vectors["steady-mean"].copy()
    gated[:] = np.log(1e-5)
    learned = learn(replace(sound, vectors={**sound.vectors, "steady-mean": gated}))
    assert set(dict(learned.weights)) == {"steady-floor", "moving-texture"}


def test_windows_that_are_alike_in_every_view_teach_nothing(sound: NormalSound) -> None:
    rng = np.random.default_rng(1)
    alike = {v: x[:1] + 1e-7 * rng.standard_normal(x.shape).astype(np.float32) for v, x in sound.vectors.items()}
    with pytest.raises(DataSetError, match="exactly alike"):
        learn(replace(sound, vectors=alike))


def test_weights_sum_to_one_and_held_out_scores_are_about_one(sound: NormalSound) -> None:
    learned = learn(sound)
    assert sum(dict(learned.weights).values()) == pytest.approx(1, abs=1e-3)
    assert np.median(learned.held_out) == pytest.approx(1, abs=0.15)
    assert learned.contrast is None
