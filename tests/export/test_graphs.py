"""Torch against ONNX: the same embeddings, or nothing is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle.bundle import ModelEntry
from asd_daemon.judge.scoring.scorer import EmbedderSession
from asd_export.graphs import compare, export_embedder, weights_are_inside
from rig.networks import tiny_embedder, tiny_features, tiny_quantile_embedder

pytestmark = pytest.mark.torch


def test_export_embedder_any_batch_equals_torch(tmp_path: Path) -> None:
    embedder, features = tiny_embedder(), tiny_features(5)
    difference = export_embedder(embedder, tmp_path / "embedder.onnx", features)
    assert difference <= 1e-4
    session = EmbedderSession(tmp_path / "embedder.onnx", ModelEntry(file="x", precision="fp32", dim=16))
    with torch.inference_mode():
        expected = embedder(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(session.embed(features), expected, atol=1e-4)
    assert weights_are_inside(tmp_path / "embedder.onnx")
    assert b"embedder.py" not in (tmp_path / "embedder.onnx").read_bytes(), (
        "no stack traces with folders of this machine"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["embedder.onnx"]


def test_export_of_quantiles_over_time_equals_torch(tmp_path: Path) -> None:
    embedder, features = tiny_quantile_embedder(), tiny_features(3)
    assert export_embedder(embedder, tmp_path / "embedder.onnx", features) <= 1e-4
    session = EmbedderSession(tmp_path / "embedder.onnx", ModelEntry(file="x", precision="fp32", dim=16))
    with torch.inference_mode():
        expected = embedder(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(session.embed(features), expected, atol=1e-4)


def test_compare_another_network_differs(tmp_path: Path) -> None:
    features = tiny_features(3)
    export_embedder(tiny_embedder(seed=0), tmp_path / "embedder.onnx", features)
    assert compare(tiny_embedder(seed=1), tmp_path / "embedder.onnx", features) > 1e-2


def test_export_embedder_graph_that_differs_is_refused(tmp_path: Path) -> None:
    class Fickle(torch.nn.Module):
        """Gives something else each time it is asked: what a wrong translation looks like."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_embedder()
            self.calls = 0

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            embeddings: torch.Tensor = self.inner(features)
            return embeddings * (1.0 if self.calls == 1 else -1.0)

    with pytest.raises(ExportError, match="ONNX differs from torch by"):
        export_embedder(Fickle().eval(), tmp_path / "embedder.onnx", tiny_features(2))
    assert not list(tmp_path.iterdir())
