"""Fusion of views: each in the spread of its own held-out windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.fusion import SPREADS, Candidate, Family, FittedView, Fusion
from asd_daemon.judge.distances.fusion_file import read_fusion, write_fusion
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex
from asd_daemon.judge.distances.whitening import F32

WINDOWS = 24
DOMAINS = np.array([0] * 20 + [1] * 4, np.int64)


def _vectors(rng: np.random.Generator, dims: int, shift: float = 0.0) -> F32:
    return (shift + rng.standard_normal((WINDOWS, 4, dims))).astype(np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(9)


def test_cosine_view_ranks_windows_as_the_exact_index_does(rng: np.random.Generator) -> None:
    bank, queries = _vectors(rng, 6), rng.standard_normal((30, 6)).astype(np.float32)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (bank[:, 0], queries)]
    nearest, _ = ExactIndex(unit[0]).nearest(unit[1])
    fitted = FittedView.fit(Candidate("embedding", shrinkage=None), bank, DOMAINS)
    np.testing.assert_array_equal(np.argsort(fitted.score(queries)), np.argsort(nearest[:, 0]))


def test_scores_of_new_normal_windows_are_about_one_whatever_the_unit_of_a_view(rng: np.random.Generator) -> None:
    vectors = {"small": _vectors(rng, 5), "large": 1000 * _vectors(rng, 9)}
    fusion = Fusion.fit([Family(dict.fromkeys((Candidate("small"), Candidate("large")), 1.0))], vectors, DOMAINS)
    heard = {"small": _vectors(rng, 5)[:, 0], "large": 1000 * _vectors(rng, 9)[:, 0]}
    assert np.median(fusion.score(heard)) == pytest.approx(1, abs=0.15)
    assert fusion.score({k: 10 * v for k, v in heard.items()}).min() > 2


def test_fusion_through_files_without_pickle_scores_the_same(rng: np.random.Generator, tmp_path: Path) -> None:
    vectors = {"a": _vectors(rng, 5), "b": _vectors(rng, 7)}
    chosen = [Family({Candidate("a", normalisation="domain"): 2.0, Candidate("b", None, "variance"): 1.0})]
    fusion = Fusion.fit(chosen, vectors, DOMAINS)
    read = {}
    for n, (key, array) in enumerate(fusion.arrays().items()):
        np.save(tmp_path / f"{n}.npy", array, allow_pickle=False)
        read[key] = np.load(tmp_path / f"{n}.npy", allow_pickle=False)
    heard = {k: v[:, 0] + 0.3 for k, v in vectors.items()}
    np.testing.assert_array_equal(Fusion.from_arrays(fusion.names(), read).score(heard), fusion.score(heard))
    assert fusion.weights == pytest.approx((2 / 3, 1 / 3))


def test_fusion_from_arrays_without_a_bank_raises_bundle_error(rng: np.random.Generator) -> None:
    fusion = Fusion.fit([Family({Candidate("a"): 1.0})], {"a": _vectors(rng, 5)}, DOMAINS)
    arrays = fusion.arrays()
    with pytest.raises(BundleError, match="bank"):
        Fusion.from_arrays(["a"], {k: v for k, v in arrays.items() if k != "0/bank"})
    with pytest.raises(BundleError, match="does not fit"):
        Fusion.from_arrays(["a"], arrays | {"0/bank": arrays["0/bank"][:, :3]})
    with pytest.raises(BundleError, match="without views"):
        Fusion.from_arrays([], {})


def test_fusion_file_is_read_as_it_was_written(rng: np.random.Generator, tmp_path: Path) -> None:
    fusion = Fusion.fit([Family({Candidate("a"): 1.0, Candidate("a", None): 2.0})], {"a": _vectors(rng, 5)}, DOMAINS)
    write_fusion(fusion, tmp_path / "fusion.npz")
    again = read_fusion(tmp_path / "fusion.npz", fusion.names(), 10**6)
    others = {"a": _vectors(rng, 5)[:, 0]}
    np.testing.assert_allclose(
        again.score(others), fusion.score(others), rtol=5e-3, atol=1e-3
    )  # matrices in half precision


@pytest.mark.parametrize("damage", ["bytes", "large", "compressed", "pickle", "names"])
def test_fusion_file_that_is_damaged_is_refused(rng: np.random.Generator, tmp_path: Path, damage: str) -> None:
    file, names, most = tmp_path / "fusion.npz", ["a"], 10**6
    fusion = Fusion.fit([Family({Candidate("a"): 1.0})], {"a": _vectors(rng, 5)}, DOMAINS)
    write_fusion(fusion, file)
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:-30])
    elif damage == "compressed":
        np.savez_compressed(file, **fusion.arrays())  # type: ignore[arg-type]
    elif damage == "pickle":
        np.savez(file, bank=np.array([{}], dtype=object))
    elif damage == "large":
        most = 100
    else:
        names = ["a", "b"]
    with pytest.raises(BundleError):
        read_fusion(file, names, most)


def test_nothing_to_fuse_raises_value_error(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fusion.fit([], {}, DOMAINS)
    with pytest.raises(ValueError, match="no vectors of view a"):
        Fusion.fit([Family({Candidate("a"): 1.0})], {"b": _vectors(rng, 3)}, DOMAINS)
    with pytest.raises(ValueError, match="four windows"):
        FittedView.fit(Candidate("a"), _vectors(rng, 3)[:3], DOMAINS[:3])


def test_score_is_two_where_the_log_distance_lies_four_spreads_above_the_held_out_median(
    rng: np.random.Generator,
) -> None:
    vectors = _vectors(rng, 5)
    fitted, held_out = FittedView.fit_held_out(Candidate("a"), vectors, DOMAINS)
    assert np.median(held_out) == pytest.approx(1)
    assert held_out.std() == pytest.approx(1 / 4, rel=0.1)
    nearest = np.exp(fitted.centre + fitted.unit)  # so far from its only neighbour must a window be
    direction = np.zeros((1, 5), np.float32)
    direction[0, 0] = 1e6
    far = fitted.score(direction)[0]
    assert far == pytest.approx(
        1 + (np.log(fitted._distances(direction).min()) - fitted.centre) / fitted.unit, rel=1e-5
    )
    assert 1 + (np.log(nearest) - fitted.centre) / fitted.unit == pytest.approx(2)


def test_near_copies_among_normal_windows_do_not_widen_the_spread(rng: np.random.Generator) -> None:
    """The same sound encoded again lies a hair away; its logarithm would swell the spread until nothing is anomalous."""
    vectors = _vectors(rng, 5)
    doubled = vectors.copy()
    doubled[1] = doubled[0] + 1e-6
    plain, with_copy = (FittedView.fit(Candidate("a"), v, DOMAINS) for v in (vectors, doubled))
    assert with_copy.unit < 1.5 * plain.unit


def test_fusion_written_by_version_0_2_scores_by_ratios_as_it_did(rng: np.random.Generator) -> None:
    """Three constants a view: distances in units of the median."""
    vectors = {"a": _vectors(rng, 5)}
    fusion = Fusion.fit([Family({Candidate("a", scale="ratio"): 1.0})], vectors, DOMAINS)
    arrays = {k: (a[:3] if k.endswith("constants") else a) for k, a in fusion.arrays().items()}
    heard = {"a": _vectors(rng, 5)[:, 0]}
    old = Fusion.from_arrays(["a"], arrays)
    np.testing.assert_array_equal(old.score(heard), fusion.score(heard))
    view = old.views[0]
    np.testing.assert_allclose(
        old.score(heard), 1 + (view._distances(heard["a"]).min(axis=1) - view.centre) / view.unit, rtol=1e-5
    )


def test_families_are_joined_softly_as_the_formula_says(rng: np.random.Generator) -> None:
    vectors = {"a": _vectors(rng, 5), "b": _vectors(rng, 7), "c": _vectors(rng, 6)}
    families = [Family({Candidate("a"): 3.0, Candidate("b"): 1.0}, 0.8), Family({Candidate("c"): 1.0}, 0.2)]
    fusion = Fusion.fit(families, vectors, DOMAINS)
    heard = {k: v[:, 0] * 2 for k, v in vectors.items()}
    a, b, c = ((s.astype(np.float64) - 1) * SPREADS for s in fusion.view_scores(heard))
    expected = 1 + np.log(0.8 * np.exp(0.75 * a + 0.25 * b) + 0.2 * np.exp(c)) / SPREADS
    np.testing.assert_allclose(fusion.score(heard), np.maximum(expected, 0), rtol=1e-5)
    read = Fusion.from_arrays(fusion.names(), fusion.arrays())
    np.testing.assert_allclose(read.score(heard), fusion.score(heard), rtol=1e-6)


def test_a_family_that_sees_a_failure_is_not_outvoted_by_one_that_does_not(rng: np.random.Generator) -> None:
    vectors = {"blind": _vectors(rng, 5), "seeing": _vectors(rng, 5)}
    fusion = Fusion.fit(
        [Family({Candidate("blind"): 1.0}, 0.9), Family({Candidate("seeing"): 1.0}, 0.1)], vectors, DOMAINS
    )
    normal = {"blind": _vectors(rng, 5)[:, 0], "seeing": _vectors(rng, 5)[:, 0]}
    failing = {**normal, "seeing": 30 * normal["seeing"]}
    assert fusion.score(failing).min() > fusion.score(normal).max()


def test_families_with_a_number_missing_are_refused(rng: np.random.Generator) -> None:
    arrays = Fusion.fit([Family({Candidate("a"): 1.0})], {"a": _vectors(rng, 5)}, DOMAINS).arrays()
    constants = arrays["0/constants"].copy()
    for number, says in ((1.0, "numbered from 0"), (99.0, "finite"), (0.5, "finite")):
        constants[4] = number
        with pytest.raises(BundleError, match=says):
            Fusion.from_arrays(["a"], arrays | {"0/constants": constants})


def test_fusion_without_a_view_is_that_of_the_others_and_never_of_none(rng: np.random.Generator) -> None:
    vectors = {name: rng.normal(size=(12, 1, 4)).astype(np.float32) for name in ("a", "b", "c")}
    families = [Family({Candidate("a"): 0.3, Candidate("b"): 0.7}, 0.6), Family({Candidate("c"): 1.0}, 0.4)]
    domains = np.zeros(12, np.int64)
    fusion = Fusion.fit(families, vectors, domains)
    heard = {name: rng.normal(size=(5, 4)).astype(np.float32) for name in ("a", "b", "c")}
    alone = Fusion.fit([Family({Candidate("a"): 1.0}, 0.6), Family({Candidate("c"): 1.0}, 0.4)], vectors, domains)
    np.testing.assert_allclose(fusion.without({"b"}).score(heard), alone.score(heard), rtol=1e-6)
    one = Fusion.fit([Family({Candidate("c"): 1.0})], vectors, domains)
    np.testing.assert_allclose(fusion.without({"a", "b"}).score(heard), one.score(heard), rtol=1e-6)
    with pytest.raises(ValueError, match="nothing left"):
        fusion.without({"a", "b", "c"})
