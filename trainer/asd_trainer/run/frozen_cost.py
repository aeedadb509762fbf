"""What a frozen encoder costs: its parameters, its operations for a window, and its time on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asd_trainer.networks.catalogue import encoder_cost, window_of
from asd_trainer.networks.encoders.interface import TokenEncoder
from asd_trainer.networks.encoders.onnx_graph import read_onnx_encoder
from asd_trainer.networks.encoders.registry import build_encoder, named_shape
from asd_trainer.recipe.encoder import ONNX
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.step_cost import timed


@dataclass(frozen=True)
class FrozenCost:
    """Of one window of 10 s."""

    parameters: int
    macs: float | None
    """Multiply-accumulates, those of the front end among them; not counted in a graph of another program."""
    seconds: float
    """On the CPU."""

    def words(self) -> str:
        """For a plan."""
        operations = "" if self.macs is None else f", {self.macs / 1e9:.2f} GMAC a window"
        return f"{self.parameters / 1e6:.1f} M parameters{operations}"


def frozen_cost(recipe: Recipe) -> FrozenCost:
    """The cost of a recipe's encoder; runs it a few times, where it has no weights yet with some that are of no use.

    Raises:
        StageError: an ONNX graph that can't be had or run.
    """
    chosen = recipe.encoder
    if chosen.name.startswith(ONNX):
        encoder: TokenEncoder = read_onnx_encoder(chosen.name.removeprefix(ONNX))
        parameters, macs = sum(b.numel() for b in encoder.buffers()) // 4, None  # about: a file is little else
    else:
        shape = named_shape(chosen.name, chosen.size)
        counted = encoder_cost(shape)
        parameters, macs = counted.parameters, counted.macs
        encoder = build_encoder(shape).eval()
        encoder.initialise(torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seconds = timed(lambda: encoder(window_of(encoder)))
    return FrozenCost(parameters, macs, seconds)
