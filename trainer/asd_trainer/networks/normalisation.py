"""Batch normalisation over a batch that several processes share.

Owns the exchange of means and variances. torch's own SyncBatchNorm does the same on CUDA alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of rows (B, C) whose statistics are those of the rows of all processes together.

    With one process, and when not training, it is torch's batch norm and nothing else. Gradients flow through the shared statistics
    (Ioffe and Szegedy, arXiv 1502.03167), so that training on parts of a batch moves the weights as training on the whole does.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise, (B, C) → (B, C)."""
        if not self.training or not distributed.is_initialized() or distributed.get_world_size() == 1:
            normal: Tensor = super().forward(rows)
            return normal
        numbers = rows.to(torch.promote_types(rows.dtype, torch.float32))
        count = _over_processes(numbers.new_tensor(rows.shape[0]))
        mean = _over_processes(numbers.sum(dim=0)) / count
        variance = _over_processes((numbers - mean).square().sum(dim=0)) / count
        self._follow(mean.detach(), variance.detach(), float(count))
        return ((numbers - mean) * torch.rsqrt(variance + self.eps) * self.weight + self.bias).to(rows.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics, as torch does: the variance without its bias."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        share = self.momentum if self.momentum is not None else 1.0 / (float(self.num_batches_tracked) + 1.0)
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1.0, 1.0), share)


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, as every process's loss depends on every process's part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        total = part.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _over_processes(part: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(part)  # type: ignore[no-untyped-call]
    return total
