"""Any ONNX graph as an encoder: run by onnxruntime, never trained.

Owns how a graph's input is served (a waveform, pieces of it, EAT's log-mels, YAMNet's patches) and its output read as tokens. The file
is kept among the weights, as bytes, so that a run folder needs nothing beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from asd_daemon.errors import StageError
from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.networks.encoders.front_ends import YamnetFrontEnd
from asd_trainer.networks.encoders.interface import EncoderShape, Hears, TokenEncoder

if TYPE_CHECKING:
    import onnxruntime as ort

Served = Literal["waveform", "features", "patches"]
PATCH = (YamnetFrontEnd.PATCH, 64)
FLOAT = "tensor(float)"
EXTERNAL_DATA = b"location"


@dataclass(frozen=True)
class OnnxSize:
    """What is known of a graph."""

    size: int
    """Bytes of its file."""
    served: Served
    input_axes: tuple[int, ...]
    """What it is given of one window: (160 000,) has no batch axis, (10, 15 600) are ten pieces; -1 for as many as a window has."""
    output: str
    """Name of the output that is taken."""
    tokens: tuple[int, int, int]
    """T, F and C of a window."""


class OnnxEncoder(TokenEncoder):
    """A graph that gives tokens, or a vector, which is one token."""

    family = "onnx"
    graph: Tensor

    def __init__(self, size: OnnxSize) -> None:
        _, bands, channels = size.tokens
        super().__init__(EncoderShape(self.family, asdict(size)), channels=channels, depth=1, bands=bands)
        self.size = size
        self.hears: Hears = "features" if size.served == "features" else "waveform"
        self.front_end = YamnetFrontEnd() if size.served == "patches" else nn.Identity()
        self.register_buffer("graph", torch.zeros(size.size, dtype=torch.uint8))

    def token_shape(self, chosen: Sequence[int] = ()) -> tuple[int, int]:
        """See `TokenEncoder`."""
        return self.bands, self.channels * max(1, len(chosen))

    def layers(self, sound: Tensor) -> list[Tensor]:
        """The tokens (B, T, F, C) of the graph's one layer, window by window."""
        rows = [self.run(self.given(window[None])) for window in sound]
        return [torch.stack(rows).to(sound.device)]

    def given(self, window: Tensor) -> Tensor:
        """What the graph is given of one window (1, …)."""
        served: Tensor = self.front_end(window)
        if self.size.served == "waveform":  # what fills no piece is left out
            served = served[:, : math.prod(self.size.input_axes)]
        return served.reshape(self.size.input_axes)

    def run(self, given: Tensor) -> Tensor:
        """Tokens (T, F, C) of one window."""
        name = self.session.get_inputs()[0].name
        (found,) = self.session.run([self.size.output], {name: given.cpu().numpy()})
        return torch.from_numpy(np.asarray(found, np.float32)).reshape(self.size.tokens)

    @cached_property
    def session(self) -> ort.InferenceSession:
        """The graph, of one thread."""
        return opened(self.graph.cpu().numpy().tobytes(), "the encoder's ONNX graph")

    def initialise(self, generator: torch.Generator) -> None:
        """A graph has its weights."""


def read_onnx_encoder(source: str) -> OnnxEncoder:
    """The encoder of `FILE` or, where the graph has several outputs, `FILE#OUTPUT`.

    Raises:
        StageError: it can't be read or run, or takes or gives something else than an encoder; names file and shapes.
    """
    name, _, output = source.partition("#")
    path = Path(name)
    try:
        content = path.read_bytes()
    except OSError as e:
        raise StageError(f"{path}: can't be read: {e.strerror}") from e
    if EXTERNAL_DATA in content:
        raise StageError(f"{path}: keeps weights in another file; save the model as one file")
    session = opened(content, str(path))
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [each.name for each in outputs]
    if len(inputs) != 1 or inputs[0].type != FLOAT:
        raise StageError(f"{path}: must take one input of float32, has {[(i.name, i.type, i.shape) for i in inputs]}")
    if output not in names and (output or len(names) > 1):
        raise StageError(f"{path}: has the outputs {', '.join(names)}: name one, for example onnx:{path}#{names[-1]}")
    served, axes = _served(path, inputs[0].shape)
    probed = OnnxSize(len(content), served, axes, output or names[0], (1, 1, 1))
    return _filled(probed, content, _probe(path, OnnxEncoder(probed), content))


def _filled(probed: OnnxSize, content: bytes, tokens: tuple[int, int, int]) -> OnnxEncoder:
    encoder = OnnxEncoder(OnnxSize(probed.size, probed.served, probed.input_axes, probed.output, tokens))
    encoder.graph.copy_(torch.from_numpy(np.frombuffer(content, np.uint8).copy()))
    return encoder.eval()


def _served(path: Path, shape: Sequence[Any]) -> tuple[Served, tuple[int, ...]]:
    """How an input of that shape is served, and what it is given of one window; an axis may be free (a name) or fixed."""
    free = [not isinstance(size, int) for size in shape]
    sizes = [size for size in shape[1:] if size != 1]  # but the batch
    if sizes == [EAT_FRAMES, MEL_BINS]:
        return "features", (1, *shape[1:])
    if sizes == list(PATCH):
        return "patches", (-1, *shape[1:])
    if all(is_free or size == 1 for is_free, size in zip(free[:-1], shape[:-1], strict=True)) and 1 <= len(shape) <= 3:
        samples = WINDOW_SAMPLES if free[-1] else int(shape[-1])
        pieces = WINDOW_SAMPLES // max(1, samples)
        batches = len(shape) > 1 and free[0]
        if pieces == 1 or (pieces > 1 and batches):
            return "waveform", (*((pieces,) if len(shape) > 1 else ()), *(1,) * (len(shape) - 2), samples)
    raise StageError(
        f"{path}: takes {list(shape)}, expected a waveform of 16 kHz (N), (B, N) or (B, 1, N), log-mels (B, {EAT_FRAMES}, {MEL_BINS}) "
        f"or patches (P, {PATCH[0]}, {PATCH[1]})"
    )


def _probe(path: Path, encoder: OnnxEncoder, content: bytes) -> tuple[int, int, int]:
    """T, F and C that the graph gives of a window of noise."""
    noise = 0.05 * torch.randn(1, WINDOW_SAMPLES, generator=torch.Generator().manual_seed(0))
    window = torch.zeros(1, EAT_FRAMES, MEL_BINS) if encoder.hears == "features" else noise
    session = opened(content, str(path))
    given = encoder.given(window).numpy()
    try:
        (found,) = session.run([encoder.size.output], {session.get_inputs()[0].name: given})
    except Exception as e:  # onnxruntime's errors share no base class of their own
        raise StageError(
            f"{path}: can't be run on {list(given.shape)}: {(str(e).splitlines() or ['no reason'])[0]}"
        ) from e
    axes = [size for n, size in enumerate(found.shape) if n or size != 1]
    if not 1 <= len(axes) <= 3 or not np.isfinite(found).all():
        raise StageError(
            f"{path}: {encoder.size.output} gives {list(found.shape)}, expected a vector or tokens (T, C) or (T, F, C)"
        )
    T = axes[0] if len(axes) > 1 else 1
    F = axes[1] if len(axes) > 2 else 1
    return T, F, axes[-1]


def opened(content: bytes, what: str) -> ort.InferenceSession:
    """A session of one thread.

    Raises:
        StageError: onnxruntime can't load it.
    """
    import onnxruntime as ort  # 60 MB that no other encoder needs

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors share no base class of their own
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise StageError(f"{what}: onnxruntime can't load this model: {reason}") from e
