"""Low-rank adaptation (Hu et al., arXiv 2106.09685) of a transformer: its matrices stay, and what is added to them has a low rank.

Owns what is added, as torch's parametrisation of a layer's weight, and its merging: merged, a network has the weights and names of one that
was never adapted. It knows no training.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from asd_trainer.recipe.encoder import Projection

PARTS: dict[str, tuple[Projection, ...]] = {
    "qkv": ("query", "key", "value"),
    "q_proj": ("query",),
    "k_proj": ("key",),
    "v_proj": ("value",),
    "proj": ("output",),
    "out_proj": ("output",),
    "fc1": ("mlp",),
    "fc2": ("mlp",),
}
"""Which projections a layer of a block holds, in the order of its rows; by the released names."""


class LowRank(nn.Module):
    """W → W + (alpha / rank) · up · down in some rows of W (O, I); down (rank, I) is drawn at random, up (rows, rank) begins at 0."""

    rows: Tensor

    def __init__(self, weight: Tensor, rows: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        """`rows` int64: those that are adapted."""
        super().__init__()
        self.scale = alpha / rank
        self.register_buffer("rows", rows, persistent=False)
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1]))
        self.up = nn.Parameter(torch.zeros(rows.shape[0], rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5), generator=generator)

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight."""
        return weight.index_add(0, self.rows, self.scale * (self.up @ self.down))


def adapt(
    encoder: nn.Module, rank: int, alpha: float, projections: Collection[Projection], generator: torch.Generator
) -> int:
    """Freeze an encoder, and let what is added to these projections of its blocks learn; how many numbers that are.

    Raises:
        ValueError: the encoder has none of them.
    """
    encoder.requires_grad_(requires_grad=False)
    added = 0
    for layer, parts in list(_layers(encoder)):
        each = layer.weight.shape[0] // len(parts)
        rows = [torch.arange(n * each, (n + 1) * each) for n, part in enumerate(parts) if part in projections]
        if rows:
            low_rank = LowRank(layer.weight, torch.cat(rows), rank, alpha, generator)
            parametrize.register_parametrization(layer, "weight", low_rank)
            added += low_rank.up.numel() + low_rank.down.numel()
    if not added:
        raise ValueError(f"no block of the encoder has any of {', '.join(projections)}")
    return added


def merge(encoder: nn.Module) -> None:
    """Make what was added part of the weights, in place; nothing is left of the adaptation but its effect."""
    for layer, _ in list(_layers(encoder)):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def _layers(encoder: nn.Module) -> Iterator[tuple[nn.Linear, tuple[Projection, ...]]]:
    """The layers of an encoder's blocks that hold projections."""
    for name, module in encoder.named_modules():
        parts = PARTS.get(name.rpartition(".")[2])
        if isinstance(module, nn.Linear) and parts is not None and ("blocks." in name or "layers." in name):
            yield module, parts
