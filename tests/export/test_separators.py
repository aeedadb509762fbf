"""The separator as ONNX: the same sound as torch's, small, and int8 within what it may lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle.onnx_sessions import SeparatorSession
from asd_export.accuracy import SeparatorAccuracy, si_sdr_db
from asd_export.quantize import Budget, quantize
from asd_export.separators import export_separator
from asd_trainer.networks.separator import Separator, SeparatorSize
from rig.bundles import healthy_noise, write_tiny_separator

pytestmark = pytest.mark.torch

SIZE = SeparatorSize("small", "fourier", 512, 256, 257, 8, 1, 1, 1, 2, 5, 40, dropout=0.0, layer_scale=0.1)


@pytest.fixture(scope="module")
def network() -> Separator:
    torch.manual_seed(0)
    return Separator(SIZE).eval()


@pytest.fixture(scope="module")
def windows() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [healthy_noise(rng, tilt) for tilt in (0.0, 1.0, 2.0)]


@pytest.fixture(scope="module")
def fp32(network: Separator, windows: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as ONNX, to be read only."""
    file = tmp_path_factory.mktemp("separator") / "fp32.onnx"
    assert export_separator(network, file, windows) < 1e-3
    assert sorted(p.name for p in file.parent.iterdir()) == ["fp32.onnx"]
    return file


def embed(window: np.ndarray) -> np.ndarray:
    """The level of eight bands, of unit length: a coarse ear."""
    bands = np.log(np.abs(np.fft.rfft(window)[1:80_001]).reshape(8, -1).mean(axis=1) + 1e-6)
    return np.asarray(bands / np.linalg.norm(bands), np.float32)


def test_export_separator_equals_torch(fp32: Path, network: Separator, windows: list[np.ndarray]) -> None:
    with torch.inference_mode():
        expected = network(torch.from_numpy(windows[0][None]))[0, 0].numpy()
    found = SeparatorSession(fp32).separate(windows[0])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_quantize_separator_both_ways_are_measured_and_the_chosen_is_smaller(
    fp32: Path, windows: list[np.ndarray], tmp_path: Path
) -> None:
    budget = Budget(score_error=9, size=0.6, loss_db=25)
    chosen, table = quantize(fp32, tmp_path / "int8.onnx", SeparatorAccuracy(fp32, windows, embed, budget), budget)
    assert [c.way for c in table] == ["fp32", "dynamic", "static"]
    assert table[0].loss_db == 0
    assert all(c.loss_db is not None for c in table)
    assert chosen.bytes < 0.6 * table[0].bytes
    assert SeparatorSession(tmp_path / "int8.onnx").separate(windows[0]).shape == (160_000,)


def test_quantize_separator_missed_budget_says_by_how_much(windows: list[np.ndarray], tmp_path: Path) -> None:
    fp32, budget = tmp_path / "fp32.onnx", Budget(score_error=9, size=9, loss_db=-99)
    write_tiny_separator(fp32)
    with pytest.raises(ExportError, match=r"dynamic: loses .* dB SI-SDR, allowed -99"):
        quantize(fp32, tmp_path / "int8.onnx", SeparatorAccuracy(fp32, windows, embed, budget), budget)


def test_si_sdr_of_truth_with_noise_is_their_ratio() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100_000)
    noise = rng.normal(size=100_000)
    noise -= truth * (noise @ truth) / (truth @ truth)
    estimate = 3 * (truth + 0.1 * noise)
    expected = 20 + 10 * np.log10((truth @ truth) / (noise @ noise))
    assert si_sdr_db(estimate.astype(np.float32), truth.astype(np.float32)) == pytest.approx(expected, abs=1e-3)
