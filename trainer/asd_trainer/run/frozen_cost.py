"""What a frozen encoder costs: its parameters, its operations for a window, and its time on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from asd_trainer.networks.catalogue import encoder_cost, window_of
from asd_trainer.networks.encoders.registry import build_encoder, named_shape
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.run.step_cost import timed


@dataclass(frozen=True)
class FrozenCost:
    """Of one window of 10 s."""

    parameters: int
    macs: float
    """Multiply-accumulates, those of the front end among them."""
    seconds: float
    """On the CPU."""


def frozen_cost(recipe: Recipe) -> FrozenCost:
    """The cost of a recipe's encoder; runs it a few times, with weights that are of no use."""
    shape = named_shape(recipe.encoder.name, recipe.encoder.size)
    counted = encoder_cost(shape)
    encoder = build_encoder(shape).eval()
    encoder.initialise(torch.Generator().manual_seed(0))
    with torch.inference_mode():
        seconds = timed(lambda: encoder(window_of(encoder)))
    return FrozenCost(counted.parameters, counted.macs, seconds)
