"""The models of a bundle, running: ONNX sessions of one thread, verified to take and give what the manifest says.

Owns onnxruntime, which is imported when a model is opened: machines that are judged by views need none, and it takes 20 MB. It knows no
machine and no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError, RecordingError
from asd_daemon.judge.bundle.bundle import Bundle, ModelEntry, SeparatorEntry
from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS, eat_input, log_mel
from asd_daemon.waveform import WINDOW_SAMPLES

if TYPE_CHECKING:
    import onnxruntime as ort

F32 = NDArray[np.float32]
FLOAT = "tensor(float)"
# A tensor kept outside the model names its file under this key; such a file would be neither hashed nor inside the bundle
EXTERNAL_DATA = b"location"


class EmbedderModel(Protocol):
    """Whatever embeds: a bundle's session, or the network that it was exported from."""

    @property
    def hears_waveforms(self) -> bool:
        """Whether it takes windows as they are, and not their log-mels."""

    def embed(self, sound: F32) -> F32:
        """Embeddings float32 (B, D) of unit length from normalised log-mels (B, 1024, 128) or windows (B, 160 000), both float32."""


class SeparatorModel(Protocol):
    """Whatever separates, likewise."""

    def separate(self, waveform: F32) -> F32:
        """The machine's own sound float32 (160 000,) in a window of that length."""


class EmbedderSession:
    """The embedder, one thread and no spinning; several machines may share it."""

    def __init__(self, file: Path, entry: ModelEntry) -> None:
        self._session = _open(file)
        inputs = self._session.get_inputs()
        self.hears_waveforms = len(inputs) == 1 and list(inputs[0].shape[1:]) == [WINDOW_SAMPLES]
        takes = [WINDOW_SAMPLES] if self.hears_waveforms else [EAT_FRAMES, MEL_BINS]
        _check_shape(file, self._session, takes, [entry.dim])
        self._input = inputs[0].name

    def embed(self, sound: F32) -> F32:
        """Embeddings float32 (B, D) of unit length from normalised log-mels (B, 1024, 128) or windows (B, 160 000), both float32."""
        (embeddings,) = self._session.run(None, {self._input: sound})
        return np.asarray(embeddings, np.float32)

    def embed_waveforms(self, waveforms: Sequence[F32]) -> F32:
        """Embeddings (B, D) of windows of 160 000 samples, one at a time: a window alone is what the edge hears."""
        return np.concatenate([self.embed(embedder_input(self, w)) for w in waveforms])


class SeparatorSession:
    """The separator, likewise."""

    def __init__(self, file: Path) -> None:
        self._session = _open(file)
        _check_shape(file, self._session, [WINDOW_SAMPLES], [WINDOW_SAMPLES])
        self._input = self._session.get_inputs()[0].name

    def separate(self, waveform: F32) -> F32:
        """The machine's own sound float32 (160 000,) in a window of that length."""
        (machine,) = self._session.run(None, {self._input: waveform[None]})
        return np.asarray(machine[0], np.float32)


def open_embedder(bundle: Bundle) -> EmbedderSession:
    """The bundle's embedder, ready to run.

    Raises:
        BundleError: there is none, it can't be loaded, or takes or gives something else.
    """
    entry = bundle.manifest.embedder
    if entry is None:
        raise BundleError(f"{bundle.path}: has no embedder")
    return EmbedderSession(bundle.path / entry.file, entry)


def open_separator(bundle: Bundle) -> SeparatorSession:
    """The bundle's separator, ready to run.

    Raises:
        BundleError: there is none, or as `open_embedder`.
    """
    entry: SeparatorEntry | None = bundle.manifest.separator
    if entry is None:
        raise BundleError(f"{bundle.path}: has no separator")
    return SeparatorSession(bundle.path / entry.file)


def check_window(waveform: F32) -> F32:
    """The window, if it is one.

    Raises:
        RecordingError: not a finite float32 window of 160 000 samples: bad input never becomes a score.
    """
    if waveform.shape != (WINDOW_SAMPLES,):
        raise RecordingError(f"a window has {WINDOW_SAMPLES} samples (10 s at 16 kHz), got shape {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise RecordingError("a window must hold finite numbers only")
    return waveform


def window_features(waveform: F32) -> F32:
    """Normalised log-mel float32 (1024, 128) of the common band of one window.

    Raises:
        RecordingError: as `check_window`.
    """
    return eat_input(log_mel(check_window(waveform)))


def embedder_input(embedder: EmbedderModel, waveform: F32) -> F32:
    """What an embedder takes of one window, with its batch axis.

    Raises:
        RecordingError: as `check_window`.
    """
    return (check_window(waveform) if embedder.hears_waveforms else window_features(waveform))[None]


def _open(file: Path) -> ort.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # Kernels for arm64 with SME that round each row by a scale of its own: scores would be 1 to 150 % off those of the exporter
    options.add_session_config_entry("mlas.disable_kleidiai", "1")
    options.log_severity_level = 3
    try:
        model = file.read_bytes()
    except OSError as e:
        raise BundleError(f"{file}: can't be read: {e.strerror}") from e
    if EXTERNAL_DATA in model:
        raise BundleError(f"{file}: keeps weights in another file, which a bundle's model must not")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's errors share no base class of their own
        raise BundleError(
            f"{file}: onnxruntime can't load this model: {(str(e).splitlines() or [type(e).__name__])[0]}"
        ) from e


def _check_shape(file: Path, session: ort.InferenceSession, takes: list[int], gives: list[int]) -> None:
    """Refuse a model whose one input is not (B, *takes) or whose one output is not (B, *gives), float32."""
    for what, found, wanted in (
        ("take one input", session.get_inputs(), takes),
        ("give one output", session.get_outputs(), gives),
    ):
        shapes = [list(each.shape) for each in found]
        fits = len(found) == 1 and len(shapes[0]) == 1 + len(wanted) and shapes[0][1:] == wanted
        if not fits or found[0].type != FLOAT:
            shape = ", ".join(str(n) for n in wanted)
            raise BundleError(f"{file}: must {what} (B, {shape}) float32, has {shapes}")
