"""A bundle without models: what it may hold, and that it is judged, tested and read all the same."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asd_daemon.errors import BundleError, SettingsError
from asd_daemon.judge.bundle.bundle import default_bundle, load_bundle
from asd_daemon.judge.bundle.onnx_sessions import open_embedder
from asd_daemon.judge.distances.fusion import Candidate, Family, Fusion
from asd_daemon.judge.distances.fusion_file import read_fusion, write_fusion
from asd_daemon.judge.scoring.bounded_self_test import ResourceBounds, step_seconds
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.judge.scoring.self_test import self_test
from rig.bundles import (
    add_reference,
    failing_noise,
    healthy_noise,
    read_manifest,
    write_manifest,
    write_view_bundle,
)
from rig.daemon import ask

MODEL = {"file": "embedder.onnx", "precision": "fp32", "dim": 16}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_view_bundle(tmp_path_factory.mktemp("views") / "bundle").path
    add_reference(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


def test_the_bundle_of_the_package_is_small_and_opens_no_model_that_judges_nothing() -> None:
    bundle = load_bundle(default_bundle())
    manifest = bundle.manifest
    assert sum(entry.bytes for entry in manifest.files.values()) < 12e6
    assert all(entry.views for entry in manifest.machines.values())
    card = (bundle.path / "MODEL_CARD.md").read_text()
    for machine, entry in manifest.machines.items():
        assert f"| {machine} | {entry.vectors} |" in card
        judges = {"heard", "separated"} & set(entry.views or ())
        weight = manifest.figures.get("embedder_weight", {}).get(machine, {"share": 0})["share"]
        assert bool(judges) == bool(weight)
        assert [model is None for model in Scorer(bundle, machine).models] == [not judges, "separated" not in judges]


def test_it_is_tested_by_its_reference_sounds_within_bounds(made: Path) -> None:
    bundle = load_bundle(made)
    assert self_test(bundle) == len(bundle.machines) * len(bundle.manifest.reference) > 0
    assert step_seconds(bundle.manifest, None, "window") > 0
    assert ResourceBounds.of(bundle.manifest).memory_bytes > 0


def test_a_reference_score_that_is_missed_is_told(folder: Path) -> None:
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["reference"][0]["scores"]["fan"] += 1
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match="computes something else"):
        self_test(load_bundle(folder))


def test_a_machine_is_judged_without_a_session_and_embeddings_are_refused(made: Path) -> None:
    bundle = load_bundle(made)
    scorer = Scorer(bundle, "fan")
    assert scorer.models == (None, None)
    rng = np.random.default_rng(9)
    healthy, failing = scorer.score(healthy_noise(rng)), scorer.score(failing_noise(rng))
    assert healthy.score < healthy.threshold < failing.score
    with pytest.raises(BundleError, match="has no embedder"):
        open_embedder(bundle)
    with pytest.raises(BundleError, match="has no embedder"):
        bundle.bank("fan")


def test_the_papers_back_end_is_refused_as_configuration(made: Path) -> None:
    with pytest.raises(SettingsError, match=r"machines\.fan\.scoring: paper: bundle .*has no embedder") as refused:
        Scorer(load_bundle(made), "fan", scoring="paper")
    assert refused.value.exit_code == 2
    words = ["run", "--machine", "fan", "--bundle", made, "--scoring", "paper", "--no-mqtt"]
    done = ask(*words, "--source", "simulate:fan?seconds=40&speed=max", home=made.parent / "home")
    assert done.returncode == 2
    assert "has no embedder" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 1}, "only schema 2 may do without"),
        ({"separator": {"file": "separator.onnx", "precision": "fp32"}}, "has a separator"),
        ({"embedder_fp32": MODEL}, "unquantised twin"),
        ({"schema": 4}, "newer than this asd-daemon reads"),
    ],
)
def test_what_can_t_do_without_is_refused(folder: Path, change: Mapping[str, Any], why: str) -> None:
    write_manifest(folder, {**read_manifest(folder), **change})
    with pytest.raises(BundleError, match=why):
        load_bundle(folder)


@pytest.mark.parametrize("change", [{"views": None}, {"separated": True}])
def test_a_machine_that_needs_an_embedder_is_refused(folder: Path, change: Mapping[str, Any]) -> None:
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["machines"]["fan"] |= change
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match=r"machines\.fan: needs an embedder"):
        load_bundle(folder)


@pytest.mark.parametrize(("loudness", "kept"), [(1.0, np.float16), (1e6, np.float32)])
def test_matrices_are_kept_in_half_precision_where_they_fit(tmp_path: Path, loudness: float, kept: type) -> None:
    rng = np.random.default_rng(0)
    windows, heard = (rng.standard_normal((n, 8)).astype(np.float32) for n in (40, 50))
    family = Family({Candidate("a", shrinkage=0.5): 1.0})
    fusion = Fusion.fit([family], {"a": windows[:, None]}, np.zeros(40, np.int64))
    (view,) = fusion.views
    object.__setattr__(view, "bank", view.bank * np.float32(loudness))
    write_fusion(fusion, tmp_path / "fusion.npz")
    with np.load(tmp_path / "fusion.npz") as saved:
        assert saved["0/bank"].dtype == kept
        assert saved["0/whitening.axes"].dtype == np.float16
    again = read_fusion(tmp_path / "fusion.npz", fusion.names(), 2**20)
    np.testing.assert_allclose(again.score({"a": heard}), fusion.score({"a": heard}), rtol=1e-2)
