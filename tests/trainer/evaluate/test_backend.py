"""The paper's back end: scores of test clips from a run that was trained here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, StageError
from asd_daemon.judge.features.log_mel import eat_input, log_mel
from asd_trainer.data.dataset import Clip, ClipTable, load_clip, read_dataset
from asd_trainer.evaluate import embeddings
from asd_trainer.evaluate.backend import Separated, embed_clips, leave_one_out, score_run, scores_of
from asd_trainer.networks.embedder import AnyEmbedder, load_embedder, save_embedder
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.stages import run_stages
from rig.tones import write_tones


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_tones(tmp_path_factory.mktemp("tones"))])


@pytest.fixture(scope="module")
def run(table: ClipTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    run_stages(load_recipe("smoke", ["finetune.epochs=2", "finetune.kept_patches=0.05"]), table, run)
    return run


def one_by_one(
    embedder: AnyEmbedder, table: ClipTable, clips: object
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    with torch.no_grad():
        rows = [embedder(torch.from_numpy(eat_input(log_mel(load_clip(clip))))[None]) for clip in clips]  # type: ignore[attr-defined]
    return torch.cat(rows).numpy()


def test_embeddings_come_in_order_and_equal_those_made_one_by_one(run: Path, table: ClipTable) -> None:
    embedder = load_embedder(run)
    clips = table.select(machine="hummer")  # 20 clips: two batches, the second short
    embedded = embed_clips(embedder, clips)
    assert embedded.shape == (20, 128)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, one_by_one(embedder, table, clips), atol=2e-5)


def test_score_is_the_smallest_cosine_distance_to_the_normal_clips_of_the_machine(run: Path, table: ClipTable) -> None:
    embedder = load_embedder(run)
    scored = score_run(run, table).test
    assert {one.clip for one in scored} == set(table.select(split="test"))
    for machine in table.machines:
        bank = one_by_one(embedder, table, table.select(split="train", machine=machine))
        tested = [one for one in scored if one.clip.machine == machine]
        queries = one_by_one(embedder, table, [one.clip for one in tested])
        np.testing.assert_allclose([one.score for one in tested], 1 - (queries @ bank.T).max(axis=1), atol=1e-5)


def test_clean_and_noise_clips_stay_out_of_the_bank(run: Path, tmp_path: Path) -> None:
    root = write_tones(tmp_path / "tones", train=2, test=1)
    before = {one.clip.path.name: one.score for one in score_run(run, read_dataset([root])).test}
    for machine in ("hummer", "singer"):
        (root / machine / "supplemental").mkdir()
        anomaly = next((root / machine / "test").glob("*anomaly*"))
        shutil.copy(anomaly, root / machine / "supplemental" / "section_00_machine_0001_.wav")
    grown = read_dataset([root])
    assert grown.select(split="supplemental")
    assert {one.clip.path.name: one.score for one in score_run(run, grown).test} == before


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


def test_each_section_and_year_has_a_bank_of_its_own() -> None:
    """Two fans of other years, and two sections of one: a test clip is near its own bank only, and far from the others."""
    rng = np.random.default_rng(0)
    units = [("fan", 2020, "00"), ("fan", 2023, "00"), ("fan", 2023, "01"), ("valve", 2023, "00")]
    train, test, rows, queries = [], [], [], []
    for number, (machine, year, section) in enumerate(units):
        own = np.eye(8)[number] + 0.05 * rng.normal(size=(5, 8))
        for row in range(4):
            train.append(Clip(Path(f"{number}_{row}"), machine, section, "train", None, "normal", (), None, year))
            rows.append(own[row])
        test.append(Clip(Path(f"{number}_t"), machine, section, "test", None, "normal", (), None, year))
        queries.append(own[4])
    embedded = np.array([*rows, *queries], np.float32)
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    scores = scores_of(train, test, embedded)
    assert [one.clip for one in scores.test] == test
    for number, one in enumerate(scores.test):
        bank = embedded[4 * number : 4 * number + 4]
        assert one.score == pytest.approx(1 - float((bank @ embedded[16 + number]).max()), abs=1e-6)
    crossed = [*test[1:], test[0]]  # each clip claims to be of the next unit
    assert min(one.score for one in scores_of(train, crossed, embedded).test) > 0.5
    alone = scores_of(
        train[4:8], [test[2]], embedded[[4, 5, 6, 7, 18]]
    )  # no bank of its section: that of its machine and year
    assert alone.test[0].score == pytest.approx(1 - float((embedded[4:8] @ embedded[18]).max()), abs=1e-6)


def test_training_scores_leave_the_clip_itself_out() -> None:
    rng = np.random.default_rng(1)
    bank = rng.normal(size=(30, 6)).astype(np.float32)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    bank[7] = bank[3]  # copies are each other's neighbours
    bank[9] = bank[3]
    distances = 1 - bank.astype(np.float64) @ bank.T.astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    np.testing.assert_allclose(leave_one_out(bank), distances.min(axis=1), atol=1e-6)
    assert np.isnan(leave_one_out(bank[:1])).all()


def test_scores_carry_training_scores_and_embeddings_of_each_machine(run: Path, table: ClipTable) -> None:
    scores = score_run(run, table)
    assert {one.clip for one in scores.training} == set(table.select(split="train"))
    for machine, (clips, embedded) in scores.embeddings.items():
        assert set(clips) == set(table.select(machine=machine))
        assert embedded.shape == (len(clips), 128)
        own = [one for one in scores.training if one.clip.machine == machine]
        bank = np.stack([row for clip, row in zip(clips, embedded, strict=True) if clip.split == "train"])
        np.testing.assert_allclose([one.score for one in own], leave_one_out(bank), atol=1e-6)


def test_a_second_call_embeds_nothing_until_model_or_clips_change(
    run: Path, table: ClipTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own, ignore=shutil.ignore_patterns("scores", "features"))
    first = score_run(own, table)
    calls: list[int] = []
    original = embed_clips

    def counting(embedder: AnyEmbedder, clips: Sequence[Clip], *rest: object, channel: int = 0) -> NDArray[np.float32]:
        calls.append(len(clips))
        return original(embedder, clips, channel=channel)

    monkeypatch.setattr(embeddings, "embed_clips", counting)
    assert score_run(own, table).test == first.test
    assert calls == []
    score_run(own, ClipTable(table.select(machine="singer")))
    assert calls == [20]
    assert len(list((own / "scores").glob("*.npy"))) == 2
    (kept, *_) = (own / "scores").glob("*.npy")
    kept.write_bytes(kept.read_bytes()[:1000])  # cut off by a full disk or a crash
    changed = load_embedder(own)
    with torch.no_grad():
        next(iter(changed.parameters())).add_(0.01)
    save_embedder(changed, own / "stages" / "finetune")
    score_run(own, table)
    assert calls == [20, 40]
    (only,) = (own / "scores").glob("*.npy")  # those of the old model are gone
    assert json.loads(only.with_suffix(".json").read_text())["rows"][0]["machine"] == "hummer"


def test_the_separated_sounds_distance_is_added_for_machines_that_are_separated() -> None:
    rng = np.random.default_rng(2)
    clips = [
        Clip(Path(f"{machine}{split}{n}"), machine, "00", split, None, "normal", (), None, None)
        for split in ("train", "test")
        for machine in ("fan", "valve")
        for n in range(5)
    ]
    train, test = clips[:10], clips[10:]
    heard, alone = (rng.normal(size=(20, 6)).astype(np.float32) for _ in range(2))
    heard /= np.linalg.norm(heard, axis=1, keepdims=True)
    alone /= np.linalg.norm(alone, axis=1, keepdims=True)
    fans = [row for row, clip in enumerate(clips) if clip.machine == "fan"]
    order = rng.permutation(fans)
    separated = Separated(tuple(clips[row] for row in order), alone[order])
    plain, both = scores_of(train, test, heard), scores_of(train, test, heard, separated)
    added = np.array([b.score - p.score for p, b in zip(plain.test, both.test, strict=True)])
    np.testing.assert_allclose(added[:5], 1 - (alone[10:15] @ alone[:5].T).max(axis=1), atol=1e-6)
    assert (added[5:] == 0).all()
    added = np.array([b.score - p.score for p, b in zip(plain.training, both.training, strict=True)])
    np.testing.assert_allclose(added[:5], leave_one_out(alone[:5]), atol=1e-6)
    assert (added[5:] == 0).all()
