"""Embeddings, figures and comparisons from Python against the programs, and against counting pairs of clips."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import asd_edge
from asd_daemon.errors import DataSetError, RecordingError
from asd_trainer.cli.program import main
from rig.recordings import write_trained_run


def train(*words: str | Path) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def run(example_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trained_run(tmp_path_factory.mktemp("runs") / "fresh", example_data)


def test_a_run_and_a_bundle_compare_as_the_program_compares_them(run: Path, example_data: Path) -> None:
    table, bundle = asd_edge.read_dataset(example_data), asd_edge.load_bundle()
    scores = {str(run): asd_edge.score_clips(run, table), str(bundle.path): asd_edge.score_clips(bundle, table)}
    printed = json.loads(train("evaluate", run, bundle.path, "--data", example_data, "--json", "--threads", "1"))
    assert asd_edge.compare(scores).as_json() == printed
    alone = json.loads((run / "evaluation.json").read_text())
    sheet = asd_edge.evaluate(scores[str(run)])
    assert sheet.omega == alone["omega"]
    assert sheet.interval is not None
    assert [sheet.interval.low, sheet.interval.high] == alone["interval"]


def test_own_scores_get_the_official_figures(example_data: Path) -> None:
    test = asd_edge.read_dataset(example_data).select(split="test", machine="fan")
    loudness = {clip: float(np.sqrt(np.mean(asd_edge.load_clip(clip) ** 2))) for clip in test}
    found = asd_edge.evaluate(loudness).results["fan"]
    anomalous = [score for clip, score in loudness.items() if clip.label == "anomaly"]
    for domain, figure in (("source", found.auc_source), ("target", found.auc_target)):
        normal = [s for clip, s in loudness.items() if clip.label == "normal" and clip.domain == domain]
        assert figure == pytest.approx(np.mean([a > n for a in anomalous for n in normal]))


def test_other_clips_and_scores_that_are_no_numbers_are_refused(example_data: Path) -> None:
    test = asd_edge.read_dataset(example_data).select(split="test")
    scores = dict.fromkeys(test, 1.0)
    with pytest.raises(DataSetError, match="different test clips"):
        asd_edge.compare({"a": scores, "b": dict(list(scores.items())[1:])})
    with pytest.raises(DataSetError, match="its score is nan"):
        asd_edge.evaluate({**scores, test[0]: float("nan")})


def test_vectors_are_written_as_the_program_writes_them(run: Path, example_data: Path, tmp_path: Path) -> None:
    table = asd_edge.read_dataset(example_data)
    asd_edge.write_vectors(tmp_path / "own.npz", asd_edge.embed(run, table))
    train("embed", run, "--data", example_data, "--to", tmp_path / "program.npz", "--threads", "1")
    with np.load(tmp_path / "own.npz") as own, np.load(tmp_path / "program.npz") as other:
        assert own.files == other.files
        for name in own.files:
            np.testing.assert_array_equal(own[name], other[name])
    views = asd_edge.window_vectors(asd_edge.load_bundle(), asd_edge.load_clip(table.clips[3]), views=["steady-mean"])
    found = asd_edge.embed(asd_edge.load_bundle(), table, views=["steady-mean"])
    np.testing.assert_array_equal(found.vectors["steady-mean"][3], views["steady-mean"][0])
    with pytest.raises(RecordingError):
        asd_edge.window_vectors(asd_edge.load_bundle(), np.full(160_000, np.nan))
