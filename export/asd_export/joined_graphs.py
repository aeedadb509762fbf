"""A graph of another program, what comes before it, and the pooling of its tokens → one graph.

Owns the joining. What goes in and what comes out is asd_trainer.networks.encoders.onnx_graph's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import torch
from onnx import compose, helper, numpy_helper, version_converter
from torch import Tensor, nn

from asd_daemon.errors import ExportError
from asd_trainer.networks.encoders.onnx_graph import OnnxEncoder
from asd_trainer.networks.frozen import FrozenEmbedder

TOKENS = "tokens_of_windows"
Traced = Callable[[nn.Module, Tensor, str, str], onnx.ModelProto]
"""A network, an input, and the names of input and output → its graph with a free batch axis."""


class _Before(nn.Module):
    """Windows (B, …) → what the graph takes of them."""

    def __init__(self, encoder: OnnxEncoder) -> None:
        super().__init__()
        self.front_end = encoder.front_end
        self.served, self.axes = encoder.size.served, encoder.size.input_axes

    def forward(self, sound: Tensor) -> Tensor:
        """Serve."""
        served: Tensor = self.front_end(sound)
        if self.served == "waveform":
            pieces = self.axes[0] if len(self.axes) > 1 else 1
            served = served[:, : pieces * self.axes[-1]]
        return served.reshape(-1, *self.axes[1:])


class _After(nn.Module):
    """Tokens (B, T, F, C) → embeddings (B, D)."""

    def __init__(self, network: FrozenEmbedder) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        """Pool."""
        return self.network.embedded(tokens)


def joined(
    network: FrozenEmbedder, encoder: OnnxEncoder, sample: Tensor, traced: Traced, names: tuple[str, str]
) -> onnx.ModelProto:
    """The whole of an embedder whose encoder is an ONNX graph; `names` of its input and output.

    Raises:
        ExportError: the graph can't be brought to the others' version of the operators, or does not fit between them.
    """
    before = traced(_Before(encoder).eval(), sample, names[0], "served")
    after = traced(_After(network).eval(), torch.zeros(2, *encoder.size.tokens), "tokens", names[1])
    try:
        inner = _with_token_axes(onnx.load_model_from_string(encoder.graph.numpy().tobytes()), encoder)
        version = max(_version(model) for model in (before, inner, after))
        before, inner, after = (version_converter.convert_version(model, version) for model in (before, inner, after))
        for model in (before, inner, after):
            model.ir_version = max(before.ir_version, inner.ir_version, after.ir_version)
        served = [("served", f"encoder.{inner.graph.input[0].name}")]
        whole = compose.merge_models(before, compose.add_prefix(inner, "encoder."), io_map=served)
        pooled = compose.add_prefix(after, "pooling.", rename_outputs=False)
        return compose.merge_models(whole, pooled, io_map=[(f"encoder.{TOKENS}", "pooling.tokens")])
    except (ValueError, RuntimeError, onnx.checker.ValidationError) as e:
        raise ExportError(
            f"the encoder's graph can't be joined with its front end and pooling: {str(e).splitlines()[0]}"
        ) from e


def _with_token_axes(model: onnx.ModelProto, encoder: OnnxEncoder) -> onnx.ModelProto:
    """The graph with the one output that is taken, as tokens (B, T, F, C)."""
    axes = numpy_helper.from_array(np.array([-1, *encoder.size.tokens], np.int64), f"{TOKENS}.axes")
    model.graph.initializer.append(axes)
    model.graph.node.append(helper.make_node("Reshape", [encoder.size.output, axes.name], [TOKENS]))
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(TOKENS, onnx.TensorProto.FLOAT, ["batch", *encoder.size.tokens])
    )
    return model


def _version(model: onnx.ModelProto) -> int:
    return next(int(each.version) for each in model.opset_import if each.domain in {"", "ai.onnx"})
