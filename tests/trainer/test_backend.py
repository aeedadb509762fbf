"""The paper's back end: scores of test clips from a run that was trained here."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from asd_daemon.errors import DataSetError, StageError
from asd_daemon.judge.mel import eat_input, log_mel
from asd_trainer.backend import by_machine, embed_clips, score_run
from asd_trainer.dataset import ClipTable, load_clip, read_dataset
from asd_trainer.embedder import Embedder, load_embedder
from asd_trainer.recipe import load_recipe
from asd_trainer.stages import run_stages
from rig.tones import write_tones


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_tones(tmp_path_factory.mktemp("tones"), train=9)])


@pytest.fixture(scope="module")
def run(table: ClipTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    run_stages(load_recipe("smoke", ["finetune.epochs=2", "finetune.kept_patches=0.05"]), table, run)
    return run


def one_by_one(
    embedder: Embedder, table: ClipTable, clips: object
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    with torch.no_grad():
        rows = [embedder(torch.from_numpy(eat_input(log_mel(load_clip(clip))))[None]) for clip in clips]  # type: ignore[attr-defined]
    return torch.cat(rows).numpy()


def test_embeddings_come_in_order_and_equal_those_made_one_by_one(run: Path, table: ClipTable) -> None:
    embedder = load_embedder(run)
    clips = table.select(machine="hummer")  # 30 clips: two batches, the second short
    embedded = embed_clips(embedder, clips)
    assert embedded.shape == (30, 128)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, one_by_one(embedder, table, clips), atol=2e-5)


def test_score_is_the_smallest_cosine_distance_to_the_normal_clips_of_the_machine(run: Path, table: ClipTable) -> None:
    embedder = load_embedder(run)
    scored = score_run(run, table)
    assert {one.clip for one in scored} == set(table.select(split="test"))
    for machine in table.machines:
        bank = one_by_one(embedder, table, table.select(split="train", machine=machine))
        tested = [one for one in scored if one.clip.machine == machine]
        queries = one_by_one(embedder, table, [one.clip for one in tested])
        np.testing.assert_allclose([one.score for one in tested], 1 - (queries @ bank.T).max(axis=1), atol=1e-5)


def test_clean_and_noise_clips_stay_out_of_the_bank(run: Path, tmp_path: Path) -> None:
    root = write_tones(tmp_path / "tones", train=2, test=1)
    before = {one.clip.path.name: one.score for one in score_run(run, read_dataset([root]))}
    for machine in ("hummer", "singer"):
        (root / machine / "supplemental").mkdir()
        anomaly = next((root / machine / "test").glob("*anomaly*"))
        shutil.copy(anomaly, root / machine / "supplemental" / "section_00_machine_0001_.wav")
    grown = read_dataset([root])
    assert grown.select(split="supplemental")
    assert {one.clip.path.name: one.score for one in score_run(run, grown)} == before


def test_data_without_test_clips_is_refused(run: Path, table: ClipTable) -> None:
    with pytest.raises(DataSetError, match="no test clips"):
        score_run(run, ClipTable(table.select(split="train")))


def test_machine_without_training_clips_is_named(run: Path, table: ClipTable) -> None:
    clips = (*table.select(machine="hummer"), *table.select(machine="singer", split="test"))
    with pytest.raises(DataSetError, match="singer"):
        score_run(run, ClipTable(clips))


def test_run_that_is_not_trained_is_refused(table: ClipTable, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no trained embedder"):
        score_run(tmp_path, table)


def test_clips_are_grouped_by_machine_in_their_order(table: ClipTable) -> None:
    grouped = by_machine(table.clips[::-1])
    assert list(grouped) == ["hummer", "singer"]
    assert grouped["singer"] == list(table.select(machine="singer"))[::-1]
