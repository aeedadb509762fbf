"""A window of sound → its anomaly score: log-mel → embedder → nearest normal neighbour. The ONNX sessions live here.

Score = cosine distance to the nearest embedding of normal sound (paper, section 2.3, k = 1); higher is more abnormal. It knows no
microphone and keeps no history; whether a score is an alarm is `alarm`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from asd_daemon.errors import BundleError, RecordingError
from asd_daemon.judge.bundle import Bundle, ModelEntry
from asd_daemon.judge.calibration import window_exceedance
from asd_daemon.judge.mel import EAT_FRAMES, MEL_BINS, eat_input, log_mel
from asd_daemon.waveform import WINDOW_S, WINDOW_SAMPLES, read_waveform

F32 = NDArray[np.float32]

# The alarm that a threshold is made for where no configuration says otherwise
DEFAULT_EXCEEDANCE = window_exceedance(false_alarms_per_week=1, open_after=2, of=3, hop_s=WINDOW_S)


@dataclass(frozen=True)
class WindowScore:
    """What a window scored."""

    score: float
    """The sum of the distances; 0 and up, higher is more abnormal."""
    threshold: float
    """Above it the window counts as anomalous."""
    anomalous: bool
    heard: float
    """1 - cosine of the heard sound's embedding and its nearest normal neighbour, 0 to 2."""
    separated: float | None = None
    """The same for the separated machine sound; None where the machine does without."""


class EmbedderSession:
    """The embedder's ONNX session, one thread and no spinning; several machines may share it."""

    def __init__(self, file: Path, entry: ModelEntry) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as e:  # onnxruntime's errors share no base class of their own
            raise BundleError(f"{file}: onnxruntime can't load this model: {str(e).splitlines()[0]}") from e
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or list(inputs[0].shape[1:]) != [EAT_FRAMES, MEL_BINS]:
            found = [i.shape for i in inputs]
            raise BundleError(f"{file}: must take one input (B, {EAT_FRAMES}, {MEL_BINS}), takes {found}")
        if len(outputs) != 1 or outputs[0].shape[-1] != entry.dim:
            found = [o.shape for o in outputs]
            raise BundleError(f"{file}: must give one output (B, {entry.dim}), gives {found}")
        self._input = inputs[0].name

    def embed(self, features: F32) -> F32:
        """Embeddings float32 (B, D) of unit length from normalised log-mels float32 (B, 1024, 128)."""
        (embeddings,) = self._session.run(None, {self._input: features})
        return np.asarray(embeddings, np.float32)

    def embed_waveforms(self, waveforms: Sequence[F32]) -> F32:
        """Embeddings (B, D) of windows of 160 000 samples, one at a time: a window alone is what the edge hears."""
        return np.concatenate([self.embed(window_features(w)[None]) for w in waveforms])


def window_features(waveform: F32) -> F32:
    """Normalised log-mel float32 (1024, 128) of one window.

    Raises:
        RecordingError: not a finite float32 window of 160 000 samples: bad input never becomes a score.
    """
    if waveform.shape != (WINDOW_SAMPLES,):
        raise RecordingError(f"a window has {WINDOW_SAMPLES} samples (10 s at 16 kHz), got shape {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise RecordingError("a window must hold finite numbers only")
    return eat_input(log_mel(waveform))


class Scorer:
    """Scores the windows of one machine."""

    def __init__(
        self,
        bundle: Bundle,
        machine: str,
        *,
        exceedance: float = DEFAULT_EXCEEDANCE,
        session: EmbedderSession | None = None,
    ) -> None:
        """Open what a machine needs of a verified bundle.

        Args:
            bundle: what `load_bundle` gave.
            machine: its name in the bundle.
            exceedance: the probability with which a normal window may exceed the threshold.
            session: an embedder already open for another machine of the same bundle.

        Raises:
            UnknownMachineError: the bundle does not know the machine.
            BundleError: a model, index or calibration that can't be used.
        """
        self.machine = machine
        self.threshold = bundle.calibration(machine).threshold(exceedance)
        self._index = bundle.index(machine)
        self._session = session or open_embedder(bundle)

    def score(self, waveform: F32) -> WindowScore:
        """Score one window, float32 (160 000,).

        Raises:
            RecordingError: not a finite window of that length.
        """
        embedding = self._session.embed(window_features(waveform)[None])  # (1, D)
        distances, _ = self._index.nearest(embedding)
        heard = float(distances[0, 0])
        return WindowScore(score=heard, threshold=self.threshold, anomalous=heard > self.threshold, heard=heard)


def open_embedder(bundle: Bundle) -> EmbedderSession:
    """The bundle's embedder, ready to run."""
    return EmbedderSession(bundle.path / bundle.manifest.embedder.file, bundle.manifest.embedder)


def self_test(bundle: Bundle) -> int:
    """Score the bundle's reference sounds with every machine they have a score for, as this box computes it.

    Returns:
        how many scores were compared.

    Raises:
        BundleError: a score differs by more than its tolerance: this box computes something else than the exporter did.
    """
    session = open_embedder(bundle)
    compared = 0
    for reference in bundle.manifest.reference:
        file = bundle.path / reference.file
        embedding = session.embed_waveforms([read_waveform(file)])
        for machine, expected in reference.scores.items():
            distances, _ = bundle.index(machine).nearest(embedding)
            found = float(distances[0, 0])
            if abs(found - expected) > reference.tolerance:
                raise BundleError(
                    f"{file}: scores {found:.4f} for {machine} here, but {expected:.4f} ± {reference.tolerance:g} where the"
                    " bundle was made; onnxruntime on this processor computes something else"
                )
            compared += 1
    return compared
