"""A run's networks behind the face that the edge's models have, so that listening's own code judges with them.

Owns nothing but the face: what is heard and how it is judged is asd_daemon.judge's, the networks are the run's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S
from asd_trainer.networks.complexity import Complexity, count, of_embedder
from asd_trainer.networks.embedder import AnyEmbedder, load_embedder
from asd_trainer.networks.separator import Separator
from asd_trainer.separate.losses import separate
from asd_trainer.separate.stage import separated_machines
from asd_trainer.separate.training import load_separator

F32 = NDArray[np.float32]


class NetworkEmbedder:
    """An embedder in evaluation mode."""

    def __init__(self, network: AnyEmbedder) -> None:
        self._network = network
        self.hears_waveforms = network.hears == "waveform"

    def embed(self, sound: F32) -> F32:
        """Embeddings float32 (B, D) of unit length from normalised log-mels (B, 1024, 128) or windows (B, 160 000), both float32."""
        with torch.inference_mode():
            rows: F32 = self._network(torch.from_numpy(sound)).numpy()
        return rows


class NetworkSeparator:
    """A separator in evaluation mode."""

    def __init__(self, network: Separator) -> None:
        self._network = network

    def separate(self, waveform: F32) -> F32:
        """The machine's own sound float32 (160 000,) in a window of that length."""
        machine: F32 = separate(self._network, waveform)[0] if waveform.any() else waveform
        return machine


def run_complexity(run: Path) -> Complexity:
    """What a run's networks cost, averaged over 10 s windows: the embedder, and where it separates, separator and a second embedding.

    Raises:
        StageError: the run holds no trained embedder, or a separator that is begun and not done.
    """
    network = load_embedder(run)
    embedder = of_embedder(network, network.hears)
    names = sorted({found.network for found in separated_machines(run).values()})
    separators = [count(load_separator(run / "stages" / "separate" / name), SAMPLE_RATE_HZ, WINDOW_S) for name in names]
    heard = 2 if separators else 1  # of one machine: its sound and what a separator makes of it
    return Complexity(
        embedder.parameters + sum(one.parameters for one in separators),
        heard * embedder.macs_per_second + max((one.macs_per_second for one in separators), default=0.0),
    )


def run_extractor(run: Path, machine: str) -> tuple[FeatureExtractor, bool]:
    """What a run hears a machine with on the CPU, and whether it separates the machine.

    Raises:
        StageError: the run holds no trained embedder, or a separator that is begun and not done.
    """
    machines = separated_machines(run)
    separator = None
    if machine in machines:
        separator = NetworkSeparator(load_separator(run / "stages" / "separate" / machines[machine].network))
    return FeatureExtractor(NetworkEmbedder(load_embedder(run)), separator), separator is not None
