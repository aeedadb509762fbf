"""Which states a machine's windows show: off by level, others where they lie clearly apart, and no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.features.views import view_vectors
from asd_daemon.learn.learned_states import learn_states
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.states import find_states, off_level, off_up_to, two_clusters
from asd_daemon.waveform import WINDOW_SAMPLES


def levels(rng: np.random.Generator, *groups: tuple[int, float, float]) -> np.ndarray:
    return np.concatenate([rng.normal(level, spread, count) for count, level, spread in groups])


def test_off_is_a_group_far_below_with_a_gap() -> None:
    off = off_level(levels(np.random.default_rng(0), (40, -30, 1.5), (20, -55, 2)))
    assert off is not None
    assert off.usual_dbfs == pytest.approx(-55, abs=1)
    assert -50 < off.below_dbfs < -35
    assert off.share == pytest.approx(1 / 3, abs=1e-4)


def test_windows_of_starts_and_stops_in_the_gap_do_not_hide_it() -> None:
    heard = levels(np.random.default_rng(0), (200, -30, 1.5), (100, -50, 2), (6, -40, 4))
    assert off_level(heard) is not None


@pytest.mark.parametrize(
    "groups",
    [
        ((60, -30, 1.5),),
        ((60, -30, 6.0),),  # a gain that anybody turns
        ((40, -30, 1.5), (20, -40, 1.5)),  # idle perhaps; too near to say without its sound
        ((60, -30, 1.0), (2, -60, 1.0)),
        ((10, -30, 1.0), (60, -60, 1.0)),  # too little of the machine at work
    ],
)
def test_off_is_nothing_less_than_that(groups: tuple[tuple[int, float, float], ...]) -> None:
    assert off_level(levels(np.random.default_rng(1), *groups)) is None


def test_off_is_where_somebody_says_that_it_ends() -> None:
    heard = levels(np.random.default_rng(0), (40, -30, 1.5), (20, -40, 1.5))
    off = off_up_to(-36.0, heard)
    assert off is not None
    assert off.below_dbfs == -36.0
    assert off.share == pytest.approx(1 / 3, abs=1e-4)
    assert off_up_to(-90.0, heard) is None
    assert off_up_to(0.0, heard) is None, "then there is no machine at work"


def test_clusters_are_those_of_scipy() -> None:
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.5, 3.0):
        rows = rng.normal(size=(60, 8))
        rows[25:] += shift
        theirs = fcluster(linkage(rows, "ward"), 2, "maxclust")
        assert np.array_equal(two_clusters(rows), theirs != theirs[0])


@pytest.fixture(scope="module")
def loads() -> NormalSound:
    """A fan at two loads, twenty windows each, every window of another run."""
    rng = np.random.default_rng(3)
    described: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
    machine = SimulatedMachine("fan", 4)
    for load in ("0", "100"):
        scene = draw_scene(DOMAINS["fan"]["source"], rng, setting={"m-n": "W", "load": load}, snr_db=(12, 14))
        for _ in range(20):
            window = SceneStream(machine, scene, rng).read(WINDOW_SAMPLES)
            described.append((view_vectors(window), {}))
    return NormalSound.from_windows(described)


def test_two_products_are_two_states_and_one_is_one(loads: NormalSound) -> None:
    assert find_states(loads).tolist() in ([0] * 20 + [1] * 20, [1] * 20 + [0] * 20)
    assert find_states(loads.subset(np.arange(20))).tolist() == [0] * 20


def test_each_state_has_its_own_normal_and_all_one_threshold(loads: NormalSound) -> None:
    found = learn_states(loads, levels_dbfs=np.full(40, -30.0))
    assert len(found.running) == 2
    assert sorted(found.names) == sorted([found.running[0].name] * 20 + [found.running[1].name] * 20)
    assert found.machine.calibration.clips == 40
    scores = [
        state.learned.fusion.score({view: vectors[:, 0] for view, vectors in loads.vectors.items()})
        for state in found.running
    ]
    threshold = found.machine.calibration.threshold(0.01)
    assert (np.min(scores, axis=0) <= threshold).all()
    assert np.median(np.max(scores, axis=0)) > threshold, "a window of the other state is far off"


def test_states_that_people_have_named_are_not_looked_for(loads: NormalSound) -> None:
    found = learn_states(loads, names=["A"] * 16 + ["B"] * 24)
    assert {state.name: state.learned.held_out.shape[0] for state in found.running} == {"A": 16, "B": 24}
    assert found.words == "2 states: B (60% of the time), A (40% of the time)"
