"""Distillation: what the student learns, from whom, and how the stage goes on and fails."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from asd_daemon.errors import StageError
from asd_daemon.judge.features.log_mel import eat_input
from asd_trainer.cli.program import main
from asd_trainer.data.dataset import ClipTable, read_dataset, training_clips
from asd_trainer.data.features import clip_log_mels
from asd_trainer.finetune.classification import embedder_shape
from asd_trainer.finetune.distillation import (
    STANDARD_FILE,
    DistillationTask,
    Distiller,
    PatchMean,
    load_teacher,
)
from asd_trainer.networks.eat import SIZES, Eat
from asd_trainer.networks.embedder import Embedder, load_embedder, read_embedder, save_embedder
from asd_trainer.networks.weights import save_encoder
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.devices import device_here
from asd_trainer.run.forecast import forecast
from asd_trainer.run.stages import run_stage, run_stages
from asd_trainer.training.interruption import Interrupted
from asd_trainer.training.stage_mark import write_mark
from rig.tones import write_tones

pytestmark = pytest.mark.torch

FAST = (
    "finetune.epochs=1",
    "finetune.batch_clips=4",
    "finetune.kept_patches=0.05",
    "distil.batch_clips=4",
    "distil.kept_patches=0.1",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_tones(tmp_path_factory.mktemp("tones"), train=2, test=1)])


@pytest.fixture(scope="module")
def teacher_run(table: ClipTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another embedding size than the student's, whose norms have heard the clips."""
    run = tmp_path_factory.mktemp("teacher")
    folder = run / "stages" / "finetune"
    folder.mkdir(parents=True)
    embedder = Embedder(embedder_shape(load_recipe("smoke", ["embedding.dimensions=24"])))
    embedder.initialise(torch.Generator().manual_seed(9))
    for norm in (embedder.pooled_norm, embedder.embedding_norm):
        norm.momentum = 1.0
    heard = torch.stack([torch.from_numpy(eat_input(clip)) for clip in log_mels(table)])
    with torch.no_grad():
        embedder.train()(heard)
    save_embedder(embedder, folder)
    write_mark(folder, 1.0, "cpu", 1)
    return run


@pytest.fixture(scope="module")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    encoder = Eat(SIZES["smoke"])
    encoder.initialise(torch.Generator().manual_seed(31))
    return save_encoder(encoder, folder)


def student_recipe(teacher: Path, *overrides: str) -> Recipe:
    return load_recipe("smoke", [*FAST, f"distil.teacher={teacher}", "distil.epochs=2", *overrides])


def log_mels(table: ClipTable) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    return np.stack(list(clip_log_mels(training_clips(table))))


@pytest.mark.parametrize("dimensions", [24, 100])
def test_loss_is_one_less_the_cosine_to_the_teacher(dimensions: int, teacher_run: Path, teacher_weights: Path) -> None:
    features = torch.randn(3, 1024, 128, generator=torch.Generator().manual_seed(2))
    kept = torch.arange(20).expand(3, 20)
    for source in (teacher_run, teacher_weights):
        teacher = load_teacher(str(source))
        student = Embedder(embedder_shape(student_recipe(source, f"embedding.dimensions={dimensions}")))
        student.initialise(torch.Generator().manual_seed(1))
        model = Distiller(student, teacher, torch.Generator().manual_seed(1)).eval()
        assert (model.map is None) == (teacher.dimensions == dimensions)
        own = student(features, kept).detach().double().numpy()
        expected = teacher.network(features).double().numpy()
        if model.map is not None:
            matrix = model.map(torch.eye(dimensions)).detach().double().numpy().T
            assert matrix.shape == (teacher.dimensions, dimensions)
            smaller = matrix @ matrix.T if teacher.dimensions < dimensions else matrix.T @ matrix
            np.testing.assert_allclose(smaller, np.eye(min(matrix.shape)), atol=1e-5)
            expected = expected @ matrix  # what the teacher says, as the student would say it
        figures = {name: float(figure.detach()) for name, figure in model(features, kept).items()}
        assert figures["cosine"] == pytest.approx((own * expected).sum(axis=1).mean(), abs=1e-5)
        assert figures["loss"] == pytest.approx(1 - figures["cosine"], abs=1e-6)


