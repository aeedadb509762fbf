"""From a window to its score, with a small real bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import BundleError, RecordingError, UnknownMachineError
from asd_daemon.judge.bundle import Bundle, ModelEntry
from asd_daemon.judge.mel import eat_input, log_mel
from asd_daemon.judge.scorer import EmbedderSession, Scorer, open_embedder, window_features
from rig.bundles import DIM, failing_noise, healthy_noise, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("scorer") / "tiny")


def test_score_healthy_and_failing_windows_lie_on_either_side(bundle: Bundle) -> None:
    scorer = Scorer(bundle, "fan")
    rng = np.random.default_rng(99)
    healthy = scorer.score(healthy_noise(rng))
    failing = scorer.score(failing_noise(rng))
    assert not healthy.anomalous
    assert failing.anomalous
    assert healthy.score <= scorer.threshold < failing.score


def test_score_is_the_cosine_distance_to_the_nearest_normal(bundle: Bundle) -> None:
    window = failing_noise(np.random.default_rng(5))
    mean = eat_input(log_mel(window)).astype(np.float64).mean(axis=0)  # what the tiny model computes, by hand
    projection = np.random.default_rng(0).normal(size=(128, DIM)).astype(np.float32)
    embedding = mean @ projection
    embedding /= np.linalg.norm(embedding)
    expected = 1 - (bundle.bank("fan") @ embedding).max()
    assert Scorer(bundle, "fan").score(window).score == pytest.approx(expected, abs=1e-5)


def test_score_louder_window_of_a_tilted_machine_uses_its_own_bank(bundle: Bundle) -> None:
    window = healthy_noise(np.random.default_rng(7), tilt=1.0)
    session = open_embedder(bundle)
    assert not Scorer(bundle, "press-3", session=session).score(window).anomalous
    assert Scorer(bundle, "fan", session=session).score(window).anomalous


def test_threshold_smaller_exceedance_is_higher(bundle: Bundle) -> None:
    assert Scorer(bundle, "fan", exceedance=1e-4).threshold > Scorer(bundle, "fan", exceedance=0.1).threshold


@pytest.mark.parametrize("samples", [0, 159_999, 160_001])
def test_window_features_wrong_length_is_refused(samples: int) -> None:
    with pytest.raises(RecordingError, match="160000 samples"):
        window_features(np.zeros(samples, np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_score_not_finite_is_refused(bundle: Bundle, value: float) -> None:
    window = healthy_noise(np.random.default_rng(1))
    window[1234] = value
    with pytest.raises(RecordingError, match="finite"):
        Scorer(bundle, "fan").score(window)


def test_scorer_unknown_machine_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UnknownMachineError, match="knows no machine 'pump'"):
        Scorer(bundle, "pump")


def test_embedder_session_broken_model_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "embedder.onnx").write_bytes(b"\x08\x07 this is no model")
    with pytest.raises(BundleError, match=r"embedder\.onnx: onnxruntime can't load this model") as e:
        EmbedderSession(tmp_path / "embedder.onnx", ModelEntry(file="embedder.onnx", precision="fp32", dim=DIM))
    assert "\n" not in str(e.value)


def test_embedder_session_model_of_another_size_is_refused(bundle: Bundle) -> None:
    entry = ModelEntry(file="embedder.onnx", precision="fp32", dim=DIM + 1)
    with pytest.raises(BundleError, match=rf"must give one output \(B, {DIM + 1}\)"):
        EmbedderSession(bundle.path / "embedder.onnx", entry)
