"""Fusion of views, and their choice without any anomalous sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.fusion import Candidate, FittedView, Fusion, read_fusion, write_fusion
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex
from asd_daemon.judge.features.views import F32
from asd_daemon.learn.pseudo_anomalies import KINDS, pseudo_anomalies, steady_part
from asd_daemon.learn.view_selection import select_views

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
    fusion = Fusion.fit(dict.fromkeys((Candidate("small"), Candidate("large")), 1.0), vectors, DOMAINS)
    heard = {"small": _vectors(rng, 5)[:, 0], "large": 1000 * _vectors(rng, 9)[:, 0]}
    assert np.median(fusion.score(heard)) == pytest.approx(1, abs=0.15)
    assert fusion.score({k: 10 * v for k, v in heard.items()}).min() > 2


def test_fusion_through_files_without_pickle_scores_the_same(rng: np.random.Generator, tmp_path: Path) -> None:
    vectors = {"a": _vectors(rng, 5), "b": _vectors(rng, 7)}
    chosen = {Candidate("a", normalisation="domain"): 2.0, Candidate("b", None, "variance"): 1.0}
    fusion = Fusion.fit(chosen, vectors, DOMAINS)
    read = {}
    for n, (key, array) in enumerate(fusion.arrays().items()):
        np.save(tmp_path / f"{n}.npy", array, allow_pickle=False)
        read[key] = np.load(tmp_path / f"{n}.npy", allow_pickle=False)
    heard = {k: v[:, 0] + 0.3 for k, v in vectors.items()}
    np.testing.assert_array_equal(Fusion.from_arrays(fusion.names(), read).score(heard), fusion.score(heard))
    assert fusion.weights == pytest.approx((2 / 3, 1 / 3))


def test_fusion_from_arrays_without_a_bank_raises_bundle_error(rng: np.random.Generator) -> None:
    fusion = Fusion.fit({Candidate("a"): 1.0}, {"a": _vectors(rng, 5)}, DOMAINS)
    arrays = fusion.arrays()
    with pytest.raises(BundleError, match="bank"):
        Fusion.from_arrays(["a"], {k: v for k, v in arrays.items() if k != "0/bank"})
    with pytest.raises(BundleError, match="does not fit"):
        Fusion.from_arrays(["a"], arrays | {"0/bank": arrays["0/bank"][:, :3]})
    with pytest.raises(BundleError, match="without views"):
        Fusion.from_arrays([], {})


def test_choice_between_a_deaf_and_a_hearing_view_takes_the_hearing_one(rng: np.random.Generator) -> None:
    normal = {"deaf": _vectors(rng, 5), "hearing": _vectors(rng, 5)}
    changed = {"deaf": np.stack([_vectors(rng, 5)[:, 0]] * 2), "hearing": np.stack([_vectors(rng, 5, 4.0)[:, 0]] * 2)}
    picked, value = select_views([Candidate("deaf"), Candidate("hearing")], normal, changed, DOMAINS)
    assert picked == {Candidate("hearing"): 1.0}
    assert value > 0.95


def test_choice_between_views_that_hear_different_changes_takes_both(rng: np.random.Generator) -> None:
    normal = {"left": _vectors(rng, 5), "right": _vectors(rng, 5)}
    same, other = _vectors(rng, 5)[:, 0], _vectors(rng, 5, 4.0)[:, 0]
    changed = {"left": np.stack([other, same]), "right": np.stack([same, other])}
    picked, value = select_views([Candidate("left"), Candidate("right")], normal, changed, DOMAINS)
    assert set(picked) == {Candidate("left"), Candidate("right")}
    assert sum(picked.values()) == pytest.approx(1)
    assert value > 0.8


def test_changed_windows_keep_length_and_differ_and_repeat_with_the_seed(rng: np.random.Generator) -> None:
    waveform = (0.05 * rng.standard_normal(160_000)).astype(np.float32)
    waveform.reshape(40, 4000)[:, :640] *= 6
    once, again = (pseudo_anomalies(waveform, np.random.default_rng(1)) for _ in range(2))
    assert set(once) == set(KINDS)
    for kind, changed in once.items():
        assert changed.shape == waveform.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert np.abs(changed - waveform).max() > 0.005, kind
        np.testing.assert_array_equal(changed, again[kind])


def test_steady_part_is_the_hum_and_not_the_bursts(rng: np.random.Generator) -> None:
    t = np.arange(160_000) / 16_000
    hum = (0.05 * np.sin(2 * np.pi * 437.5 * t)).astype(np.float32)
    bursts = (0.3 * rng.standard_normal(160_000) * (t % 1 < 0.5)).astype(np.float32)
    steady = steady_part(hum + bursts)
    assert np.corrcoef(steady, hum)[0, 1] > 0.8
    assert np.std(steady) < 1.3 * np.std(hum)


def test_fusion_file_is_read_as_it_was_written(rng: np.random.Generator, tmp_path: Path) -> None:
    fusion = Fusion.fit({Candidate("a"): 1.0, Candidate("a", None): 2.0}, {"a": _vectors(rng, 5)}, DOMAINS)
    write_fusion(fusion, tmp_path / "fusion.npz")
    again = read_fusion(tmp_path / "fusion.npz", fusion.names(), 10**6)
    others = {"a": _vectors(rng, 5)[:, 0]}
    np.testing.assert_allclose(again.score(others), fusion.score(others), rtol=1e-4)


@pytest.mark.parametrize("damage", ["bytes", "large", "compressed", "pickle", "names"])
def test_fusion_file_that_is_damaged_is_refused(rng: np.random.Generator, tmp_path: Path, damage: str) -> None:
    file, names, most = tmp_path / "fusion.npz", ["a"], 10**6
    fusion = Fusion.fit({Candidate("a"): 1.0}, {"a": _vectors(rng, 5)}, DOMAINS)
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


def test_nothing_to_fuse_or_choose_raises_value_error(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Fusion.fit({}, {}, DOMAINS)
    with pytest.raises(ValueError, match="no vectors of view a"):
        Fusion.fit({Candidate("a"): 1.0}, {"b": _vectors(rng, 3)}, DOMAINS)
    with pytest.raises(ValueError, match="no views"):
        select_views([], {}, {}, DOMAINS)
    with pytest.raises(ValueError, match="four windows"):
        FittedView.fit(Candidate("a"), _vectors(rng, 3)[:3], DOMAINS[:3])
