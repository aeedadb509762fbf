"""Judging by the paper's back end on the edge, against what the trainer makes of the same run in its own way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from asd_daemon.cli.program import cli as daemon
from asd_daemon.errors import BundleError, SettingsError
from asd_daemon.judge.bundle.bundle import Bundle, load_bundle
from asd_daemon.judge.distances.nearest_neighbours import HnswIndex
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.judge.scoring.self_test import self_test
from asd_daemon.waveform import read_waveform
from asd_export import indexes, models
from asd_trainer.data.dataset import load_clip, read_dataset
from asd_trainer.evaluate.backend import score_run
from asd_trainer.networks.embedder import save_embedder
from asd_trainer.separate.training import save_separator
from rig.bundles import read_manifest, write_manifest
from rig.exports import RememberedExport, export
from rig.networks import small_separator, tiny_quantile_embedder
from rig.recordings import write_recordings, write_trained_run

pytestmark = pytest.mark.torch

MACHINES = {"fan": 0.0, "saw": 2.0}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Trace a network once, and change few copies of clips."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(models, "export_embedder", RememberedExport())
        patched.setattr(indexes, "WEIGHED_CLIPS", 4)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paper")
    data = write_recordings(root / "data", MACHINES, train=16)
    run = write_trained_run(root / "run", data)
    save_embedder(tiny_quantile_embedder(), run / "stages" / "finetune")
    stage = run / "stages" / "separate"
    stage.mkdir()
    save_separator(small_separator(), stage)
    separated = {machine: {"guidance": "clean", "network": "."} for machine in MACHINES}
    (stage / "machines.json").write_text(json.dumps({"schema": 1, "machines": separated}))
    (stage / "done").touch()
    return run


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    made = export(run, run.parent / "bundle", "--fp32", "--score", "views", "--hnsw", "always", "--no-test")
    assert made.exit_code == 0, made.output
    return load_bundle(run.parent / "bundle")


def test_the_scores_of_the_edge_are_those_of_the_run(run: Path, bundle: Bundle) -> None:
    table = read_dataset([run.parent / "data"])
    expected = {one.clip: one.score for one in score_run(run, table, separating="always").test}
    assert len(expected) == 8
    for machine in MACHINES:
        scorer = Scorer(bundle, machine, scoring="paper")
        assert scorer.views == ("heard", "separated")
        for clip in table.select(split="test", machine=machine):
            found = scorer.score(load_clip(clip))
            assert found.separated is not None
            assert min(found.heard or 0, found.separated) > 0.003
            assert found.score == pytest.approx(expected[clip], rel=0.01), clip.path.name


def test_the_bundle_says_that_it_has_banks_and_is_found_by_graph_or_exactly(
    bundle: Bundle, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = load_clip(read_dataset([run.parent / "data"]).select(split="test", machine="saw")[0])
    assert bundle.manifest.schema_version == 3
    assert bundle.manifest.embedder_fp32 is None
    entry = bundle.machine("saw").nearest
    assert entry is not None
    assert (entry.vectors, entry.search, entry.separated) == (16, "hnsw", True)
    by_graph = Scorer(bundle, "saw", scoring="paper").score(clip)
    monkeypatch.setattr(HnswIndex, "available", staticmethod(lambda: False))
    assert Scorer(bundle, "saw", scoring="paper").score(clip).score == pytest.approx(by_graph.score, abs=1e-6)


def test_with_weight_0_no_model_is_opened_and_the_score_is_that_of_the_views(
    bundle: Bundle, run: Path, tmp_path: Path
) -> None:
    table = read_dataset([run.parent / "data"])
    weights = bundle.manifest.figures["embedder_weight"]
    assert set(weights) == set(MACHINES)
    card = (bundle.path / "MODEL_CARD.md").read_text()
    alone = export("-", tmp_path / "views", "--data", run.parent / "data", "--score", "views")
    assert alone.exit_code == 0, alone.output
    views_alone = load_bundle(tmp_path / "views")
    for machine, found in weights.items():
        assert found["share"] == 0, "an embedder that was never trained"
        assert f"| 0 (gain {found['gain']:+.3f} ± {found['standard_error']:.3f}" in card
        scorer = Scorer(bundle, machine)
        assert scorer.models == (None, None)
        for clip in table.select(split="test", machine=machine):
            expected = Scorer(views_alone, machine).score(load_clip(clip)).score
            assert scorer.score(load_clip(clip)).score == pytest.approx(expected, rel=0.01)


def test_the_self_test_compares_both_scores_and_opens_only_what_judges(bundle: Bundle, tmp_path: Path) -> None:
    assert self_test(bundle) == 8
    assert self_test(bundle, extent="models") == 8
    folder = shutil.copytree(bundle.path, tmp_path / "bundle")
    (folder / "embedder.fp32.onnx").write_bytes(b"no model")
    spoiled = Bundle(folder, bundle.manifest)
    assert self_test(spoiled, extent="judged") == 4
    with pytest.raises(BundleError, match="onnxruntime can't load this model"):
        self_test(spoiled, extent="models")
    manifest = read_manifest(bundle.path)
    reference = manifest["reference"]
    assert isinstance(reference, list)
    reference[0]["nearest"]["fan"] += 0.1
    shutil.copytree(bundle.path, tmp_path / "other")
    write_manifest(tmp_path / "other", manifest)
    assert self_test(load_bundle(tmp_path / "other"), extent="judged") == 4
    with pytest.raises(BundleError, match="computes something else"):
        self_test(load_bundle(tmp_path / "other"), extent="models")


def test_score_judges_recordings_by_it(bundle: Bundle, run: Path) -> None:
    file = sorted((run.parent / "data" / "fan" / "test").glob("*anomaly*"))[0]
    words = ["score", str(file), "--machine", "fan", "--bundle", str(bundle.path), "--scoring", "paper", "--json"]
    done = CliRunner().invoke(daemon, words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    scorer = Scorer(bundle, "fan", scoring="paper")
    assert found["score"] == pytest.approx(scorer.score(read_waveform(file)).score, abs=1e-4)
    assert found["threshold"] == pytest.approx(scorer.threshold, abs=1e-4)


def test_a_bank_without_its_machines_models_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle.path, tmp_path / "bundle")
    manifest = read_manifest(folder)
    write_manifest(folder, {**manifest, "separator": None})
    with pytest.raises(BundleError, match=r"machines\.fan\.nearest\.separated: true, but the bundle has no separator"):
        load_bundle(folder)
    write_manifest(folder, {**manifest, "schema": 2})
    with pytest.raises(BundleError, match=r"machines\.fan\.nearest: is known since schema 3"):
        load_bundle(folder)
    machines = manifest["machines"]
    assert isinstance(machines, dict)
    for machine in machines.values():
        del machine["nearest"]
    write_manifest(folder, manifest)
    with pytest.raises(SettingsError, match="knows fan by views alone and has no bank"):
        Scorer(load_bundle(folder), "fan", scoring="paper")
