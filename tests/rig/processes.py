"""What one process of several learns from its part of a batch, told as tensors that can be compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def batch() -> tuple[Tensor, Tensor]:
    """Rows (8, 5) and what is wished of them, float64."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(8, 5, generator=generator, dtype=torch.float64) * 2 + 1
    return rows, torch.randn(8, 5, generator=generator, dtype=torch.float64)


def learned(norm: nn.BatchNorm1d, rows: Tensor, wish: Tensor) -> dict[str, Tensor]:
    """Output, gradients and running statistics of a norm after one step on rows."""
    rows = rows.clone().requires_grad_()
    output = norm(rows)
    (output.sin() * wish).sum().backward()
    assert rows.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return {
        "output": output.detach(),
        "input": rows.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
    }
