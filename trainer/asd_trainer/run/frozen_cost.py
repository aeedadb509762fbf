"""What a frozen encoder costs: its parameters, and its operations for a window, or the time of a graph that can't be counted."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asd_trainer.networks.catalogue import encoder_cost, window_of
from asd_trainer.networks.encoders.onnx_graph import read_onnx_encoder
from asd_trainer.networks.encoders.registry import named_shape
from asd_trainer.recipe.encoder import ONNX
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.devices import least_seconds


@dataclass(frozen=True)
class FrozenCost:
    """Of one window of 10 s."""

    parameters: int
    macs: float | None
    """Multiply-accumulates, those of the front end among them; not counted in a graph of another program."""
    seconds: float | None = None
    """On the CPU here, of such a graph."""

    def words(self) -> str:
        """For a plan."""
        operations = "" if self.macs is None else f", {self.macs / 1e9:.2f} GMAC a window"
        return f"{self.parameters / 1e6:.1f} M parameters{operations}"


def frozen_cost(recipe: Recipe) -> FrozenCost:
    """The cost of a recipe's encoder, counted on shapes alone; a graph of another program is run a few times.

    Raises:
        StageError: an ONNX graph that can't be had or run.
    """
    chosen = recipe.encoder
    if not chosen.name.startswith(ONNX):
        counted = encoder_cost(named_shape(chosen.name, chosen.size))
        return FrozenCost(counted.parameters, counted.macs)
    encoder = read_onnx_encoder(chosen.name.removeprefix(ONNX))
    parameters = sum(b.numel() for b in encoder.buffers()) // 4  # about: a file is little else
    with torch.inference_mode():
        return FrozenCost(parameters, None, least_seconds(lambda: encoder(window_of(encoder))))
