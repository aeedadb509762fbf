"""The fine-tuning stage: what it leaves, what it does not do again, how it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asd_daemon.errors import DataSetError, RecordingError, StageError
from asd_trainer.data.dataset import ClipTable, class_labels, read_dataset, training_clips
from asd_trainer.data.features import cached_log_mels, clip_log_mels
from asd_trainer.finetune.classification import ClassificationTask
from asd_trainer.networks.embedder import load_embedder
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.stages import run_stage, run_stages
from rig.tones import write_tones


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_tones(tmp_path_factory.mktemp("tones"))])


@pytest.fixture(scope="module")
def run(table: ClipTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    run_stages(tiny_recipe(), table, run)
    return run


def tiny_recipe(*overrides: str) -> Recipe:
    return load_recipe(
        "smoke", ["finetune.epochs=2", "finetune.batch_clips=8", "finetune.kept_patches=0.05", *overrides]
    )


def test_finished_stage_leaves_embedder_classes_history_and_no_checkpoints(run: Path, table: ClipTable) -> None:
    folder = run / "stages" / "finetune"
    assert {p.name for p in folder.iterdir()} == {
        "embedder.safetensors",
        "embedder.json",
        "head.safetensors",
        "classes.json",
        "history.jsonl",
        "done",
    }
    assert json.loads((folder / "classes.json").read_text()) == list(class_labels(training_clips(table))[1])
    assert len(json.loads((folder / "classes.json").read_text())) == 4
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2 * 16 // 8
    assert load_embedder(run).dimensions == tiny_recipe().embedding.dimensions


def test_stage_that_is_done_is_not_done_again(run: Path, table: ClipTable) -> None:
    weights = run / "stages" / "finetune" / "embedder.safetensors"
    before = weights.stat().st_mtime_ns
    run_stage("finetune", tiny_recipe(), table, run)
    assert weights.stat().st_mtime_ns == before


def test_same_seed_gives_the_same_embedder_and_another_seed_another(
    run: Path, table: ClipTable, tmp_path: Path
) -> None:
    run_stages(tiny_recipe(), table, tmp_path / "same")
    run_stages(tiny_recipe("seed=1"), table, tmp_path / "other")
    weights = [
        (r / "stages" / "finetune" / "embedder.safetensors").read_bytes()
        for r in (run, tmp_path / "same", tmp_path / "other")
    ]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_every_clip_is_trained_on_once_an_epoch_in_another_order(table: ClipTable) -> None:
    clips = training_clips(table)
    features = np.stack(list(clip_log_mels(clips)))
    task = ClassificationTask(tiny_recipe("finetune.augment.mixup_probability=0"), clips, features)
    epochs = [[task.batch(2 * epoch + step, 0, 1)["labels"].tolist() for step in range(2)] for epoch in range(2)]
    assert epochs[0] != epochs[1]
    assert all(
        sorted(label for batch in epoch for label in batch) == sorted(class_labels(clips)[0].tolist())
        for epoch in epochs
    )


def test_batches_of_two_processes_make_up_the_batch_of_one(table: ClipTable) -> None:
    clips = training_clips(table)
    task = ClassificationTask(tiny_recipe(), clips, np.stack(list(clip_log_mels(clips))))
    whole = task.batch(3, 0, 1)
    for rank in range(2):
        for name, tensor in task.batch(3, rank, 2).items():
            assert torch.equal(tensor, whole[name][rank::2]), name


def test_loss_of_a_batch_is_the_mixed_cross_entropy_written_out(table: ClipTable) -> None:
    clips = training_clips(table)
    task = ClassificationTask(
        tiny_recipe("finetune.augment.mixup_probability=1"), clips, np.stack(list(clip_log_mels(clips)))
    )
    batch = task.batch(0, 0, 1)
    with torch.no_grad():
        loss = float(task.model(**batch)["loss"])
        embeddings = task.model.embedder(batch["features"], batch["kept"]).double().numpy()
    centres = task.model.head.centres.detach()[:, 0].double().numpy()
    cosine = embeddings @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    expected = []
    for row, own, partner, share in zip(cosine, batch["labels"], batch["partner_labels"], batch["mix"], strict=True):
        for label, weight in ((int(own), float(share)), (int(partner), 1 - float(share))):
            logits = 30 * row.copy()
            logits[label] = 30 * np.cos(np.arccos(row[label]) + 0.3)
            expected.append(weight * (np.log(np.exp(logits).sum()) - logits[label]))
    assert loss == pytest.approx(sum(expected) / len(cosine), rel=1e-3)


def test_cached_features_are_those_of_the_clips_and_are_computed_once(table: ClipTable, tmp_path: Path) -> None:
    clips = training_clips(table)
    first = cached_log_mels(clips, tmp_path)
    np.testing.assert_array_equal(first, np.stack(list(clip_log_mels(clips))))
    (cache,) = tmp_path.glob("*.npy")
    before = cache.stat().st_mtime_ns
    cached_log_mels(clips, tmp_path)
    assert cache.stat().st_mtime_ns == before
    cached_log_mels(clips[1:], tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


@pytest.mark.parametrize("name", ["my fan", "Lüfter", "-fan", "f" * 65, "fan\n"])
def test_machine_that_no_bundle_takes_is_refused_before_anything_is_learned(
    table: ClipTable, tmp_path: Path, name: str
) -> None:
    renamed = ClipTable(tuple(replace(clip, machine=name) for clip in table.clips))
    with pytest.raises(DataSetError, match=r"can't go into a bundle: .*rename the folder"):
        run_stages(tiny_recipe(), renamed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_class_is_refused_with_what_to_add(table: ClipTable, tmp_path: Path) -> None:
    alone = ClipTable(table.select(machine="hummer", domain="source"))
    with pytest.raises(DataSetError, match="add another machine"):
        run_stages(tiny_recipe(), alone, tmp_path)
    with pytest.raises(DataSetError, match="no normal training clips"):
        run_stages(tiny_recipe(), ClipTable(table.select(split="test")), tmp_path / "other")


def test_clip_that_breaks_after_the_listing_is_named(table: ClipTable, tmp_path: Path) -> None:
    own = read_dataset([write_tones(tmp_path / "data", train=2, test=1)])
    broken = training_clips(own)[1].path
    broken.write_bytes(b"RIFF")
    with pytest.raises(RecordingError, match=broken.name):
        run_stages(tiny_recipe(), own, tmp_path / "run")
    assert not list((tmp_path / "run" / "features").glob("*.npy"))


def test_other_recordings_than_those_of_the_checkpoint_are_refused(table: ClipTable, tmp_path: Path) -> None:
    from asd_trainer.training.checkpoint import Checkpoints
    from asd_trainer.training.loop import build_optimiser

    clips = training_clips(table)
    recipe = tiny_recipe()
    task = ClassificationTask(recipe, clips, np.zeros((len(clips), 998, 128), np.float32))
    optimiser = build_optimiser(task.model, recipe.finetune.optimiser)
    Checkpoints(tmp_path / "stages" / "finetune", task.fingerprint).save(1, task.model, optimiser)
    with pytest.raises(StageError, match="other clips"):
        run_stages(recipe, ClipTable(clips[1:]), tmp_path)
