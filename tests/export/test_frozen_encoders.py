"""A released encoder, frozen: from its file to a run folder like every other, to a bundle that scores as the run does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from asd_daemon.judge.bundle.bundle import load_bundle
from asd_daemon.judge.bundle.onnx_sessions import open_embedder
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.judge.scoring.self_test import self_test
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_export.rounding import Rounding
from asd_trainer.cli.program import main as train_main
from asd_trainer.data.dataset import load_clip, read_dataset
from asd_trainer.evaluate.backend import recipe_back_ends, score_run
from asd_trainer.networks.embedder import load_embedder
from rig.exports import export
from rig.released_encoders import SMALL_BEATS, write_small_beats
from rig.tones import write_tones

pytestmark = pytest.mark.torch


def train(*words: object) -> Result:
    result = CliRunner().invoke(
        train_main, [*map(str, words), "--threads", "1"] if words[0] == "run" else [*map(str, words)]
    )
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and the data it was made for."""
    root = tmp_path_factory.mktemp("frozen")
    data = write_tones(root / "data", train=2, test=1)
    weights = write_small_beats(root / "beats.pt")
    keys = ("encoder.name=beats", f"encoder.weights={weights}", "frozen.pooling=statistics", "frozen.standardise=true")
    told = train("run", "frozen", "--data", data, "--out", root / "run", *(w for key in keys for w in ("--set", key)))
    assert "UNTRAINED" not in told.stderr
    return root / "run", data


def test_run_of_a_frozen_encoder_is_like_every_other(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = made
    origin = json.loads((run / "stages" / "frozen" / "origin.json").read_text())
    assert origin["encoder"] == "beats"
    assert len(origin["sha256"]) == 64
    assert json.loads(train("evaluate", run, "--data", data, "--json").stdout)["omega"] > 0
    train("report", run)
    assert (run / "report.html").is_file()
    train("embed", run, "--data", data, "--to", tmp_path / "vectors.npz")
    with np.load(tmp_path / "vectors.npz", allow_pickle=False) as vectors:
        clips = len(read_dataset([data]).clips)
        embedder = load_embedder(run)
        assert embedder.dimensions == 2 * 8 * SMALL_BEATS.encoder_embed_dim
        assert any(vectors[name].shape == (clips, embedder.dimensions) for name in vectors.files)


def test_standardised_components_are_centred_over_the_training_clips(made: tuple[Path, Path]) -> None:
    run, data = made
    found = score_run(run, read_dataset([data]))
    spread = np.concatenate([e[[c.split == "train" for c in clips]] for clips, e in found.embeddings.values()])
    directions = np.abs(spread.mean(axis=0)) / spread.std(axis=0).clip(1e-6)
    assert np.median(directions) < 0.2, "unit length after centring leaves little of a mean"


def test_daemon_scores_by_the_bundle_as_the_run_is_evaluated(made: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = made
    result = export(run, tmp_path / "bundle", "--no-test", "--fp32")
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.embedder is not None
    file = bundle.path / bundle.manifest.embedder.file
    graph = onnx.load(str(file)).graph
    assert [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim][1:] == [WINDOW_SAMPLES]
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}, "any onnxruntime has these"
    assert open_embedder(bundle).hears_waveforms
    for one in score_run(run, read_dataset([data])).test[::2]:
        scored = Scorer(bundle, one.clip.machine).score(load_clip(one.clip)).score
        assert scored == pytest.approx(one.score, abs=1e-4)
    heard = load_clip(read_dataset([data]).clips[0])[None]
    rounding = Rounding(file, tmp_path, [heard])
    operators = rounding.operators("static")
    assert len(operators) == 1 + 1 + 1 + 2 * 7, "patches, projection, position and seven a block"
    rounding.write("static", tmp_path / "static.onnx", operators)
    whole = [
        node.op_type
        for node in onnx.load(str(tmp_path / "static.onnx")).graph.node
        if any("front_end." in name and "quant" not in name for name in node.input)
    ]
    assert sorted(whole) == ["Conv", "MatMul"], "spectrum and mel filters are as they were"
    assert "beats" in (bundle.path / "MODEL_CARD.md").read_text()


def test_bands_with_banks_of_their_own_are_evaluated_and_scored_by_the_daemon_alike(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    run, data = made
    own = tmp_path / "run"
    keys = ("encoder.name=beats", f"encoder.weights={run.parent / 'beats.pt'}", "frozen.bands=separate")
    train("run", "frozen", "--data", data, "--out", own, *(w for key in keys for w in ("--set", key)))
    found = score_run(own, read_dataset([data]), back_ends=recipe_back_ends(own))
    rows = {clip: row for clips, vectors in found.embeddings.values() for clip, row in zip(clips, vectors, strict=True)}
    one = found.test[0]
    bank = np.stack([row for clip, row in rows.items() if clip.split == "train" and clip.machine == one.clip.machine])
    distances = []
    for theirs, ours in zip(np.split(bank, 8, axis=1), np.split(rows[one.clip], 8), strict=True):
        cosines = theirs @ ours / np.linalg.norm(theirs, axis=1) / np.linalg.norm(ours)
        distances.append(1 - cosines.max())
    assert one.score == pytest.approx(np.mean(distances), abs=1e-5)
    result = export(own, tmp_path / "bundle", "--no-test", "--fp32")
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.bands == 8
    for each in found.test[::2]:
        scored = Scorer(bundle, each.clip.machine).score(load_clip(each.clip)).score
        assert scored == pytest.approx(each.score, abs=1e-4)
    machine = one.clip.machine
    own_clips = [each.score for each in found.training if each.clip.machine == machine]
    threshold = bundle.nearest(machine).calibration().threshold(0.5)
    assert min(own_clips) <= threshold <= max(own_clips), "normal sound is calibrated by the bands' distances"
    assert self_test(bundle) > 0


def test_encoder_without_weights_is_said_to_be_untrained(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = write_tones(tmp_path / "data", train=1, test=1)
    run = tmp_path / "run"
    told = train("run", "frozen", "--data", data, "--out", run, "--set", "encoder.name=eat", "--set", "seed=3")
    assert "eat UNTRAINED" in told.stderr
    assert (
        "encoder.weights is empty: the encoder is UNTRAINED, its weights are drawn at random from seed 3" in caplog.text
    )
    assert json.loads((run / "stages" / "frozen" / "origin.json").read_text())["weights"] is None


def test_weights_that_do_not_fit_are_one_line_with_file_key_and_shapes(tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", train=1, test=1)
    weights = write_small_beats(tmp_path / "beats.pt")
    words = ["run", "frozen", "--data", data, "--out", tmp_path / "run", "--set", f"encoder.weights={weights}"]
    result = CliRunner().invoke(train_main, [*map(str, words)])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: {weights}: layer_norm.bias, ")
    assert "is encoder.name right?" in result.stderr
