"""The separator as ONNX: the same sound as torch's, small, and int8 within what it may lose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asd_daemon.errors import ExportError
from asd_daemon.judge.sessions import SeparatorSession
from asd_export.separators import SeparatorBudget, export_separator, si_sdr_db
from asd_trainer.separator import Separator, SeparatorSize
from rig.bundles import healthy_noise

pytestmark = pytest.mark.torch

SIZE = SeparatorSize("small", "fourier", 512, 256, 257, 8, 1, 1, 1, 2, 5, 40, dropout=0.0, layer_scale=0.1)


@pytest.fixture(scope="module")
def network() -> Separator:
    torch.manual_seed(0)
    return Separator(SIZE).eval()


@pytest.fixture(scope="module")
def windows() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [healthy_noise(rng, tilt) for tilt in (0.0, 2.0)]


def test_export_separator_equals_torch_and_int8_is_smaller(
    network: Separator, windows: list[np.ndarray], tmp_path: Path
) -> None:
    figures = export_separator(
        network, tmp_path / "fp32.onnx", tmp_path / "int8.onnx", windows, SeparatorBudget(loss_db=20)
    )
    assert figures is not None
    assert figures.torch_difference < 1e-3
    assert figures.int8_megabytes < 0.6 * figures.fp32_megabytes
    with torch.inference_mode():
        expected = network(torch.from_numpy(windows[0][None]))[0, 0].numpy()
    found = SeparatorSession(tmp_path / "fp32.onnx").separate(windows[0])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert SeparatorSession(tmp_path / "int8.onnx").separate(windows[0]).shape == (160_000,)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fp32.onnx", "int8.onnx"]


def test_export_separator_missed_budget_says_by_how_much(
    network: Separator, windows: list[np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"MB \(allowed 1e-06\)"):
        export_separator(
            network, tmp_path / "a.onnx", tmp_path / "b.onnx", windows, SeparatorBudget(loss_db=99, megabytes=1e-6)
        )


def test_si_sdr_of_truth_with_noise_is_their_ratio() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=100_000)
    noise = rng.normal(size=100_000)
    noise -= truth * (noise @ truth) / (truth @ truth)
    estimate = 3 * (truth + 0.1 * noise)
    expected = 20 + 10 * np.log10((truth @ truth) / (noise @ noise))
    assert si_sdr_db(estimate.astype(np.float32), truth.astype(np.float32)) == pytest.approx(expected, abs=1e-3)
