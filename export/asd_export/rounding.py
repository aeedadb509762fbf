"""fp32 ONNX → int8 ONNX, in two ways, with operators that stay fp32 where they are named.

`dynamic` rounds weights for each channel and scales activations at run time; `static` (QDQ) scales activations by what was seen on
calibration inputs. Owns onnxruntime.quantization; whether a file is good enough is `quantize`'s business.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Way = Literal["dynamic", "static"]
WAYS: tuple[Way, ...] = ("dynamic", "static")
FRONT_END = "front_end."
"""In the name of every weight of an encoder's front end."""
LEAST_HALVED, MOST_HALVED = 16_384, 1e4  # numbers of a constant, and their size
OPERATORS = {"dynamic": ("MatMul", "Gemm"), "static": ("MatMul", "Gemm", "Conv")}


class Rounding:
    """One fp32 graph, prepared once, that is rounded as often as it takes."""

    def __init__(self, fp32: Path, folder: Path, inputs: Sequence[F32]) -> None:
        """Infer shapes, fold constants, and name what has no name.

        Args:
            fp32: the graph, with one input.
            folder: for files in between; the caller removes it.
            inputs: what the static way is calibrated on, each with its batch axis.
        """
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._prepared, self._ranges, self._inputs = folder / "prepared.onnx", folder / "ranges.json", inputs
        with _Quiet():
            quant_pre_process(str(fp32), str(self._prepared), skip_symbolic_shape=True)
        model = onnx.load(str(self._prepared))
        for number, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{number}"
        onnx.save_model(model, str(self._prepared))
        weights = {tensor.name for tensor in model.graph.initializer}
        # Spectra need all their bits: their logarithm shows what is 60 dB below the loudest
        self._spared = [node.name for node in model.graph.node if any(FRONT_END in name for name in node.input)]
        self._weighted = [
            (node.name, node.op_type)
            for node in model.graph.node
            if weights.intersection(node.input[1:2]) and node.name not in self._spared
        ]
        self._input = model.graph.input[0].name

    def operators(self, way: Way) -> tuple[str, ...]:
        """Names of the operators that this way rounds: those with a weight of their own."""
        return tuple(name for name, kind in self._weighted if kind in OPERATORS[way])

    def write(self, way: Way, target: Path, names: Collection[str]) -> None:
        """Write the graph with these operators in int8."""
        spared = [*self._spared, *(name for name, _ in self._weighted if name not in names)]
        # the dynamic way makes a MatMul of each Gemm first, and names it so
        spared += [f"{name}_MatMul" for name in spared]
        with _Quiet():
            (self._dynamic if way == "dynamic" else self._static)(target, spared)
        _halve_large_constants(target)

    def _dynamic(self, target: Path, spared: list[str]) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(
            str(self._prepared),
            str(target),
            op_types_to_quantize=list(OPERATORS["dynamic"]),
            nodes_to_exclude=spared,
            per_channel=True,
            weight_type=QuantType.QInt8,
        )

    def _static(self, target: Path, spared: list[str]) -> None:
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        key, inputs = self._input, self._inputs

        class _Inputs(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self._left: Iterator[F32] = iter(inputs)

            def get_next(self) -> dict[str, F32] | None:
                one = next(self._left, None)
                return None if one is None else {key: one}

        quantize_static(
            str(self._prepared),
            str(target),
            _Inputs(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS["static"]),
            nodes_to_exclude=spared,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=self._ranges,
            # a MatMul of two activations (attention) has no weight to shrink and loses most by rounding
            extra_options={"MatMulConstBOnly": True},
        )


def _halve_large_constants(file: Path) -> None:
    """Keep large constants that stay fp32 (positions, kernels of convolutions) in half precision; onnxruntime widens them when it opens.

    Weights are of the order of 1, so that 11 bits of them move nothing that 8 bits of the others do not.
    """
    model = onnx.load(str(file))
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if (
            FRONT_END in tensor.name
            or values.dtype != np.float32
            or values.size < LEAST_HALVED
            or float(np.abs(values).max()) > MOST_HALVED
        ):
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], f"{name}_widened", to=onnx.TensorProto.FLOAT))
    if not casts:
        return
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save_model(model, str(file))


class _Quiet:
    """onnxruntime.quantization warns on the root logger of what is measured anyway."""

    def __enter__(self) -> None:
        self._level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self._level)
