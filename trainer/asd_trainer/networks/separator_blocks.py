"""The blocks that SepReformer is made of (arXiv 2406.05983, section 3): global, local and cross-source.

Owns the arithmetic inside one block. It knows no waveform, no encoder and no size: separator.py puts the blocks together.
Everything here maps (B, T, F) to (B, T, F): B sequences, T frames, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_trainer.training.recomputation import Recomputable


def hold(frames: Tensor, factor: int) -> Tensor:
    """Repeat every frame `factor` times: nearest-neighbour up-sampling of (B, T, F) to (B, T·factor, F)."""
    B, T, width = frames.shape
    return frames.unsqueeze(2).expand(B, T, factor, width).reshape(B, T * factor, width)


class FramewiseConvolution(nn.Module):
    """Depthwise convolution over the frames of (B, T, F).

    It is a two-dimensional convolution of height one because onnxruntime has a vectorised depthwise kernel for those
    only: 4 to 5 times faster at length 65 than the same convolution in one dimension.
    """

    def __init__(self, features: int, length: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            features, features, (1, length), stride=(1, stride), padding=(0, length // 2), groups=features
        )

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) → (B, T / stride, F)."""
        flat: Tensor = self.convolution(frames.transpose(1, 2).unsqueeze(2))
        return flat.squeeze(2).transpose(1, 2)


class BatchNorm(nn.Module):
    """Batch normalisation of each feature over sequences and frames."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) → (B, T, F)."""
        normal: Tensor = self.norm(frames.transpose(1, 2))
        return normal.transpose(1, 2)


class SequenceNorm(nn.Module):
    """Group normalisation with one group: one mean and variance over all frames and features of a sequence."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) → (B, T, F)."""
        centred = frames - frames.mean(dim=(1, 2), keepdim=True)
        variance = centred.square().mean(dim=(1, 2), keepdim=True)
        return centred * torch.rsqrt(variance + 1e-8) * self.weight + self.bias


class RelativePosition(nn.Module):
    """Learned embedding of the distance between two frames, shared by every attention of a network.

    Distances beyond `reach` count as `reach`.
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.table = nn.Parameter(torch.randn(2 * reach + 1, width) * 0.02)

    def forward(self, length: int) -> Tensor:
        """Embeddings of the distances −(length−1) … length−1, shape (2·length − 1, width)."""
        distance = torch.arange(1 - length, length, device=self.table.device).clamp(-self.reach, self.reach)
        return self.table[distance + self.reach]


class PositionAttention(nn.Module):
    """Multi-head self-attention whose keys carry a relative position: softmax((q·k + q·position) / √d) v."""

    def __init__(self, features: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(features, 3 * features)
        self.output = nn.Linear(features, features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: Tensor, positions: Tensor) -> Tensor:
        """(B, L, F) and positions (2L − 1, F / heads) → (B, L, F)."""
        B, L, width = frames.shape
        split: Tensor = self.query_key_value(frames).view(B, L, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, L, d)
        query = query * (width // self.heads) ** -0.5
        # (B, heads, L, 2L−1): distance j−i stands in column j−i+L−1. Read row by row with rows one shorter, the
        # columns line up with j: the shift of Music Transformer (arXiv 1809.04281), for both directions.
        by_distance = (query @ positions.T).flatten(2)
        by_key = by_distance[..., L - 1 : L - 1 + L * (2 * L - 2)].view(B, self.heads, L, 2 * L - 2)[..., :L]
        weight = self.dropout(torch.softmax(query @ key.transpose(2, 3) + by_key, dim=-1))
        mixed: Tensor = self.output((weight @ value).transpose(1, 2).reshape(B, L, width))
        return mixed


class GatedConvolutionNetwork(nn.Module):
    """GCFN: the position-wise network of a transformer with a short convolution and a gate. Residual."""

    def __init__(self, features: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.widen = nn.Linear(features, 6 * features)
        self.convolution = FramewiseConvolution(6 * features, 3)
        self.narrow = nn.Linear(3 * features, features)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.full((features,), layer_scale))

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) → (B, T, F)."""
        gated = F.glu(self.convolution(self.widen(self.norm(frames))), dim=-1)
        out: Tensor = frames + self.scale * self.dropout(self.narrow(self.dropout(gated)))
        return out


