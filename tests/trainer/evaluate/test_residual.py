"""Scores of two microphones by near − α · far: by hand on small arrays, and from a run against the same made clip by clip."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, SettingsError
from asd_daemon.judge.features.log_mel import eat_input, log_mel
from asd_daemon.waveform import fit_length
from asd_trainer.cli.program import main
from asd_trainer.data.dataset import Clip, ClipTable, read_dataset
from asd_trainer.evaluate.backend import score_run
from asd_trainer.evaluate.residual import TwoMicrophones, residual_of
from asd_trainer.networks.embedder import load_embedder
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.stages import run_stages
from asd_trainer.training.run_folder import claim_run
from rig.tones import add_far_microphone, write_tones

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels: the machine, and a hall of a hum that changes from clip to clip with a little of the machine in it."""

    def hall_of(_: Path, time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        hum = 0.2 * np.sin(2 * np.pi * rng.uniform(200, 3000) * time_s)
        return np.asarray(hum + 0.01 * rng.standard_normal(len(time_s)))

    return add_far_microphone(write_tones(tmp_path_factory.mktemp("stereo") / "dcase2026t2"), hall_of)


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run") / "two"
    recipe = load_recipe("smoke", ["finetune.epochs=1", "finetune.kept_patches=0.05", "evaluate.far_weight=0.3"])
    claim_run(run, recipe)
    run_stages(recipe, read_dataset([root]), run)
    return run


def test_residual_by_hand() -> None:
    near = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    far = np.array([[0.0, 1.0], [0.6, 0.8]], np.float32)
    found = residual_of(near, far, 0.5)
    length = math.sqrt(1 + 0.25)
    np.testing.assert_allclose(found, [[1 / length, -0.5 / length], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(residual_of(near, far, 0), near, atol=1e-7)


@pytest.mark.parametrize("weight", [-0.1, 1.0, float("nan")])
def test_a_weight_that_may_leave_nothing_is_refused(weight: float) -> None:
    with pytest.raises(SettingsError, match="far_weight"):
        residual_of(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32), weight)


def reference(run: Path, table: ClipTable, weight: float, channels: tuple[int, int] = (0, 1)) -> dict[Clip, float]:
    """Scores made clip by clip in plain numbers: no index, no batch, no cache."""
    embedder = load_embedder(run)

    def embedding(clip: Clip, channel: int) -> list[float]:
        sound = soundfile.read(clip.path, dtype="float32")[0][:, channel]
        with torch.no_grad():
            row = embedder(torch.from_numpy(eat_input(log_mel(fit_length(sound))))[None])[0]
        return [float(value) for value in row]

    def residual(clip: Clip) -> list[float]:
        near, far = (embedding(clip, channel) for channel in channels)
        left = [n - weight * f for n, f in zip(near, far, strict=True)]
        length = math.sqrt(sum(value * value for value in left))
        return [value / length for value in left]

    rows = {clip: residual(clip) for clip in table}
    return {
        clip: min(
            1 - sum(a * b for a, b in zip(rows[clip], rows[other], strict=True))
            for other in table.select(split="train", machine=clip.machine)
        )
        for clip in table.select(split="test")
    }


def test_scores_are_distances_of_residuals_and_the_near_microphone_stands_beside_them(run: Path, root: Path) -> None:
    table = read_dataset([root])
    for two, weight in ((TwoMicrophones(), 0.3), (TwoMicrophones(0.7), 0.7)):  # the recipe's, then what is asked for
        found = score_run(run, table, scoring="residual", two=two)
        expected = reference(run, table, weight)
        np.testing.assert_allclose([one.score for one in found.test], [expected[o.clip] for o in found.test], atol=2e-5)
    assert found.near_alone is not None
    assert found.near_alone.test == score_run(run, table, separating="never").test
    assert [one.score for one in found.near_alone.test] != [one.score for one in found.test]


def test_channels_may_be_the_other_way_round(run: Path, root: Path) -> None:
    table = read_dataset([root])
    hummer = ClipTable(table.select(machine="hummer"))
    found = score_run(run, hummer, scoring="residual", two=TwoMicrophones(0.3, (1, 0)))
    expected = reference(run, hummer, 0.3, (1, 0))
    np.testing.assert_allclose([one.score for one in found.test], [expected[o.clip] for o in found.test], atol=2e-5)


def test_a_clip_without_far_channel_is_named_with_the_key(run: Path, root: Path, tmp_path: Path) -> None:
    mono = write_tones(tmp_path / "mono", train=2, test=1)
    with pytest.raises(
        DataSetError, match=r"evaluate\.channels 0,1: .*hummer.*\.wav.*no channel 1.*--channels"
    ) as told:
        score_run(run, read_dataset([mono]), scoring="residual")
    assert str(told.value).count(".wav") == 1
    with pytest.raises(DataSetError, match=r"evaluate\.channels 0,2: .*no channel 2"):
        score_run(run, read_dataset([root]), scoring="residual", two=TwoMicrophones(None, (0, 2)))


def test_evaluate_shows_with_and_without(run: Path, root: Path) -> None:
    words = ["evaluate", str(run), "--data", str(root), "--score", "residual"]
    shown = CliRunner().invoke(main, [*words, "--far-weight", "0.4"])
    assert shown.exit_code == 0, shown.output
    assert "near alone" in shown.output
    assert "against near alone: " in shown.output
    written = json.loads((run / "evaluation.json").read_text())
    assert written["against"]["run"] == "near alone"
    table = CliRunner().invoke(main, [*words, "--csv"])
    rows = {row["run"] for row in csv.DictReader(io.StringIO(table.stdout))}
    assert rows == {str(run), f"{run} near alone"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--far-weight", "0.4"], "--far-weight 0.4: is for --score residual"),
        (["--channels", "0,1", "--score", "views"], "--channels 0,1: is for --score residual"),
        (["--channels", "1,1", "--score", "residual"], "--channels 1,1: the far microphone must be another"),
        (["--channels", "near", "--score", "residual"], "must be NEAR,FAR"),
        (["--far-weight", "1", "--score", "residual"], "--far-weight"),
    ],
)
def test_options_that_do_not_fit_are_refused(run: Path, root: Path, words: list[str], told: str) -> None:
    done = CliRunner().invoke(main, ["evaluate", str(run), "--data", str(root), *words])
    assert done.exit_code != 0
    assert told in done.output + str(done.exception)


@pytest.mark.parametrize("key", ["evaluate.far_weight=1", "evaluate.far_weight=-1", "evaluate.channels=[1, 1]"])
def test_keys_out_of_range_are_refused(key: str) -> None:
    with pytest.raises(SettingsError, match=key.split("=", maxsplit=1)[0].replace(".", r"\.")):
        load_recipe("smoke", [key])
