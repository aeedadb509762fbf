"""Views that need no training: floors, whitening, vectors of a window."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.errors import BundleError
from asd_daemon.judge.features.views import (
    FRAMES_NEEDED,
    PARTS,
    VIEW_NAMES,
    Spectrogram,
    Whitening,
    describe,
    euclidean,
    floor,
    principal_axes,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_floor_of_random_power_equals_a_plain_loop(rng: np.random.Generator) -> None:
    power = rng.gamma(1.0, size=(50, 7)).astype(np.float32)
    plain = [np.log(min(power[t : t + 4, f].mean() for t in range(47)) + 1e-9) for f in range(7)]
    np.testing.assert_allclose(floor(power, 4), plain, rtol=1e-4)


def test_floor_of_steady_sound_under_passing_noise_is_that_of_the_sound(rng: np.random.Generator) -> None:
    steady = np.full((100, 5), 2.0, np.float32)
    noisy = steady.copy()
    noisy[:60] += rng.gamma(1.0, 50, size=(60, 5)).astype(np.float32)
    np.testing.assert_allclose(floor(noisy, 8), floor(steady, 8), atol=1e-5)


def test_describe_of_a_louder_recording_gives_the_same_vectors(rng: np.random.Generator) -> None:
    waveform = (0.1 * rng.standard_normal(160_000)).astype(np.float32)
    quiet, loud = describe(waveform), describe(np.float32(4) * waveform)
    assert tuple(quiet) == VIEW_NAMES
    for name in VIEW_NAMES:
        assert quiet[name].shape[0] == 1 + PARTS
        assert quiet[name].dtype == np.float32
        np.testing.assert_allclose(loud[name], quiet[name], atol=2e-2, err_msg=name)


def test_describe_of_silence_is_finite() -> None:
    assert all(np.isfinite(vectors).all() for vectors in describe(np.zeros(160_000, np.float32)).values())


def test_describe_of_a_short_piece_raises_value_error() -> None:
    with pytest.raises(ValueError, match=str(FRAMES_NEEDED)):
        describe(np.zeros(8_000, np.float32))


def test_quantiles_of_a_spectrogram_equal_numpys(rng: np.random.Generator) -> None:
    mel = rng.standard_normal((101, 128)).astype(np.float32)
    expected = np.percentile(mel, (1, 10, 99), axis=0).ravel()
    np.testing.assert_allclose(Spectrogram.of(mel).quantiles(1, 10, 99), expected - expected.mean(), atol=1e-5)


def test_rhythm_of_two_knocking_rates_differs_where_floors_do_not(rng: np.random.Generator) -> None:
    noise = 0.01 * rng.standard_normal(160_000)
    seconds = np.arange(160_000) / 16_000
    slow, fast = (
        describe((noise * (1 + 3 * (np.sin(2 * np.pi * hz * seconds) > 0.9))).astype(np.float32)) for hz in (3, 7)
    )
    apart = {name: float(np.abs(slow[name][0] - fast[name][0]).mean()) for name in ("rhythm", "quiet")}
    assert apart["rhythm"] > 5 * apart["quiet"]


@pytest.mark.parametrize("shape", [(40, 6), (9, 30)], ids=["more windows than dimensions", "fewer"])
def test_whitening_distances_equal_those_of_the_shrunk_covariance(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    whole = (rng.standard_normal(shape) @ rng.standard_normal((shape[1], shape[1]))).astype(np.float32)
    parts = whole[:, None] + rng.standard_normal((shape[0], 3, shape[1])).astype(np.float32)
    within = (parts - parts.mean(axis=1, keepdims=True)).reshape(-1, shape[1]).astype(np.float64)
    between = (whole - whole.mean(axis=0)).astype(np.float64)
    covariances = [x.T @ x for x in (within, between)]
    mixed = sum(c * shape[1] / np.trace(c) for c in covariances) / 2
    inverse = np.linalg.inv(0.6 * mixed + 0.4 * np.eye(shape[1]))
    queries = rng.standard_normal((5, shape[1])).astype(np.float32)
    steps = queries[:, None].astype(np.float64) - whole[None]
    expected = np.sqrt(np.einsum("qnd,de,qne->qn", steps, inverse, steps))
    whitening = Whitening.fit(whole, parts, shrinkage=0.4)
    np.testing.assert_allclose(euclidean(whitening.apply(queries), whitening.apply(whole)), expected, rtol=1e-3)


def test_whitening_of_windows_all_alike_leaves_finite_distances() -> None:
    whitening = Whitening.fit(np.ones((4, 3), np.float32), np.ones((4, 3, 3), np.float32))
    np.testing.assert_allclose(whitening.apply(np.zeros((1, 3), np.float32)), [[-1, -1, -1]])


def test_whitening_through_arrays_is_the_same(rng: np.random.Generator) -> None:
    whole = rng.standard_normal((8, 5)).astype(np.float32)
    whitening = Whitening.fit(whole)
    again = Whitening.from_arrays(whitening.arrays())
    np.testing.assert_array_equal(again.apply(whole), whitening.apply(whole))


def test_whitening_from_arrays_that_do_not_fit_raises_bundle_error(rng: np.random.Generator) -> None:
    arrays = Whitening.fit(rng.standard_normal((8, 5)).astype(np.float32)).arrays()
    with pytest.raises(BundleError, match="gain"):
        Whitening.from_arrays({k: v for k, v in arrays.items() if k != "gain"})
    with pytest.raises(BundleError, match="do not fit"):
        Whitening.from_arrays(arrays | {"mean": np.zeros(4)})


@pytest.mark.parametrize("shrinkage", [0.0, 1.1])
def test_whitening_with_impossible_shrinkage_raises_value_error(shrinkage: float) -> None:
    with pytest.raises(ValueError, match="shrinkage"):
        Whitening.fit(np.eye(3, dtype=np.float32), shrinkage=shrinkage)


@pytest.mark.parametrize(("rows", "dims"), [(128, 256), (256, 128), (40, 40)])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e9])
def test_principal_axes_of_ill_conditioned_rows_are_those_of_the_svd(
    rng: np.random.Generator, rows: int, dims: int, condition: float
) -> None:
    spread = np.geomspace(1, 1 / condition, min(rows, dims))
    left, _ = np.linalg.qr(rng.normal(size=(rows, spread.shape[0])))
    right, _ = np.linalg.qr(rng.normal(size=(dims, spread.shape[0])))
    matrix = (left * spread) @ right.T
    singular, axes = principal_axes(matrix)
    _, wanted, wanted_axes = np.linalg.svd(matrix, full_matrices=False)
    kept = wanted > 1e-6 * wanted[0]
    np.testing.assert_allclose(singular, wanted[kept][: singular.shape[0]], rtol=1e-3)
    assert abs(singular.shape[0] - kept.sum()) <= 2
    vectors = rng.normal(size=(5, dims))
    both = []
    for values, directions in ((singular, axes), (wanted[kept], wanted_axes[kept])):
        gain = 1 / np.sqrt(0.5 * values**2 + 0.5) - 1 / np.sqrt(0.5)
        both.append(((vectors @ directions.T) * gain) @ directions)
    np.testing.assert_allclose(both[0], both[1], atol=1e-9)


def test_whitening_needs_no_svd(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    def did_not_converge(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(np.linalg, "svd", did_not_converge)
    whole = rng.normal(size=(32, 128)).astype(np.float32)
    parts = rng.normal(size=(32, 3, 128)).astype(np.float32)
    assert np.isfinite(Whitening.fit(whole, parts).apply(whole)).all()
