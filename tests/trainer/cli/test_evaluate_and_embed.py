"""asd-train evaluate of several runs and bundles, and asd-train embed, as people use them."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from asd_daemon.cli.program import cli as daemon
from asd_daemon.judge.features.log_mel import eat_input, log_mel
from asd_daemon.judge.features.views import view_vectors
from asd_daemon.waveform import fit_length, read_waveform
from asd_trainer.cli.program import main
from asd_trainer.data.dataset import read_dataset
from asd_trainer.evaluate.back_ends import BACK_ENDS, BackEnds
from asd_trainer.evaluate.backend import score_run
from asd_trainer.networks.embedder import load_embedder
from rig.bundles import write_tiny_bundle
from rig.recordings import write_recordings, write_trained_run


def invoke(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("data"), {"fan": 0.0, "pump": 2.0})


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return write_trained_run(folder / "one", data), write_trained_run(folder / "two", data)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", {"fan": 0.0, "pump": 2.0}).path


def test_back_ends_and_ensembles_are_rows_beside_the_nearest_neighbour(runs: tuple[Path, Path], bundle: Path) -> None:
    rows = json.loads(invoke("evaluate", runs[0], "--ablation", "--json", "--threads", "1").stdout)["runs"]
    assert [row["run"] for row in rows] == [*BACK_ENDS, "auto", "least of all"]
    alone = json.loads(invoke("evaluate", runs[0], "--json", "--threads", "1").stdout)
    assert rows[0]["omega"]["value"] == alone["omega"]
    local = json.loads(invoke("evaluate", runs[0], "--back-end", "local", "--json", "--threads", "1").stdout)
    assert local["omega"] == rows[1]["omega"]["value"]
    joined = json.loads(invoke("evaluate", *runs, "--ensemble", "--json", "--threads", "1").stdout)["runs"]
    assert [row["run"] for row in joined] == [*map(str, runs), "ensemble"]
    assert joined[2]["omega"]["value"] == joined[0]["omega"]["value"]  # the same weights twice
    for words, told in {
        ("--back-end", "auto", "--back-end", "local"): "auto: chooses one by itself",
        ("--back-end", "local", "--score", "views"): "--score views has its own",
        ("--ensemble",): "name at least two",
        ("--ablation", "--submission", "out"): "of one run folder, alone",
    }.items():
        assert told in invoke("evaluate", runs[0], *words, "--threads", "1", code=2).stderr
    assert "is a bundle" in invoke("evaluate", runs[0], bundle, "--back-end", "local", code=2).stderr


def test_the_recipe_s_back_ends_judge_wherever_a_run_is_scored(tmp_path: Path) -> None:
    data = write_recordings(tmp_path / "data", {"fan": 0.0}, train=16)
    plain = write_trained_run(tmp_path / "plain", data)
    run = shutil.copytree(plain, tmp_path / "run")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["evaluate"]["back_ends"] = ["local"]
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    scores = {}
    for each in (plain, run):
        invoke("embed", each, "--to", tmp_path / "clips.npz", "--threads", "1")
        with np.load(tmp_path / "clips.npz", allow_pickle=False) as held:
            scores[each] = held["score"][held["split"] == "test"]
    expected = json.loads(invoke("evaluate", plain, "--back-end", "local", "--json", "--threads", "1").stdout)
    assert json.loads(invoke("evaluate", run, "--json", "--threads", "1").stdout)["omega"] == expected["omega"]
    by_name = score_run(plain, read_dataset([data]), back_ends=BackEnds(("local",)))
    assert scores[run] == pytest.approx([one.score for one in by_name.test], rel=1e-5)
    assert not np.allclose(scores[run], scores[plain])


def test_runs_and_a_bundle_stand_in_one_table(runs: tuple[Path, Path], bundle: Path) -> None:
    result = invoke("evaluate", *runs, bundle, "--json", "--threads", "1")
    first, second, third = json.loads(result.stdout)["runs"]
    alone = json.loads(invoke("evaluate", runs[0], "--json", "--threads", "1").stdout)
    assert first["omega"]["value"] == alone["omega"]
    assert first["omega"]["interval"] == alone["interval"]
    assert second["omega"]["gain_interval"] == [0, 0]  # the same weights
    assert third["run"] == str(bundle)
    assert third["omega"]["value"] > 0.99  # it knows the machines, and failures whistle
    assert json.loads((runs[1] / "evaluation.json").read_text())["omega"] == second["omega"]["value"]
    assert not (bundle / "evaluation.json").exists()
    printed = invoke("evaluate", *runs, bundle, "--threads", "1").stdout
    assert "not told apart" in printed
    rows = list(csv.DictReader(io.StringIO(invoke("evaluate", *runs, "--csv", "--threads", "1").stdout)))
    assert {row["machine"] for row in rows} == {"all", "fan", "pump"}
    alone = list(csv.DictReader(io.StringIO(invoke("evaluate", runs[0], "--csv", "--threads", "1").stdout)))
    assert alone == [row for row in rows if row["run"] == str(runs[0])]


def test_a_bundle_alone_is_measured_by_the_scores_of_the_daemon(data: Path, bundle: Path) -> None:
    scored = CliRunner().invoke(
        daemon, ["score", str(data / "fan" / "test"), "--machine", "fan", "--bundle", str(bundle), "--json"]
    )
    scores = {row["path"]: row["score"] for row in map(json.loads, scored.stdout.splitlines())}
    normal = [score for path, score in scores.items() if "_normal_" in path]
    anomalous = [score for path, score in scores.items() if "_anomaly_" in path]
    auc = np.mean([a > n for a in anomalous for n in normal])
    found = json.loads(invoke("evaluate", bundle, "--data", data, "--json", "--threads", "1").stdout)
    assert found["machines"]["fan"]["auc_source"] == pytest.approx(auc)
    refused = invoke("evaluate", bundle, "--threads", "1", code=2)
    assert "a bundle does not say where recordings are" in refused.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--json", "--csv"), "give one of them"),
        (("--against", "other"), "name it as one more RUN"),
        (("--submission", "out"), "is of one run folder"),
    ],
)
def test_words_that_do_not_fit_several_runs_are_refused(
    runs: tuple[Path, Path], words: tuple[str, ...], message: str
) -> None:
    assert message in invoke("evaluate", *runs, *words, "--threads", "1", code=2).stderr


def test_a_run_named_twice_is_refused(runs: tuple[Path, Path]) -> None:
    assert "is named twice" in invoke("evaluate", runs[0], runs[0], code=2).stderr


def test_embeddings_of_a_run_are_those_of_its_network_and_scores_those_of_evaluate(
    runs: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "clips.npz"
    invoke("embed", runs[0], "--to", file, "--view", "heard", "--view", "steady-quiet", "--threads", "1")
    with np.load(file, allow_pickle=False) as found:
        content = dict(found)
    assert content["vector_heard"].dtype == np.float32
    assert sorted(set(content["machine"])) == ["fan", "pump"]
    assert set(content["split"]) == {"train", "test"}
    assert json.loads(content["attributes"][0])["vel"] in ("0", "1")
    number = int(np.flatnonzero(content["label"] == "anomaly")[0])
    sound = fit_length(read_waveform(Path(content["path"][number])))
    with torch.inference_mode():
        expected = load_embedder(runs[0])(torch.from_numpy(eat_input(log_mel(sound))[None]))[0].numpy()
    np.testing.assert_allclose(content["vector_heard"][number], expected, atol=1e-5)
    view = view_vectors(sound, views=("steady-quiet",), parts=False)["steady-quiet"][0]
    np.testing.assert_allclose(content["vector_steady-quiet"][number], view, atol=1e-6)
    bank = content["vector_heard"][(content["machine"] == content["machine"][number]) & (content["split"] == "train")]
    assert content["score"][number] == pytest.approx(1 - float((bank @ expected).max()), abs=1e-5)
    assert np.isnan(content["threshold"]).all()


def test_vectors_and_scores_of_a_bundle_are_those_of_the_daemon(data: Path, bundle: Path, tmp_path: Path) -> None:
    scored = CliRunner().invoke(
        daemon, ["score", str(data / "pump" / "test"), "--machine", "pump", "--bundle", str(bundle), "--json"]
    )
    expected = {row["path"]: row for row in map(json.loads, scored.stdout.splitlines())}
    for name in ("clips.npz", "clips.parquet"):
        invoke("embed", bundle, "--data", data, "--to", tmp_path / name, "--threads", "1")
    table = pyarrow.parquet.read_table(tmp_path / "clips.parquet")
    rows = {row["path"]: row for row in table.to_pylist()}
    for path, one in expected.items():
        assert rows[path]["score"] == pytest.approx(one["score"])
        assert rows[path]["threshold"] == pytest.approx(one["threshold"])
    with np.load(tmp_path / "clips.npz", allow_pickle=False) as content:
        assert content["path"].tolist() == table["path"].to_pylist()
        np.testing.assert_array_equal(content["vector_heard"], np.array(table["vector_heard"].to_pylist(), np.float32))
        np.testing.assert_array_equal(content["score"], np.array(table["score"].to_pylist()))
        assert str(content["source"]) == json.loads(table.schema.metadata[b"asd_edge"])["source"]
    assert {row["year"] for row in rows.values()} == {None}


def test_a_machine_that_the_bundle_does_not_know_has_vectors_and_no_score(data: Path, tmp_path: Path) -> None:
    known = write_tiny_bundle(tmp_path / "fan only", {"fan": 0.0}).path
    invoke("embed", known, "--data", data, "--to", tmp_path / "clips.parquet", "--threads", "1")
    rows = pyarrow.parquet.read_table(tmp_path / "clips.parquet").to_pylist()
    assert {row["machine"]: row["score"] is None for row in rows} == {"fan": False, "pump": True}
    assert all(len(row["vector_heard"]) == 16 for row in rows)


def test_a_file_that_can_not_be_written_is_refused_before_anything_is_heard(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("embed", bundle, "--data", data, "--to")
    assert "must end with .npz or .parquet" in invoke(*words, tmp_path / "clips.csv", code=2).stderr
    assert "there is no folder" in invoke(*words, tmp_path / "none" / "clips.npz", code=2).stderr
    assert "view 'loudness' is unknown" in invoke(*words, tmp_path / "c.npz", "--view", "loudness", code=2).stderr
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "asd-edge[parquet]" in invoke(*words, tmp_path / "clips.parquet", code=2).stderr
    assert list(tmp_path.iterdir()) == []
