"""Fitted views in bytes: the scores that they give, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import BundleError
from asd_daemon.judge.distances.fusion import Candidate, Family, Fusion
from asd_daemon.judge.distances.fusion_file import read_fusion, write_fusion

F32 = NDArray[np.float32]
NAMES = ("a", "b")


def windows(count: int, seed: int) -> dict[str, F32]:
    """Correlated vectors, as views are: view → (N, 1, D)."""
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((200, 200)) * np.linspace(2, 0, 200) ** 2
    rows = np.random.default_rng(seed).standard_normal((count, 200)) @ mixing
    return {"a": rows[:, None].astype(np.float32), "b": rows[:, None, :60].astype(np.float32)}


@pytest.fixture(scope="module")
def fusion() -> Fusion:
    families = [Family({Candidate("a"): 1.0}, 0.7), Family({Candidate("b", shrinkage=None): 1.0}, 0.3)]
    return Fusion.fit(families, windows(60, 1), np.zeros(60, np.int64))


def test_scores_differ_by_less_than_a_hundredth_and_the_file_is_half_as_large(fusion: Fusion, tmp_path: Path) -> None:
    for packed in (False, True):
        write_fusion(fusion, tmp_path / f"{packed}.npz", packed=packed)
    again = read_fusion(tmp_path / "True.npz", NAMES, 2**20)
    heard = {view: rows[:, 0] for view, rows in windows(200, 2).items()}
    heard = {view: rows * np.linspace(0.5, 3, 200)[:, None].astype(np.float32) for view, rows in heard.items()}
    expected = fusion.score(heard)
    assert (np.abs(again.score(heard) - expected) <= 0.01 * np.maximum(expected, 1)).all()
    assert (tmp_path / "True.npz").stat().st_size < 0.65 * (tmp_path / "False.npz").stat().st_size


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("0/bank.step", None, "0/bank: its steps are missing or misshapen"),
        ("0/bank.step", np.ones(3, np.float32), "0/bank: its steps are missing or misshapen"),
        ("0/whitening.more", np.ones((4, 3), np.int8), "0/whitening.more: its steps are missing or misshapen"),
        ("0/whitening.axes", np.ones((8, 3), np.float16), "0/whitening.more: does not fit the other axes"),
        ("0/constants", np.ones(6, np.int8), "floating-point arrays, or bytes with steps"),
        ("0/bank", np.ones((60, 200), np.int16), "floating-point arrays, or bytes with steps"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    fusion: Fusion, tmp_path: Path, name: str, change: NDArray[np.generic] | None, why: str
) -> None:
    file = tmp_path / "fusion.npz"
    write_fusion(fusion, file, packed=True)
    with np.load(file) as saved:
        arrays = {key: saved[key] for key in saved.files}
    assert name in arrays
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change
    np.savez(file, **arrays)
    with pytest.raises(BundleError, match=why) as refused:
        read_fusion(file, NAMES, 2**20)
    assert str(file) in str(refused.value)
