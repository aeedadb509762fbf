"""Trained separator → separator.onnx: one window in, the machine's own sound out; compared with torch, int8 within a budget.

The error that counts is the separation's: mixtures are made anew from what the fp32 model separated, so that their truth is known, and int8
may lose only so much SI-SDR of it. It knows no bundle.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asd_daemon.errors import ExportError
from asd_daemon.judge.sessions import EXTERNAL_DATA, SeparatorSession
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.separator import Separator

F32 = NDArray[np.float32]
MAX_DIFFERENCE = 1e-3  # of the waveform's peak; float32 sums in another order, a wrong graph differs by 0.1 and more
TIMED_RUNS = 5
TINY = 1e-12


@dataclass(frozen=True)
class SeparatorBudget:
    """What int8 must hold."""

    loss_db: float = 0.5
    """Largest mean loss of SI-SDR against fp32."""
    megabytes: float = 4.0


@dataclass(frozen=True)
class SeparatorFigures:
    """What was measured."""

    torch_difference: float
    """ONNX fp32 against torch: largest difference of a sample, as a share of the loudest."""
    fp32_megabytes: float
    fp32_ms: float
    int8_megabytes: float
    int8_ms: float
    """Milliseconds for a window on one thread: the fastest of a few runs."""
    loss_db: float
    """Mean SI-SDR that int8 loses against fp32."""


class _Machine(nn.Module):
    """The machine alone."""

    def __init__(self, separator: Separator) -> None:
        super().__init__()
        self.separator = separator

    def forward(self, mixture: Tensor) -> Tensor:
        """(1, samples) → (1, samples)."""
        sources: Tensor = self.separator(mixture)
        return sources[:, 0]


def export_separator(
    network: Separator, fp32: Path, int8: Path | None, windows: Sequence[F32], budget: SeparatorBudget
) -> SeparatorFigures | None:
    """Write the separator as ONNX.

    Args:
        network: in evaluation mode.
        fp32: where the unquantised graph is written.
        int8: where the quantised one is written; None: it isn't made.
        windows: normal windows (160 000,), two at least, to compare on.
        budget: what int8 must hold.

    Returns:
        what was measured; None where int8 isn't made.

    Raises:
        ExportError: ONNX differs from torch, or int8 misses its budget; by how much.
    """
    if len(windows) < 2:
        raise ExportError(f"a separator is compared on two windows at least, got {len(windows)}")
    _trace(_Machine(network).eval(), fp32)
    session = SeparatorSession(fp32)
    difference = max(_difference(network, session, window) for window in windows[:4])
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"{fp32.name}: ONNX differs from torch by {difference:.2g} of the peak (allowed {MAX_DIFFERENCE:g})"
        )
    if int8 is None:
        return None
    _quantize(fp32, int8)
    quantised = SeparatorSession(int8)
    loss_db = _loss_db(session, quantised, windows)
    figures = SeparatorFigures(
        difference,
        fp32.stat().st_size / 1e6,
        _window_ms(session, windows[0]),
        int8.stat().st_size / 1e6,
        _window_ms(quantised, windows[0]),
        loss_db,
    )
    if not loss_db <= budget.loss_db or figures.int8_megabytes > budget.megabytes:
        raise ExportError(
            f"int8 separator loses {loss_db:.2f} dB SI-SDR (allowed {budget.loss_db:g}) at {figures.int8_megabytes:.2f} MB"
            f" (allowed {budget.megabytes:g}); export with --fp32, or train longer"
        )
    return figures


def _trace(network: nn.Module, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals; what counts is compared
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        sample = torch.randn(1, WINDOW_SAMPLES, generator=torch.Generator().manual_seed(0)) * 0.1
        program = torch.onnx.export(
            network, (sample,), dynamo=True, verbose=False, input_names=["heard"], output_names=["machine"]
        )
    if program is None:
        raise ExportError("torch.onnx gave no program")
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        traced = Path(folder) / "traced.onnx"
        onnx.save_model(_stripped(program.model_proto), str(traced), save_as_external_data=False)
        _fold(traced, file)
    if EXTERNAL_DATA in file.read_bytes():
        raise ExportError(f"{file.name}: names external data, which the edge refuses")


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without the exporter's stack traces (1.2 MB) and its own shapes of inner values."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    return model


def _fold(source: Path, target: Path) -> None:
    """Onnxruntime's basic optimisations, saved: they turn transposed weights into plain ones, which alone can be quantised."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _quantize(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            str(source),
            str(target),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.getLogger().setLevel(before)


def _difference(network: Separator, session: SeparatorSession, window: F32) -> float:
    with torch.inference_mode():
        expected = network(torch.from_numpy(window[None]))[0, 0].numpy()
    found = session.separate(window)
    return float(np.abs(found - expected).max() / max(float(np.abs(window).max()), TINY))


def _loss_db(fp32: SeparatorSession, int8: SeparatorSession, windows: Sequence[F32]) -> float:
    """Mean SI-SDR that int8 loses, over the machine of each window mixed with the noise of the next."""
    machines = [fp32.separate(window) for window in windows]
    losses = []
    for n, machine in enumerate(machines):
        other = (n + 1) % len(windows)
        mixture = np.asarray(machine + (windows[other] - machines[other]), np.float32)
        losses.append(si_sdr_db(fp32.separate(mixture), machine) - si_sdr_db(int8.separate(mixture), machine))
    return float(np.mean(losses))


def si_sdr_db(estimate: F32, truth: F32) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., ICASSP 2019); (N,) both."""
    estimate64, truth64 = estimate.astype(np.float64), truth.astype(np.float64)
    target = truth64 * (estimate64 @ truth64) / max(float(truth64 @ truth64), TINY)
    error = estimate64 - target
    return float(10 * np.log10((target @ target + TINY) / (error @ error + TINY)))


def _window_ms(session: SeparatorSession, window: F32) -> float:
    times = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        session.separate(window)
        times.append(time.perf_counter() - start)
    return min(times) * 1000
