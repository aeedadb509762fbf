"""Small ONNX graphs as other programs leave them: of waveforms, patches and log-mels, with one output or several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 13  # older than what torch traces


def write_matrix_graph(
    path: Path, takes: Sequence[int | str], channels: int, *, second_output: bool = False, seed: int = 0
) -> Path:
    """A graph that multiplies the last axis of what it takes, (…, N), with a matrix (N, C) of its own; gives the path."""
    width = takes[-1] if isinstance(takes[-1], int) else 160_000
    matrix = np.random.default_rng(seed).normal(0, width**-0.5, (width, channels)).astype(np.float32)
    gives = [*takes[:-1], channels] if len(takes) > 1 else [channels]
    nodes = [helper.make_node("MatMul", ["sound", "matrix"], ["tokens"])]
    outputs = [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, gives)]
    if second_output:
        nodes.append(helper.make_node("Tanh", ["tokens"], ["squashed"]))
        outputs.append(helper.make_tensor_value_info("squashed", TensorProto.FLOAT, gives))
    sound = helper.make_tensor_value_info("sound", TensorProto.FLOAT, list(takes))
    graph = helper.make_graph(nodes, "foreign", [sound], outputs, [numpy_helper.from_array(matrix, "matrix")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path
