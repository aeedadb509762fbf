"""int8 within a budget, by the fastest way, or a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle.bundle import ModelEntry
from asd_daemon.judge.scoring.scorer import EmbedderSession
from asd_export.accuracy import EmbedderAccuracy
from asd_export.graphs import export_embedder
from asd_export.quantize import Budget, Candidate, quantize
from asd_export.rounding import Rounding
from rig.networks import tiny_embedder, tiny_features

pytestmark = pytest.mark.torch

DIM = 16


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("fp32") / "embedder.onnx"
    export_embedder(tiny_embedder(), file, tiny_features(2))
    return file


def write_two_matrices(file: Path) -> Path:
    """An embedder of two matrices: `coarse` mixes bands of very different size, which int8 blurs; `fine` does not."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(128, DIM)).astype(np.float32)
    coarse[0] *= 3000  # one band's weights, of which nothing is heard, set the scale of every channel
    fine = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0].astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "deaf"], ["masked"]),
            helper.make_node("MatMul", ["masked", "coarse"], ["mixed"], name="coarse"),
            helper.make_node("Gemm", ["mixed", "fine", "shift"], ["turned"], name="fine"),
            helper.make_node("LpNormalization", ["turned"], ["embedding"], axis=1, p=2),
        ],
        "two",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 1024, 128])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM])],
        [
            numpy_helper.from_array(coarse, "coarse"),
            numpy_helper.from_array(fine, "fine"),
            numpy_helper.from_array(np.full(DIM, 0.1, np.float32), "shift"),
            numpy_helper.from_array((np.arange(128) > 0).astype(np.float32), "deaf"),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(file))
    return file


class Fixed:
    """A yardstick of stated speeds, to see what is chosen."""

    def __init__(self, inner: EmbedderAccuracy, ms: dict[str, float]) -> None:
        self._inner, self._ms = inner, ms

    @property
    def inputs(self) -> Sequence[np.ndarray]:
        return self._inner.inputs

    def measure(self, way: str, file: Path) -> Candidate:
        return replace(self._inner.measure(way, file), window_ms=self._ms[way])

    def error(self, file: Path) -> float:
        return self._inner.error(file)

    def objection(self, candidate: Candidate) -> str | None:
        return self._inner.objection(candidate)


LENIENT = Budget(score_error=5.0, size=1.5)


def test_quantize_within_budget_is_written_and_measured(fp32: Path, tmp_path: Path) -> None:
    features = tiny_features(12)
    yardstick = EmbedderAccuracy(fp32, features, DIM, LENIENT)
    chosen, table = quantize(fp32, tmp_path / "int8.onnx", yardstick, LENIENT)
    assert [c.way for c in table] == ["fp32", "dynamic", "static"]
    assert chosen in table
    assert table[0].score_error == 0
    assert (tmp_path / "int8.onnx").stat().st_size == chosen.bytes
    entry = ModelEntry(file="x", precision="int8", dim=DIM)
    int8 = EmbedderSession(tmp_path / "int8.onnx", entry).embed(features[:4])
    full = EmbedderSession(fp32, entry).embed(features[:4])
    assert np.all((int8 * full).sum(axis=1) > 0.95)  # either way may be the faster one here: 0.978 and more
    assert np.any(int8 != full)


@pytest.mark.parametrize("fastest", ["dynamic", "static"])
def test_quantize_the_faster_way_is_kept(fp32: Path, tmp_path: Path, fastest: str) -> None:
    ms = {"fp32": 1.0, "dynamic": 3.0, "static": 3.0, fastest: 2.0}
    yardstick = Fixed(EmbedderAccuracy(fp32, tiny_features(8), DIM, LENIENT), ms)
    chosen, _ = quantize(fp32, tmp_path / "int8.onnx", yardstick, LENIENT)
    assert chosen.way == fastest


def test_quantize_missed_budget_names_each_reason(fp32: Path, tmp_path: Path) -> None:
    budget = Budget(score_error=1e-9)
    yardstick = EmbedderAccuracy(fp32, tiny_features(6), DIM, budget)
    reason = r"dynamic: score error .* allowed 0\.0%, even with \d+ of \d+ in fp32; static: score error .*--fp32"
    with pytest.raises(ExportError, match=reason):
        quantize(fp32, tmp_path / "int8.onnx", yardstick, budget)
    assert not (tmp_path / "int8.onnx").exists()


def test_quantize_too_large_a_file_is_refused(fp32: Path, tmp_path: Path) -> None:
    budget = Budget(score_error=5.0, size=0.01)
    yardstick = EmbedderAccuracy(fp32, tiny_features(6), DIM, budget)
    with pytest.raises(ExportError, match=r"of the fp32 size, allowed 1%"):
        quantize(fp32, tmp_path / "int8.onnx", yardstick, budget)


def test_quantize_operator_that_rounds_badly_stays_fp32(tmp_path: Path) -> None:
    fp32 = write_two_matrices(tmp_path / "two.onnx")
    budget = Budget(score_error=0.2, size=2.0)
    told: list[tuple[int, int]] = []
    yardstick = EmbedderAccuracy(fp32, tiny_features(12), DIM, budget)
    _, table = quantize(fp32, tmp_path / "int8.onnx", yardstick, budget, told=lambda done, of: told.append((done, of)))
    dynamic = table[1]
    assert dynamic.refused is None
    assert [name for name, _ in dynamic.kept_fp32] == ["coarse"]
    assert dynamic.kept_fp32[0][1] > 0.01
    assert dynamic.score_error_share <= 0.2
    assert told[-1] == (2, 2)


def test_quantize_omega_that_falls_is_refused_where_the_split_decides(fp32: Path, tmp_path: Path) -> None:
    yardstick = EmbedderAccuracy(fp32, tiny_features(8), DIM, LENIENT)
    omegas = {"fp32": 80.0, "dynamic": 79.2, "static": 79.6}
    chosen, table = quantize(fp32, tmp_path / "int8.onnx", yardstick, LENIENT, omegas=lambda _: omegas)
    assert chosen.way == "static"
    assert table[1].refused == "Ω of the test split falls from 80.0 to 79.2, allowed 0.5 points"
    assert [c.omega for c in table] == [80.0, 79.2, 79.6]
    _, table = quantize(fp32, tmp_path / "int8.onnx", yardstick, LENIENT, omegas=lambda _: omegas, holds_omega=False)
    assert table[1].refused is None


def test_rounding_writes_the_named_operators_only(tmp_path: Path) -> None:
    fp32 = write_two_matrices(tmp_path / "two.onnx")
    rounding = Rounding(fp32, tmp_path, [one[None] for one in tiny_features(4)])
    assert set(rounding.operators("static")) == {"coarse", "fine"}
    for way in ("dynamic", "static"):
        rounding.write(way, tmp_path / f"{way}.onnx", ["fine"])
        weights = {t.name: t.data_type for t in onnx.load(str(tmp_path / f"{way}.onnx")).graph.initializer}
        assert weights["coarse"] == TensorProto.FLOAT
        assert TensorProto.INT8 in weights.values()