def test_teacher_neither_learns_nor_lies_in_a_checkpoint(teacher_run: Path) -> None:
    teacher = load_teacher(str(teacher_run))
    student = Embedder(embedder_shape(student_recipe(teacher_run)))
    student.initialise(torch.Generator().manual_seed(1))
    model = Distiller(student, teacher, torch.Generator().manual_seed(1)).train()
    model(torch.randn(4, 1024, 128), torch.arange(9).expand(4, 9))["loss"].backward()
    assert {name.split(".")[0] for name in model.state_dict()} == {"student", "map"}
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.network.parameters())
    assert not teacher.network.training


def test_plain_encoder_is_standardised_over_the_clips_and_the_file_is_read_back(
    teacher_weights: Path, table: ClipTable, tmp_path: Path
) -> None:
    features = log_mels(table)
    teacher = load_teacher(str(teacher_weights))
    assert isinstance(teacher.network, PatchMean)
    teacher.standardise(features, tmp_path)
    heard = torch.stack([torch.from_numpy(eat_input(clip)) for clip in features])
    with torch.no_grad():
        means = teacher.network.encoder(heard)[:, 1:].mean(dim=1).double().numpy()
    standard = (means - means.mean(axis=0)) / np.maximum(means.std(axis=0), 1e-4)
    expected = standard / np.linalg.norm(standard, axis=1, keepdims=True)
    np.testing.assert_allclose(teacher.embed(heard).numpy(), expected, atol=2e-3)
    again = load_teacher(str(teacher_weights))
    again.standardise(features[:2], tmp_path)  # what lies there is taken, not computed anew from other clips
    assert torch.equal(again.embed(heard), teacher.embed(heard))
    (tmp_path / STANDARD_FILE).write_bytes(b"half")
    with pytest.raises(StageError, match=r"standard\.safetensors: .*remove it"):
        load_teacher(str(teacher_weights)).standardise(features, tmp_path)


