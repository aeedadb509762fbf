"""Machines that are learned on the box and judged by the paper's back end: at enrolment, later from what was kept, there and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from asd_daemon.errors import BundleError, EnrolmentError, SettingsError
from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.bundle.bundle import Bundle, file_entry, load_bundle
from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession, open_embedder
from asd_daemon.judge.scoring.nearest_neighbour import NearestNeighbour
from asd_daemon.judge.scoring.scorer import Scorer, WindowScore
from asd_daemon.learn import enrolment
from asd_daemon.learn.embedding_kept import embed_kept
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, EnrolmentResult, enrol
from asd_daemon.learn.enrolment_record import EnrolmentRecord, read_enrolment
from asd_daemon.learn.relearning import relearn_from_kept
from rig.bundles import (
    failing_noise,
    healthy_noise,
    read_manifest,
    write_manifest,
    write_tiny_bundle,
    write_tiny_separator,
    write_view_bundle,
)

TILT = 2.0
WINDOWS = 16
BANDS = 4


@pytest.fixture(autouse=True)
def one_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """One view instead of seven: time."""
    monkeypatch.setattr(enrolment, "VIEW_NAMES", ("steady-mean",))
    monkeypatch.setattr("asd_daemon.learn.relearning.VIEW_NAMES", ("steady-mean",))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With an embedder and a separator."""
    folder = write_tiny_bundle(tmp_path_factory.mktemp("paper") / "tiny").path
    write_tiny_separator(folder / "separator.onnx")
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["separator"] = {"file": "separator.onnx", "precision": "fp32"}
    manifest["files"]["separator.onnx"] = file_entry(folder / "separator.onnx").model_dump(mode="json")
    write_manifest(folder, manifest)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def other(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with an embedder of other bytes."""
    folder = shutil.copytree(bundle.path, tmp_path_factory.mktemp("other") / "bundle")
    model = onnx.load_model(str(folder / "embedder.onnx"))
    model.producer_name = "a later exporter"
    onnx.save_model(model, str(folder / "embedder.onnx"))
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["files"]["embedder.onnx"] = file_entry(folder / "embedder.onnx").model_dump(mode="json")
    write_manifest(folder, manifest)
    return load_bundle(folder)


def windows() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [healthy_noise(rng, TILT) for _ in range(WINDOWS)]


def learned(bundle: Bundle, root: Path, **request: Any) -> EnrolmentResult:
    source = ScriptedSource([Block(window) for window in windows()])
    return enrol(bundle, root, EnrolmentRequest("pump", "script", None, **request), source, lambda _: None)


def record_of(root: Path) -> EnrolmentRecord:
    record = read_enrolment(root, "pump")
    assert record is not None
    return record


def judged(bundle: Bundle, root: Path, window: np.ndarray, scoring: Any) -> WindowScore:
    return Scorer(with_enrolled_machine(bundle, root, "pump", scoring), "pump", scoring=scoring).score(window)


def by_hand(bundle: Bundle, bank: Sequence[np.ndarray], window: np.ndarray) -> float:
    """d(heard) + d(separated), written out: the separator averages neighbouring samples."""

    def machine(sound: np.ndarray) -> np.ndarray:
        return np.asarray((sound + np.concatenate([[0], sound[:-1]])) / 2, np.float32)

    embed = open_embedder(bundle).embed_waveforms
    return sum(
        float(1 - (embed([of(one) for one in bank]) @ embed([of(window)])[0]).max())
        for of in (lambda sound: sound, machine)
    )


def test_learned_for_the_papers_back_end_it_is_judged_by_its_distances_without_sound_kept(
    bundle: Bundle, tmp_path: Path
) -> None:
    done = learned(bundle, tmp_path, scoring="paper")
    record = record_of(tmp_path)
    assert record == done.record
    assert record.sounds == 0
    assert record.nearest is not None
    assert (record.nearest.vectors, record.nearest.separated) == (WINDOWS, True)
    failing = failing_noise(np.random.default_rng(7), TILT)
    found = judged(bundle, tmp_path, failing, "paper")
    assert found.score == pytest.approx(by_hand(bundle, windows(), failing), abs=1e-5)
    assert found.threshold == done.threshold
    assert found.anomalous
    healthy = judged(bundle, tmp_path, healthy_noise(np.random.default_rng(8), TILT), "paper")
    assert not healthy.anomalous
    assert judged(bundle, tmp_path, failing, "auto").views, "it is learned by views too"


def test_there_and_back_loses_nothing(bundle: Bundle, tmp_path: Path) -> None:
    learned(bundle, tmp_path, keeps_sound=True)
    failing = failing_noise(np.random.default_rng(7), TILT)
    before, files = judged(bundle, tmp_path, failing, "auto"), record_of(tmp_path).files
    with pytest.raises(
        EnrolmentError, match="has no embeddings to be compared with; a daemon learns it anew from what"
    ):
        judged(bundle, tmp_path, failing, "paper")
    said: list[str] = []
    record = embed_kept(bundle, tmp_path, "pump", said.append)
    assert "3 of 16 kept windows heard by the embedder" in said
    assert record == record_of(tmp_path)
    found = judged(bundle, tmp_path, failing, "paper")
    assert found.score == pytest.approx(by_hand(bundle, windows(), failing), abs=1e-3), "16 bits of sound were kept"
    assert judged(bundle, tmp_path, failing, "auto") == before
    assert files.items() <= record.files.items()


def test_embeddings_of_other_models_are_made_anew_and_the_old_ones_go(
    bundle: Bundle, other: Bundle, tmp_path: Path
) -> None:
    learned(bundle, tmp_path, keeps_sound=True, scoring="paper")
    window = failing_noise(np.random.default_rng(7), TILT)
    first = record_of(tmp_path)
    with pytest.raises(EnrolmentError, match="its embeddings are of other models than those of tiny 1"):
        judged(other, tmp_path, window, "paper")
    assert judged(other, tmp_path, window, "auto").views
    embed_kept(other, tmp_path, "pump")
    assert judged(other, tmp_path, window, "paper").anomalous
    assert first.nearest is not None
    assert not (tmp_path / "pump" / first.nearest.folder).exists()
    assert not any(name.startswith(first.nearest.folder) for name in record_of(tmp_path).files)


def test_bands_look_for_neighbours_each_by_itself_on_the_box_too(bundle: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle.path, tmp_path / "bundle")
    manifest: dict[str, Any] = read_manifest(folder)
    assert "bands" not in manifest["embedder"]
    manifest["embedder"]["bands"] = BANDS
    write_manifest(folder, manifest)
    banded = load_bundle(folder)
    learned(banded, tmp_path / "state", scoring="paper")
    window = failing_noise(np.random.default_rng(7), TILT)
    files = with_enrolled_machine(banded, tmp_path / "state", "pump", "paper").nearest("pump")
    embedding = open_embedder(banded).embed_waveforms([window])[0]
    cosines = [
        (own @ asked / np.linalg.norm(own, axis=1) / np.linalg.norm(asked)).max()
        for own, asked in zip(np.split(files.bank(), BANDS, axis=1), np.split(embedding, BANDS), strict=True)
    ]
    index = NearestNeighbour.open(with_enrolled_machine(banded, tmp_path / "state", "pump", "paper"), "pump")
    assert index.heard.distance(embedding[None])[0] == pytest.approx(1 - np.mean(cosines), abs=1e-5)
    assert judged(banded, tmp_path / "state", window, "paper").anomalous
    with pytest.raises(EnrolmentError, match="its embeddings are of other models"):
        judged(bundle, tmp_path / "state", window, "paper")
    manifest["embedder"]["bands"] = 5
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match="bands: 5 are not equal parts"):
        load_bundle(folder)


def test_without_sound_or_embeddings_it_must_be_heard_again(bundle: Bundle, tmp_path: Path) -> None:
    learned(bundle, tmp_path)
    with pytest.raises(
        EnrolmentError, match="learn it anew with `asd-daemon enroll --machine pump --relearn --scoring paper`"
    ):
        judged(bundle, tmp_path, windows()[0], "paper")
    with pytest.raises(EnrolmentError, match="too little of its sound was kept"):
        embed_kept(bundle, tmp_path, "pump")


def test_relearning_the_views_keeps_the_embeddings(bundle: Bundle, tmp_path: Path) -> None:
    learned(bundle, tmp_path, scoring="paper")
    before = judged(bundle, tmp_path, windows()[3], "paper")
    file = tmp_path / "pump" / "enrolled.json"
    calibration = tmp_path / "pump" / record_of(tmp_path).entry.folder / "calibration.json"
    calibration.write_text("{}")
    with pytest.raises(EnrolmentError, match="calibration"):
        judged(bundle, tmp_path, windows()[3], "auto")
    relearn_from_kept(bundle, tmp_path, "pump")
    assert json.loads(file.read_text())["relearned"] == "its files were damaged"
    assert judged(bundle, tmp_path, windows()[3], "paper") == before
    assert judged(bundle, tmp_path, windows()[3], "auto").views


def test_damaged_embeddings_are_made_anew_of_the_vectors_that_were_kept(bundle: Bundle, tmp_path: Path) -> None:
    learned(bundle, tmp_path, scoring="paper")
    before = judged(bundle, tmp_path, windows()[3], "paper")
    nearest = record_of(tmp_path).nearest
    assert nearest is not None
    (tmp_path / "pump" / nearest.folder / "bank.npy").write_bytes(b"gone")
    with pytest.raises(EnrolmentError, match=r"bank\.npy"):
        judged(bundle, tmp_path, windows()[3], "paper")
    embed_kept(bundle, tmp_path, "pump")
    assert judged(bundle, tmp_path, windows()[3], "paper") == before


def test_added_windows_join_the_bank(bundle: Bundle, tmp_path: Path) -> None:
    learned(bundle, tmp_path, scoring="paper")
    rng = np.random.default_rng(11)
    source = ScriptedSource([Block(healthy_noise(rng, TILT)) for _ in range(3)])
    request = EnrolmentRequest("pump", "script", None, add=True, scoring="paper")
    record = enrol(bundle, tmp_path, request, source, lambda _: None).record
    assert record.nearest is not None
    assert record.nearest.vectors == WINDOWS + 3


def test_a_bundle_without_embedder_is_refused_before_anything_is_heard(tmp_path: Path) -> None:
    views = write_view_bundle(tmp_path / "views", {"fan": 0.0})
    with pytest.raises(SettingsError, match="has no embedder"):
        learned(views, tmp_path / "enrolled", scoring="paper")
    assert not (tmp_path / "enrolled" / "pump").exists()


def test_by_views_no_model_is_opened(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(EmbedderSession, "__init__", refuse)
    monkeypatch.setattr(SeparatorSession, "__init__", refuse)
    learned(bundle, tmp_path)
    assert judged(bundle, tmp_path, windows()[0], "auto").heard is None
