"""Ω of models on a test split: which clips are compared, and what a model that hears nothing gets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from asd_export.held_out import TestSplit
from asd_trainer.data.dataset import ClipTable, read_dataset
from rig.recordings import write_recordings

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    root = tmp_path_factory.mktemp("split")
    return read_dataset([write_recordings(root, {"fan": 0.0, "press-3": 1.0}, train=3, test=2)])


def bands(window: np.ndarray) -> np.ndarray:
    """Levels of 100 bands, of unit length: the whistle of a failing machine is far from them."""
    levels = np.abs(np.fft.rfft(window)[1:80_001]).reshape(100, -1).mean(axis=1)
    return np.asarray(levels / np.linalg.norm(levels), np.float32)


def hear(window: np.ndarray) -> Mapping[str, np.ndarray]:
    deaf = np.ones((1, 100), np.float32) / 10
    keen = bands(window)[None]
    return {"keen": keen, "deaf": deaf, "both": np.concatenate([deaf, keen])}


def test_omegas_of_models_are_told_apart_and_separated_sound_is_added(table: ClipTable) -> None:
    split = TestSplit.of(table)
    assert split is not None
    told: list[tuple[int, int]] = []
    unread: list[str] = []
    found = split.omegas(hear, unread, lambda done, of: told.append((done, of)))
    assert found["keen"] == pytest.approx(100)
    assert found["deaf"] == pytest.approx(50, abs=5)
    assert found["both"] == pytest.approx(100)
    assert told[-1] == (14, 14)
    assert not unread


def test_test_split_of_few_clips_decides_nothing(table: ClipTable, tmp_path: Path) -> None:
    split = TestSplit.of(table)
    assert split is not None
    assert not split.decides
    many = TestSplit(split.train, split.test * 5)
    assert many.decides


def test_test_split_without_anomalies_is_none(table: ClipTable) -> None:
    normal = ClipTable(tuple(clip for clip in table.clips if clip.label == "normal"))
    assert TestSplit.of(normal) is None


def test_omegas_clip_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    table = read_dataset([write_recordings(tmp_path, {"fan": 0.0}, train=3, test=2)])
    split = TestSplit.of(table)
    assert split is not None
    split.test[0].path.write_bytes(b"no sound")
    unread: list[str] = []
    found = split.omegas(hear, unread, lambda *_: None)
    assert len(unread) == 1
    assert found["keen"] == pytest.approx(100)
