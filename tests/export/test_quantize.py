"""int8 within a budget, or a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle import ModelEntry
from asd_daemon.judge.scorer import EmbedderSession
from asd_export.graphs import export_embedder
from asd_export.quantize import Budget, quantize_embedder
from rig.networks import tiny_embedder, tiny_features

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("fp32") / "embedder.onnx"
    export_embedder(tiny_embedder(), file, tiny_features(2))
    return file


def test_quantize_embedder_within_budget_is_written_and_measured(fp32: Path, tmp_path: Path) -> None:
    features = tiny_features(12)
    chosen, table = quantize_embedder(fp32, tmp_path / "int8.onnx", features, 16, Budget(score_error=5.0, size=1.5))
    assert [c.way for c in table] == ["fp32", "dynamic", "static"]
    assert chosen in table
    assert (tmp_path / "int8.onnx").stat().st_size == chosen.bytes
    entry = ModelEntry(file="x", precision="int8", dim=16)
    int8 = EmbedderSession(tmp_path / "int8.onnx", entry).embed(features[:4])
    full = EmbedderSession(fp32, entry).embed(features[:4])
    assert np.all((int8 * full).sum(axis=1) > 0.98)
    assert np.any(int8 != full)


def test_quantize_embedder_missed_budget_names_each_reason(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"dynamic: score error .* allowed 0\.0%; static: score error .*--fp32"):
        quantize_embedder(fp32, tmp_path / "int8.onnx", tiny_features(6), 16, Budget(score_error=1e-9))
    assert not (tmp_path / "int8.onnx").exists()
