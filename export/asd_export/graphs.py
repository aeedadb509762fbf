"""Checkpoint → ONNX fp32, compared with torch at once: a graph that differs from its network is refused.

Owns the tracing and the comparison. It knows no quantisation and no bundle.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle.bundle import ModelEntry
from asd_daemon.judge.scoring.scorer import EmbedderSession
from asd_export.joined_graphs import joined
from asd_trainer.networks.encoders.onnx_graph import OnnxEncoder
from asd_trainer.networks.frozen import FrozenEmbedder

F32 = NDArray[np.float32]

INPUTS = {3: "features", 2: "waveform"}  # by the number of axes
OUTPUT = "embedding"
# float32 sums in another order; a wrong graph differs by 1e-2 and more
MAX_DIFFERENCE = 1e-4


def export_embedder(network: torch.nn.Module, file: Path, features: F32) -> float:
    """Write the embedder as an ONNX graph with a free batch axis and compare it with torch.

    Args:
        network: in evaluation mode; (B, 1024, 128) or (B, 160 000) float32 → (B, D) of unit length.
        file: where to write; nothing is left there when the comparison fails.
        features: float32 (N, 1024, 128) or (N, 160 000), N ≥ 2 real clips to compare on.

    Returns:
        the largest absolute difference of any component of any embedding.

    Raises:
        ExportError: the difference is above 1e-4.
    """
    sample, name = torch.from_numpy(features[:2]), INPUTS[features.ndim]
    if isinstance(network, FrozenEmbedder) and isinstance(network.encoder, OnnxEncoder):
        model = joined(network, network.encoder, sample, traced, (name, OUTPUT))
    else:
        model = traced(network, sample, name, OUTPUT)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(stripped(model), str(file), save_as_external_data=False)
    difference = compare(network, file, features)
    if difference > MAX_DIFFERENCE:
        file.unlink()
        raise ExportError(
            f"{file.name}: ONNX differs from torch by {difference:.2g} (allowed {MAX_DIFFERENCE:g}); nothing was written"
        )
    return difference


def traced(network: torch.nn.Module, sample: torch.Tensor, takes: str, gives: str) -> onnx.ModelProto:
    """A network as an ONNX graph with a free batch axis.

    Raises:
        ExportError: torch gave none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own internals; what counts is compared afterwards
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            (sample,),
            dynamo=True,
            verbose=False,
            input_names=[takes],
            output_names=[gives],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},),
        )
    if program is None:
        raise ExportError("torch.onnx gave no program")
    return program.model_proto


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's stack traces, which name folders of the machine that it was made on, and without its own shapes of
    inner values, which contradict onnx's inference.
    """
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    return model


def compare(network: torch.nn.Module, file: Path, features: F32) -> float:
    """The largest absolute difference between torch's embeddings and those of an ONNX file, over clips (N, …)."""
    with torch.inference_mode():
        expected = np.concatenate([network(torch.from_numpy(f[None])).numpy() for f in features])  # (N, D)
    session = EmbedderSession(file, ModelEntry(file=file.name, precision="fp32", dim=expected.shape[1]))
    found = np.concatenate([session.embed(f[None]) for f in features])
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found - expected).max())


def weights_are_inside(file: Path) -> bool:
    """Whether an ONNX file holds all its weights itself, with no external data beside it."""
    model = onnx.load(str(file), load_external_data=False)
    return all(not t.external_data for t in model.graph.initializer)
