"""Back ends against formulas written out, their minimum, the choice among them, and ensembles of runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from asd_daemon.errors import DataSetError, SettingsError
from asd_trainer.data.clip import Clip
from asd_trainer.data.naming import Split
from asd_trainer.evaluate.back_ends import BACK_ENDS, BackEnd, BackEnds, Bank, choose, fit, held_out, judge
from asd_trainer.evaluate.backend import RunScores, ScoredClip, scores_of
from asd_trainer.evaluate.ensemble import joined
from asd_trainer.recipe.recipe import load_recipe

F32 = NDArray[np.float32]
CLIPS, DIMENSIONS = 40, 12


def unit(vectors: NDArray[np.floating]) -> F32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def flat_bank(rng: np.random.Generator, clips: int = CLIPS) -> Bank:
    """Clips that spread widely in three directions and hardly in the nine others; a quarter of them from a target domain."""
    spread = np.r_[np.full(3, 0.5), np.full(DIMENSIONS - 3, 0.02)]
    vectors = 0.3 + rng.normal(size=(clips, DIMENSIONS)) * spread
    return Bank(unit(vectors), (np.arange(clips) % 4 == 0).astype(np.int64))


def queries(rng: np.random.Generator, count: int = 9) -> F32:
    return unit(0.3 + rng.normal(0, 0.4, size=(count, DIMENSIONS)))


def written_out(kind: BackEnd, bank: Bank, asked: F32, neighbours: int) -> Any:
    wide, other = bank.vectors.astype(np.float64), asked.astype(np.float64)
    if kind == "mahalanobis":
        precision = np.linalg.inv(ledoit_wolf(wide)[0])
        away = other - wide.mean(axis=0)
        return np.array([np.sqrt(row @ precision @ row) for row in away])
    if kind == "principal":
        _, values, axes = np.linalg.svd(wide - wide.mean(axis=0), full_matrices=False)
        share = np.cumsum(values**2) / np.sum(values**2)
        kept = axes[: int(np.searchsorted(share, 0.95, side="right")) + 1]
        away = other - wide.mean(axis=0)
        return np.linalg.norm(away - away @ kept.T @ kept, axis=1)
    to_bank, within = 1 - other @ wide.T, 1 - wide @ wide.T
    np.fill_diagonal(within, np.inf)
    density = np.sort(within, axis=1)[:, :neighbours].mean(axis=1)
    if kind == "local":
        return (to_bank / density).min(axis=1)
    if kind == "variance":
        nearest, b = within.min(axis=1), density[within.argmin(axis=1)]
        alpha = np.cov(nearest, b, ddof=0)[0, 1] / b.var()
        return (to_bank - alpha * density).min(axis=1)
    if kind == "domain":
        scales = {d: np.median(within[np.ix_(*[np.flatnonzero(bank.domains == d)] * 2)].min(axis=1)) for d in (0, 1)}
        return (to_bank / np.array([scales[d] for d in bank.domains])).min(axis=1)
    return to_bank.min(axis=1)


@pytest.mark.parametrize("kind", BACK_ENDS)
@pytest.mark.parametrize("neighbours", [1, 5])
def test_back_end_equals_its_formula(kind: BackEnd, neighbours: int) -> None:
    rng = np.random.default_rng(3)
    bank, asked = flat_bank(rng), queries(rng)
    expected = written_out(kind, bank, asked, neighbours)
    np.testing.assert_allclose(fit(kind, bank, neighbours).score(asked), expected, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("kind", BACK_ENDS)
def test_clips_of_the_bank_are_judged_without_themselves(kind: BackEnd) -> None:
    rng = np.random.default_rng(4)
    bank = flat_bank(rng)
    own = held_out(kind, bank)
    assert own.shape == (CLIPS,)
    assert own.mean() > fit(kind, bank).score(bank.vectors).mean()
    fresh = Bank(flat_bank(rng, 400).vectors, np.zeros(400, np.int64))
    # What new normal clips score lies where held-out ones do
    assert np.median(own) == pytest.approx(float(np.median(fit(kind, bank).score(fresh.vectors))), abs=own.std() / 2)


def test_of_several_the_least_standardised_counts() -> None:
    rng = np.random.default_rng(5)
    bank, asked = flat_bank(rng), queries(rng)
    kinds: tuple[BackEnd, ...] = ("nearest", "mahalanobis")
    found = judge(kinds, bank, asked)
    standard = []
    for kind in kinds:
        own = held_out(kind, bank)
        standard.append((fit(kind, bank).score(asked) - own.mean()) / own.std())
    np.testing.assert_allclose(found.queries, np.minimum(*standard), rtol=1e-6)
    assert found.chosen == kinds


def test_nearest_neighbour_judges_small_banks_whatever_was_asked_for() -> None:
    rng = np.random.default_rng(6)
    bank, asked = flat_bank(rng, 4), queries(rng)
    found = judge(("mahalanobis", "principal"), bank, asked)
    np.testing.assert_allclose(found.queries, written_out("nearest", bank, asked, 1), atol=1e-6)
    assert found.chosen == ("nearest",)
    alone = judge(("local",), Bank(bank.vectors[:1], bank.domains[:1]), asked)
    assert np.isnan(alone.held_out).all()
    np.testing.assert_allclose(alone.queries, 1 - asked @ bank.vectors[0], atol=1e-6)
    assert choose(bank, asked) == "nearest"


def test_normal_clips_choose_a_judge_of_their_plane_where_they_lie_in_one() -> None:
    rng = np.random.default_rng(7)
    assert choose(flat_bank(rng, 80), queries(rng, 50)) in {"mahalanobis", "principal"}
    # Clusters that no plane tells apart: references judge
    centres = unit(rng.normal(size=(30, DIMENSIONS)))
    clustered = unit(np.repeat(centres, 4, axis=0) + rng.normal(0, 0.01, (120, DIMENSIONS)))
    assert choose(Bank(clustered, np.zeros(120, np.int64)), queries(rng, 50)) in {
        "nearest",
        "local",
        "variance",
        "domain",
    }


def clips_of(machine: str, count: int, split: Split) -> list[Clip]:
    return [
        Clip(
            Path(f"{machine}_{split}_{n}"),
            machine,
            "00",
            split,
            "source" if n % 4 else "target",
            "normal",
            (),
            None,
            2025,
        )
        for n in range(count)
    ]


def embedded(rng: np.random.Generator) -> tuple[list[Clip], list[Clip], F32]:
    train = [*clips_of("fan", CLIPS, "train"), *clips_of("valve", CLIPS, "train")]
    test = [*clips_of("fan", 9, "test"), *clips_of("valve", 9, "test")]
    return train, test, np.concatenate([flat_bank(rng).vectors, -flat_bank(rng).vectors, queries(rng), -queries(rng)])


def test_each_unit_is_judged_by_its_own_clips_and_says_by_what() -> None:
    train, test, vectors = embedded(np.random.default_rng(8))
    scores = scores_of(train, test, vectors, back_ends=BackEnds(("mahalanobis",)))
    for number in range(2):
        bank = Bank(vectors[CLIPS * number : CLIPS * (number + 1)], np.zeros(CLIPS, np.int64))
        asked = vectors[2 * CLIPS + 9 * number : 2 * CLIPS + 9 * (number + 1)]
        expected = written_out("mahalanobis", bank, asked, 8)
        np.testing.assert_allclose(
            [one.score for one in scores.test[9 * number : 9 * (number + 1)]], expected, rtol=1e-4
        )
    assert scores.back_ends == {"fan": ("mahalanobis",), "valve": ("mahalanobis",)}
    chosen = scores_of(train, test, vectors, back_ends=BackEnds(("auto",))).back_ends
    assert chosen is not None
    assert all(kinds[0] in {"mahalanobis", "principal"} for kinds in chosen.values())
    plain = scores_of(train, test, vectors)
    same = scores_of(train, test, vectors, back_ends=BackEnds(("nearest",), neighbours=3))
    assert plain.back_ends is None
    np.testing.assert_allclose([o.score for o in same.test], [o.score for o in plain.test], atol=1e-6)


def test_ensemble_is_the_mean_of_scores_in_deviations_of_normal_ones() -> None:
    train, test, vectors = embedded(np.random.default_rng(9))
    runs = {kind: scores_of(train, test, vectors, back_ends=BackEnds((kind,))) for kind in ("nearest", "mahalanobis")}
    found = joined(runs)
    assert [one.clip for one in found.test] == test
    expected = np.zeros(9)
    for scores in runs.values():
        own = np.array([one.score for one in scores.training if one.clip.machine == "fan"])
        expected += (np.array([one.score for one in scores.test[:9]]) - own.mean()) / own.std() / 2
    np.testing.assert_allclose([one.score for one in found.test[:9]], expected, rtol=1e-9)
    assert np.mean([one.score for one in found.training]) == pytest.approx(0.0, abs=1e-9)


def test_ensemble_of_a_run_that_knows_no_normal_score_of_a_machine_names_both() -> None:
    clip = clips_of("fan", 1, "test")[0]
    alone = RunScores(test=(ScoredClip(clip, 0.5),), training=(), embeddings={})
    train = tuple(ScoredClip(one, float(n)) for n, one in enumerate(clips_of("fan", 4, "train")))
    with pytest.raises(DataSetError, match=r"second: has no two training scores of fan"):
        joined({"first": replace(alone, training=train), "second": alone})


def test_recipe_says_back_ends_and_refuses_auto_beside_others() -> None:
    said = load_recipe("smoke", ["evaluate.back_ends=[local, mahalanobis]", "evaluate.neighbours=4"]).evaluate
    assert (said.back_ends, said.neighbours) == (("local", "mahalanobis"), 4)
    for wrong in ("[auto, local]", "[]", "[local, local]", "[knn]"):
        with pytest.raises(SettingsError, match=r"evaluate\.back_ends"):
            load_recipe("smoke", [f"evaluate.back_ends={wrong}"])


def test_bands_have_banks_of_their_own_and_their_distances_are_averaged() -> None:
    rng = np.random.default_rng(8)
    bank, asked = flat_bank(rng), queries(rng)
    found = BackEnds(bands=3).judging()(bank, asked, bank.vectors[:0])
    own, other = ([unit(part) for part in np.split(vectors, 3, axis=1)] for vectors in (bank.vectors, asked))
    expected = np.mean([(1 - o @ b.T).min(axis=1) for b, o in zip(own, other, strict=True)], axis=0)
    np.testing.assert_allclose(found.queries, expected, atol=1e-6)
    alone = [1 - b @ b.T + 9 * np.eye(CLIPS) for b in own]
    np.testing.assert_allclose(found.held_out, np.mean([each.min(axis=1) for each in alone], axis=0), atol=1e-6)
    assert found.chosen == ("nearest",)
