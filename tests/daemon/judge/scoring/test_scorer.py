"""From a window to its score, with a small real bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from asd_daemon.errors import BundleError, RecordingError, UnknownMachineError
from asd_daemon.judge.bundle.bundle import Bundle, ModelEntry, file_entry, load_bundle
from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession, open_embedder, window_features
from asd_daemon.judge.features.log_mel import eat_input, log_mel
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor, Scorer
from asd_daemon.learn.learning import learn
from asd_daemon.learn.machine_files import Bank, write_machine
from asd_daemon.learn.normal_sound import NormalSound, normal_window_vectors
from asd_daemon.learn.separation_gain import separation_improves
from rig.bundles import (
    DIM,
    failing_noise,
    healthy_noise,
    read_manifest,
    write_manifest,
    write_tiny_bundle,
    write_tiny_model,
    write_tiny_separator,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


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


def test_score_says_what_its_threshold_is_learned_from(bundle: Bundle) -> None:
    window = healthy_noise(np.random.default_rng(99))
    one, strict = (Scorer(bundle, "fan", exceedance=p).score(window).enrolled for p in (0.01, 1e-4))
    other = Scorer(bundle, "press-3").score(window).enrolled
    assert one is not None
    assert strict is not None
    assert other is not None
    assert one.centre == strict.centre < one.threshold < strict.threshold
    assert one.enrolment == strict.enrolment != other.enrolment, "of the enrolment, not of the budget"


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


@pytest.fixture(scope="module")
def separating(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose `fan` is scored with its separated sound, and whose `press-3` by fused views."""
    folder = write_tiny_bundle(tmp_path_factory.mktemp("scorer") / "separating").path
    write_tiny_separator(folder / "separator.onnx")
    hearing = FeatureExtractor(open_embedder(load_bundle(folder)), SeparatorSession(folder / "separator.onnx"))
    rng = np.random.default_rng(0)
    fan = [hearing.vectors(healthy_noise(rng), (HEARD, SEPARATED)) for _ in range(24)]
    views = (HEARD, SEPARATED, "steady-mean")
    press = NormalSound.from_windows(
        [normal_window_vectors(hearing, healthy_noise(rng, 1.0), views, rng) for _ in range(16)]
    )
    shutil.rmtree(folder / "machines")
    manifest = read_manifest(folder)
    entries: dict[str, object] = {}
    heard, separated = (np.concatenate([one[view] for one in fan]) for view in (HEARD, SEPARATED))
    entry, _ = write_machine(folder / "machines/fan", "machines/fan", Bank(heard, separated))
    entries["fan"] = entry.model_dump(mode="json")
    entry, _ = write_machine(folder / "machines/press-3", "machines/press-3", learned=learn(press))
    np.save(folder / "machines/press-3/bank.npy", press.vectors[HEARD][:, 0])  # as version 0.3 left it there
    entries["press-3"] = entry.model_dump(mode="json")
    files = {
        p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"
    }
    manifest |= {
        "machines": entries,
        "separator": {"file": "separator.onnx", "precision": "fp32"},
        "files": {name: file_entry(path).model_dump(mode="json") for name, path in files.items()},
    }
    write_manifest(folder, manifest)
    return load_bundle(folder)


def test_score_separated_distance_is_added(separating: Bundle) -> None:
    window = failing_noise(np.random.default_rng(5))
    scored = Scorer(separating, "fan").score(window)
    machine = (window + np.concatenate([[0], window[:-1]])).astype(np.float32) / 2
    embeddings = open_embedder(separating).embed_waveforms([window, machine])
    banks = [np.load(separating.folder("fan") / name) for name in ("bank.npy", "separated.npy")]
    heard, separated = (float(1 - (bank @ one).max()) for bank, one in zip(banks, embeddings, strict=True))
    assert scored.heard == pytest.approx(heard, abs=1e-5)
    assert scored.separated == pytest.approx(separated, abs=1e-5)
    assert scored.score == pytest.approx(heard + separated, abs=1e-5)
    assert scored.anomalous


def test_score_fused_views_tell_each_views_part(separating: Bundle) -> None:
    scorer = Scorer(separating, "press-3")
    rng = np.random.default_rng(5)
    healthy, failing = scorer.score(healthy_noise(rng, 1.0)), scorer.score(failing_noise(rng, 1.0))
    assert healthy.score < scorer.threshold < failing.score
    fusion = separating.fusion("press-3")
    assert fusion is not None
    assert tuple(name for name, _ in failing.views) == fusion.names()
    expected = sum(weight * score for weight, (_, score) in zip(fusion.weights, failing.views, strict=True))
    assert failing.score == pytest.approx(expected, rel=1e-5)
    assert failing.heard is None


def test_fused_views_need_no_bank(separating: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(separating.path, tmp_path / "bundle")
    manifest: dict[str, Any] = read_manifest(folder)
    del manifest["files"]["machines/press-3/bank.npy"]
    (folder / "machines/press-3/bank.npy").unlink()
    write_manifest(folder, manifest)
    window = failing_noise(np.random.default_rng(5), 1.0)
    expected = Scorer(separating, "press-3").score(window)
    assert Scorer(load_bundle(folder), "press-3").score(window) == expected
    del manifest["files"]["machines/fan/bank.npy"]
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match=r"machines/fan/bank\.npy is used but not listed"):
        load_bundle(folder)


def test_scorer_view_that_the_program_does_not_have_is_refused(separating: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(separating.path, tmp_path / "bundle")
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["machines"]["press-3"]["views"][0] = "cochlea"
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match="view cochlea of .* numbers, this asd-daemon knows"):
        Scorer(load_bundle(folder), "press-3")


def test_load_bundle_separated_machine_without_separator_is_refused(separating: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(separating.path, tmp_path / "bundle")
    write_manifest(folder, {**read_manifest(folder), "separator": None})
    with pytest.raises(BundleError, match=r"machines\.fan\.separated: true, but the bundle has no separator"):
        load_bundle(folder)


def test_session_model_with_weights_outside_is_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "whole.onnx")
    model = onnx.load(str(tmp_path / "whole.onnx"))
    file = tmp_path / "embedder.onnx"
    onnx.save_model(model, str(file), save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(BundleError, match="keeps weights in another file"):
        EmbedderSession(file, ModelEntry(file="embedder.onnx", precision="fp32", dim=DIM))


def test_separator_session_model_of_another_shape_is_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "separator.onnx")
    with pytest.raises(BundleError, match=r"must take one input \(B, 160000\) float32"):
        SeparatorSession(tmp_path / "separator.onnx")


def separation_case(
    rng: np.random.Generator, separated_change: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings of 30 windows and of three changes; the heard ones change little, the separated ones by `separated_change`."""

    def unit(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)

    centre = np.zeros(8)
    centre[0] = 5.0
    heard, separated = (centre + 0.3 * rng.normal(size=(30, 8)) for _ in range(2))
    aside = np.eye(8)[1]
    changed = [
        x + size * aside + 0.1 * rng.normal(size=(3, 30, 8))
        for x, size in ((heard, 0.3), (separated, separated_change))
    ]
    changed_heard, changed_separated = changed
    return unit(heard), unit(separated), unit(changed_heard), unit(changed_separated)


def test_separation_helps_where_the_separated_sound_shows_the_change(rng: np.random.Generator) -> None:
    assert separation_improves(*separation_case(rng, 3.0))
    assert not separation_improves(*separation_case(rng, 0.0))
