"""Trained separator → ONNX fp32: one window in, the machine's own sound out; compared with torch at once.

Owns the tracing and the comparison. It knows no quantisation and no bundle.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle.onnx_sessions import EXTERNAL_DATA, SeparatorSession
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_export.graphs import stripped
from asd_trainer.networks.separator import Separator

F32 = NDArray[np.float32]
MAX_DIFFERENCE = 1e-3  # of the waveform's peak; float32 sums in another order, a wrong graph differs by 0.1 and more
COMPARED_WINDOWS = 4
TINY = 1e-12


class _Machine(nn.Module):
    """The machine alone."""

    def __init__(self, separator: Separator) -> None:
        super().__init__()
        self.separator = separator

    def forward(self, mixture: Tensor) -> Tensor:
        """(1, samples) → (1, samples)."""
        sources: Tensor = self.separator(mixture)
        return sources[:, 0]


def export_separator(network: Separator, fp32: Path, windows: Sequence[F32]) -> float:
    """Write the separator as ONNX and compare it with torch.

    Args:
        network: in evaluation mode.
        fp32: where the graph is written.
        windows: normal windows (160 000,) to compare on.

    Returns:
        the largest difference of a sample, as a share of the loudest.

    Raises:
        ExportError: ONNX differs from torch, by how much.
    """
    _trace(_Machine(network).eval(), fp32)
    session = SeparatorSession(fp32)
    difference = max(_difference(network, session, window) for window in windows[:COMPARED_WINDOWS])
    if not difference <= MAX_DIFFERENCE:
        raise ExportError(
            f"{fp32.name}: ONNX differs from torch by {difference:.2g} of the peak (allowed {MAX_DIFFERENCE:g})"
        )
    return difference


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
        onnx.save_model(stripped(program.model_proto), str(traced), save_as_external_data=False)
        _fold(traced, file)
    if EXTERNAL_DATA in file.read_bytes():
        raise ExportError(f"{file.name}: names external data, which the edge refuses")


def _fold(source: Path, target: Path) -> None:
    """Onnxruntime's basic optimisations, saved: they turn transposed weights into plain ones, which alone can be quantised."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _difference(network: Separator, session: SeparatorSession, window: F32) -> float:
    with torch.inference_mode():
        expected = network(torch.from_numpy(window[None]))[0, 0].numpy()
    found = session.separate(window)
    return float(np.abs(found - expected).max() / max(float(np.abs(window).max()), TINY))