class GlobalBlock(Recomputable, nn.Module):
    """EGA + GCFN: attention over frames pooled to the bottleneck's rate, gated at the full rate."""

    def __init__(self, features: int, heads: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.attention = PositionAttention(features, heads, dropout)
        self.scale = nn.Parameter(torch.full((features,), layer_scale))
        self.gate = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, features), nn.Sigmoid())
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = GatedConvolutionNetwork(features, dropout, layer_scale)

    def forward(self, frames: Tensor, positions: Tensor) -> Tensor:
        """(B, T, F) → (B, T, F); positions (2L − 1, F / heads) say that the bottleneck has L frames, and L divides T."""
        B, T, width = frames.shape
        L = (positions.shape[0] + 1) // 2
        pooled = frames.reshape(B, L, T // L, width).mean(dim=2)
        heard = self.dropout(self.attention(self.norm(pooled), positions)) * self.scale
        frames = frames + hold(heard, T // L) * self.gate(frames)
        out: Tensor = self.feed_forward(frames)
        return out


class LocalBlock(Recomputable, nn.Module):
    """CLA + GCFN: a long depthwise convolution where the global block attends."""

    def __init__(self, features: int, length: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.enter = nn.Linear(features, 2 * features)
        self.convolution = FramewiseConvolution(features, length)
        self.widen = nn.Linear(features, 2 * features)
        self.batch_norm = BatchNorm(2 * features)
        self.narrow = nn.Linear(2 * features, features)
        self.dropout = nn.Dropout(dropout)
        self.scale = nn.Parameter(torch.full((features,), layer_scale))
        self.feed_forward = GatedConvolutionNetwork(features, dropout, layer_scale)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, T, F) → (B, T, F)."""
        local = self.convolution(F.glu(self.enter(self.norm(frames)), dim=-1))
        local = self.narrow(F.gelu(self.batch_norm(self.widen(local))))
        out: Tensor = self.feed_forward(frames + self.scale * self.dropout(local))
        return out


class CrossSourceBlock(Recomputable, nn.Module):
    """CS + GCFN: at every frame the sources attend to each other.

    With two sources the products are sums over F / heads numbers, cheaper as element-wise work than as T tiny matrices.
    """

    def __init__(self, features: int, heads: int, sources: int, dropout: float, layer_scale: float) -> None:
        super().__init__()
        self.heads, self.sources = heads, sources
        self.norm = nn.LayerNorm(features)
        self.query_key_value = nn.Linear(features, 3 * features)
        self.output = nn.Linear(features, features)
        self.scale = nn.Parameter(torch.full((features,), layer_scale))
        self.dropout = nn.Dropout(dropout)
        self.feed_forward = GatedConvolutionNetwork(features, dropout, layer_scale)

    def forward(self, frames: Tensor) -> Tensor:
        """(B·J, T, F) → (B·J, T, F), the J sources of a mixture next to each other."""
        folded, T, width = frames.shape
        shape = (folded // self.sources, self.sources, T, 3, self.heads, width // self.heads)
        query, key, value = self.query_key_value(self.norm(frames)).view(shape).unbind(3)  # each (B, J, T, heads, d)
        score = (query.unsqueeze(2) * key.unsqueeze(1)).sum(dim=-1, keepdim=True) * (width // self.heads) ** -0.5
        weight = self.dropout(torch.softmax(score, dim=2))  # (B, J asking, J asked, T, heads, 1)
        mixed = (weight * value.unsqueeze(1)).sum(dim=2).reshape(folded, T, width)
        out: Tensor = self.feed_forward(frames + self.scale * self.dropout(self.output(mixed)))
        return out