@pytest.mark.parametrize("kind", ["teacher_run", "teacher_weights"])
def test_student_approaches_its_teacher(
    kind: str, request: pytest.FixtureRequest, table: ClipTable, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(kind)
    recipe = student_recipe(
        source,
        "distil.epochs=20",
        "distil.batch_clips=8",
        "distil.optimiser.learning_rate=2e-3",
        "finetune.augment.mixup_probability=0",
        "finetune.augment.mask_probability=0",
        "finetune.augment.roll=false",
    )
    run_stage("distil", recipe, table, tmp_path)
    folder = tmp_path / "stages" / "distil"
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    cosines = [line["cosine"] for line in lines]
    assert np.mean(cosines[-5:]) > np.mean(cosines[:5]) + 0.2  # 0.34 to 0.45 over two teachers and two seeds


def test_run_fine_tunes_what_was_distilled(teacher_run: Path, table: ClipTable, tmp_path: Path) -> None:
    run_stages(student_recipe(teacher_run, "finetune.optimiser.learning_rate=1e-6"), table, tmp_path)
    distilled = tmp_path / "stages" / "distil"
    assert {p.name for p in distilled.iterdir()} == {
        "embedder.safetensors",
        "embedder.json",
        "teacher.json",
        "history.jsonl",
        "done",
    }
    assert json.loads((distilled / "teacher.json").read_text())["dimensions"] == 24
    assert load_embedder(tmp_path).shape == read_embedder(distilled).shape
    before, after = (load_file(tmp_path / "stages" / s / "embedder.safetensors") for s in ("distil", "finetune"))
    for name, tensor in before.items():
        if "running" not in name and "count" not in name and tensor.is_floating_point():
            assert (after[name] - tensor).abs().max() < 1e-4, name


class Stopped(DistillationTask):
    """Asked to stop at a step, as from a terminal."""

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(step, rank, world)


@pytest.mark.parametrize("kind", ["teacher_run", "teacher_weights"])
def test_stopped_stage_goes_on_and_ends_bit_for_bit_the_same(
    kind: str, request: pytest.FixtureRequest, table: ClipTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = student_recipe(request.getfixturevalue(kind), "finetune.augment.noise_probability=0.5")
    run_stage("distil", recipe, table, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("asd_trainer.run.stages.DistillationTask", Stopped)
        with pytest.raises(Interrupted, match=r"distil stopped by SIGTERM after step [12] of 4"):
            run_stage("distil", recipe, table, tmp_path / "halves")
    (row, _) = forecast(recipe, table, tmp_path / "halves", device_here())
    assert (row.stage, row.steps) == ("distil", 4)
    assert row.steps_done in {1, 2}  # the batch at which it is asked to stop is made ahead
    run_stage("distil", recipe, table, tmp_path / "halves")
    for name in ("embedder.safetensors", "history.jsonl"):
        whole, halves = (tmp_path / run / "stages" / "distil" / name for run in ("whole", "halves"))
        assert whole.read_bytes() == halves.read_bytes(), name


def test_checkpoint_of_another_teacher_is_refused(
    teacher_run: Path, teacher_weights: Path, table: ClipTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asd_trainer.run.stages.DistillationTask", Stopped)
    with pytest.raises(Interrupted):
        run_stage("distil", student_recipe(teacher_run), table, tmp_path)
    with pytest.raises(StageError, match="other clips or another version"):
        run_stage("distil", student_recipe(teacher_weights), table, tmp_path)


def test_parts_of_two_processes_make_up_the_batch_of_one(teacher_run: Path, table: ClipTable) -> None:
    clips, recipe = training_clips(table), student_recipe(teacher_run, "distil.kept_patches=0.3")
    student = Embedder(embedder_shape(recipe))
    task = DistillationTask(recipe, student, load_teacher(str(teacher_run)), clips, log_mels(table))
    whole = task.batch(3, 0, 1)
    for rank in range(2):
        for name, tensor in task.batch(3, rank, 2).items():
            assert torch.equal(tensor, whole[name][rank::2]), name


def test_teacher_that_can_not_be_had_is_refused_before_anything_is_done(
    teacher_run: Path, table: ClipTable, tmp_path: Path
) -> None:
    unfinished, broken = tmp_path / "unfinished", tmp_path / "broken"
    (unfinished / "stages").mkdir(parents=True)
    (broken / "stages" / "finetune").mkdir(parents=True)
    for name in ("embedder.json", "done"):
        (broken / "stages" / "finetune" / name).write_bytes((teacher_run / "stages" / "finetune" / name).read_bytes())
    (broken / "stages" / "finetune" / "embedder.safetensors").write_bytes(b"half")
    for source, message in (
        (tmp_path / "none", "no such file, and no name of a repository"),
        (unfinished, "holds no trained embedder"),
        (broken, "the embedder can't be read"),
    ):
        with pytest.raises(StageError, match=rf"^distil\.teacher: .*{message}") as refused:
            run_stages(student_recipe(source), table, tmp_path / "run")
        assert str(source) in str(refused.value)
        assert not (tmp_path / "run" / "stages").exists()


def test_commands_tell_of_a_missing_teacher_and_a_missing_stage(
    teacher_run: Path, table: ClipTable, tmp_path: Path
) -> None:
    data, run = str(training_clips(table)[0].path.parents[2]), tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(load_recipe("smoke", FAST).to_yaml())
    result = CliRunner().invoke(main, ["distil", str(run), "--data", data, "--threads", "1"])
    assert (result.exit_code, result.stderr.splitlines()[-1].partition(":")[0]) == (2, "error")
    assert "distil.teacher: names no teacher" in result.stderr
    (run / "recipe.yaml").write_text(student_recipe(teacher_run).to_yaml())
    result = CliRunner().invoke(main, ["finetune", str(run), "--data", data, "--threads", "1"])
    assert result.exit_code != 0
    assert f"distil is not done: asd-train distil {run}" in result.stderr.splitlines()[-1]


def test_plan_counts_distillation_with_its_teacher(teacher_run: Path, table: ClipTable, tmp_path: Path) -> None:
    distilled, finetuned = forecast(student_recipe(teacher_run), table, tmp_path / "run", device_here())
    assert (distilled.stage, distilled.steps) == ("distil", 4)
    assert distilled.seconds is not None
    assert distilled.seconds > 0
    # The features are made once, by the stage that needs them first.
    assert distilled.disk_bytes > finetuned.disk_bytes
