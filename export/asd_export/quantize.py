"""fp32 ONNX → int8, within a budget: what misses it is refused, and what is kept is the fastest that holds it.

Two ways are tried: dynamic (weights int8, activations scaled at run time) and static QDQ (activations calibrated on normal clips).
The error that counts is the score's: both models embed the same clips and score them leave-one-out, each against its own bank.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle import ModelEntry
from asd_daemon.judge.index import leave_one_out
from asd_daemon.judge.scorer import EmbedderSession
from asd_export.graphs import INPUT

F32 = NDArray[np.float32]

TIMED_RUNS = 7


@dataclass(frozen=True)
class Budget:
    """What a quantised model must hold."""

    score_error: float = 0.25
    """Largest difference of any leave-one-out score from fp32's, as a share of fp32's 95th percentile score."""
    size: float = 0.5
    """Largest share of the fp32 file's bytes."""


@dataclass(frozen=True)
class Candidate:
    """One model file, as measured."""

    way: str
    bytes: int
    window_ms: float
    """Milliseconds for one window's embedding on one thread: the fastest of a few runs."""
    score_error: float
    """Largest absolute difference of a leave-one-out score from fp32's."""
    score_error_share: float
    """The same as a share of fp32's 95th percentile score."""
    refused: str | None = None
    """Why it may not be used; None where it may."""


def quantize_embedder(
    fp32: Path, target: Path, features: F32, dim: int, budget: Budget
) -> tuple[Candidate, tuple[Candidate, ...]]:
    """Try each way, measure, and write the fastest that holds the budget.

    Args:
        fp32: the ONNX graph to quantise.
        target: where the chosen model is written.
        features: float32 (N, 1024, 128), N ≥ 4 normal clips: calibration and measure.
        dim: size of the embedding.
        budget: what must hold.

    Returns:
        the chosen candidate, and all of them with fp32 first.

    Raises:
        ExportError: none holds the budget; says by how much each missed.
    """
    fp32_embeddings, fp32_ms = _embed(fp32, features, dim)
    fp32_scores = leave_one_out(fp32_embeddings)
    scale = float(np.percentile(fp32_scores, 95))
    fp32_bytes = fp32.stat().st_size
    table = [Candidate("fp32", fp32_bytes, fp32_ms, 0.0, 0.0)]
    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        _prepare(fp32, prepared)
        held: dict[str, Path] = {}
        for way, quantize in (("dynamic", _dynamic), ("static", _static)):
            file = Path(folder) / f"{way}.onnx"
            quantize(prepared, file, features)
            embeddings, ms = _embed(file, features, dim)
            error = float(np.abs(leave_one_out(embeddings) - fp32_scores).max())
            share = error / scale
            size_share = file.stat().st_size / fp32_bytes
            refused = None
            if not share <= budget.score_error:
                refused = f"score error {share:.1%} of the 95th percentile score, allowed {budget.score_error:.1%}"
            elif size_share > budget.size:
                refused = f"{size_share:.0%} of the fp32 size, allowed {budget.size:.0%}"
            else:
                held[way] = file
            table.append(Candidate(way, file.stat().st_size, ms, error, share, refused))
        if not held:
            reasons = "; ".join(f"{c.way}: {c.refused}" for c in table[1:])
            raise ExportError(f"no int8 model holds its budget ({reasons}); export with --fp32, or train longer")
        chosen = min((c for c in table if c.way in held), key=lambda c: c.window_ms)
        target.write_bytes(held[chosen.way].read_bytes())
    return chosen, tuple(table)


def _prepare(source: Path, target: Path) -> None:
    """Infer shapes and fold constants, as both quantisers want it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(source), str(target), skip_symbolic_shape=True)


def _dynamic(source: Path, target: Path, _features: F32) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _Quiet():
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


def _static(source: Path, target: Path, features: F32) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class _Clips(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._clips: Iterator[F32] = iter(features[:, None])  # each (1, 1024, 128)

        def get_next(self) -> dict[str, F32] | None:
            clip = next(self._clips, None)
            return None if clip is None else {INPUT: clip}

    with _Quiet():
        quantize_static(
            str(source),
            str(target),
            _Clips(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # a MatMul of two activations (attention) has no weight to shrink and loses most by rounding
            extra_options={"MatMulConstBOnly": True},
        )


class _Quiet:
    """onnxruntime.quantization warns on the root logger of what this module measures anyway."""

    def __enter__(self) -> None:
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self._level)


def _embed(file: Path, features: F32, dim: int) -> tuple[F32, float]:
    session = EmbedderSession(file, ModelEntry(file=file.name, precision="fp32", dim=dim))
    embeddings = np.concatenate([session.embed(f[None]) for f in features])  # (N, D)
    if not np.isfinite(embeddings).all():
        raise ExportError(f"{file.name}: gives embeddings that are not finite")
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        session.embed(features[:1])
        times.append(time.perf_counter() - start)
    return embeddings, min(times) * 1000


def weights_are_inside(file: Path) -> bool:
    """Whether an ONNX file holds all its weights itself, with no external data beside it."""
    model = onnx.load(str(file), load_external_data=False)
    return all(not t.external_data for t in model.graph.initializer)
