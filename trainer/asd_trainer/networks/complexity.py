"""What a network costs: parameters, and multiply-accumulates for a second of sound.

Owns the counting. It runs no arithmetic: the network is put on torch's meta device, where tensors have shapes only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_daemon.waveform import WINDOW_S, WINDOW_SAMPLES
from asd_trainer.networks.encoders.interface import Hears

_COUNTED_S = 1.0  # attention grows with the square of the length, so it has to be said; published figures count 1 s


@dataclass(frozen=True)
class Complexity:
    """The cost of a network at listening time."""

    parameters: int
    """Numbers that are learned and used when listening; heads that exist in training only are not counted."""
    macs_per_second: float
    """Multiply-accumulates of matrix products and convolutions, for one second of sound."""


def count(network: nn.Module, sample_rate_hz: int, seconds: float = _COUNTED_S) -> Complexity:
    """Count a network that takes waveforms (B, samples); what lies under its attribute `auxiliary` is left out.

    Element-wise work (norms, gates, softmax) is not counted, as is usual. `seconds` is the length of the sound, over
    which the cost is averaged.
    """
    return _count(network, (1, round(seconds * sample_rate_hz)), seconds)


def of_embedder(network: nn.Module, hears: Hears) -> Complexity:
    """Count a network that takes 10 s windows, as log-mels (B, 1024, 128) or as they are (B, 160 000)."""
    shape = (1, EAT_FRAMES, MEL_BINS) if hears == "features" else (1, WINDOW_SAMPLES)
    return _count(network, shape, WINDOW_S)


def _count(network: nn.Module, shape: tuple[int, ...], seconds: float) -> Complexity:
    on_paper = copy.deepcopy(network).to("meta").eval()
    parameters = sum(p.numel() for name, p in on_paper.named_parameters() if not name.startswith("auxiliary."))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        on_paper(torch.zeros(shape, device="meta"))
    return Complexity(parameters, counter.get_total_flops() / 2 / seconds)
