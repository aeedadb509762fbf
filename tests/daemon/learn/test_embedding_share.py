"""How far embeddings are believed beside views: only where they tell the machine from others, and hear what the views do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.judge.distances.fusion import Candidate, Family, Fusion
from asd_daemon.learn.embedding_share import SHARES, embedding_evidence, with_embeddings
from asd_daemon.learn.normal_sound import NormalSound

F32 = NDArray[np.float32]
WINDOWS, KINDS, DIM = 40, 3, 12
VIEWS = (Family({Candidate("steady-mean"): 1.0}),)


def unit(rows: NDArray[np.float64]) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def sound(rng: np.random.Generator, *, views_hear: float, embedder_hears: float) -> NormalSound:
    """Normal windows near one place; changed copies of them lie so far off in the view, and in the embedding."""
    view = rng.normal(size=(WINDOWS, 1, 6))
    near = np.eye(DIM)[0] + 0.1 * rng.normal(size=(WINDOWS, 1, DIM))
    changed_view = view[None, :, 0] + views_hear * rng.normal(size=(KINDS, WINDOWS, 6))
    changed = near[None, :, 0] + embedder_hears * rng.normal(size=(KINDS, WINDOWS, DIM))
    return NormalSound(
        {"steady-mean": view.astype(np.float32), "heard": unit(near)},
        {"steady-mean": changed_view.astype(np.float32), "heard": unit(changed)},
        np.zeros(WINDOWS, np.int64),
    )


def others(rng: np.random.Generator, distance: float) -> F32:
    return unit(np.eye(DIM)[0] + distance * np.eye(DIM)[1] + 0.1 * rng.normal(size=(20, DIM)))


def test_an_embedder_that_hears_what_the_views_miss_earns_a_share() -> None:
    rng = np.random.default_rng(0)
    found = embedding_evidence(sound(rng, views_hear=0.1, embedder_hears=1.0), VIEWS, others(rng, 1.0))
    assert found.share in SHARES
    assert found.gain > 2 * found.standard_error
    assert found.contrast > 3


@pytest.mark.parametrize(
    ("views_hear", "embedder_hears", "distance", "why"),
    [
        (0.1, 1.0, 0.0, "its embeddings do not tell it from other machines"),
        (0.1, 0.01, 1.0, "neither hears a change"),
        (9.0, 0.01, 1.0, "the views hear all of it"),
    ],
)
def test_in_doubt_it_has_none(views_hear: float, embedder_hears: float, distance: float, why: str) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        heard = sound(rng, views_hear=views_hear, embedder_hears=embedder_hears)
        assert embedding_evidence(heard, VIEWS, others(rng, distance)).share == 0.0, why


def test_no_share_leaves_the_views_as_they_are_and_a_share_joins_them_softly() -> None:
    rng = np.random.default_rng(1)
    heard = sound(rng, views_hear=1.0, embedder_hears=1.0)
    assert with_embeddings(VIEWS, 0.0, ("heard",)) == VIEWS
    families = with_embeddings((replace(VIEWS[0], share=2.0),), 0.2, ("heard",))
    assert [family.share for family in families] == pytest.approx([0.8, 0.2])
    both = Fusion.fit(families, heard.vectors, heard.domains)
    windows = {view: changed[0] for view, changed in heard.changed.items()}
    views, embeddings = both.view_scores(windows)
    expected = 1 + np.log(0.8 * np.exp(4 * (views - 1)) + 0.2 * np.exp(4 * (embeddings - 1))) / 4
    np.testing.assert_allclose(both.score(windows), np.maximum(expected, 0), rtol=1e-4)
