"""The EAT encoder (Chen et al., arXiv 2401.03497): log-mel → patch tokens.

Owns the architecture as released: 16×16 patches in time-major order, fixed 2-D sine-cosine positions, a class token without a
position, a norm before the blocks and none after, blocks that normalise after each residual. Parameters bear the names of the
released Hugging Face weights without their leading `model.`. It knows no pooling, no loss and no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_trainer.training.recomputation import Recomputable

PATCH = 16
"""Side of a patch: frames (160 ms) and mel bins."""
MEL_PATCHES = MEL_BINS // PATCH  # 8
TIME_PATCHES = EAT_FRAMES // PATCH  # 64
MLP_RATIO = 4
MATRIX_DEVIATION = 0.02  # as in BERT (arXiv 1810.04805)
NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class EatSize:
    """The three numbers that make an EAT encoder."""

    dim: int
    """Channels of a token; a multiple of 4 and of `heads`."""
    depth: int
    """Blocks."""
    heads: int
    """Attention heads of a block."""

    def __post_init__(self) -> None:
        if self.dim % 4 or self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of 4 and of heads {self.heads}")


SIZES = {
    "smoke": EatSize(128, 4, 4),  # 0.8 M parameters: trains in minutes on two cores
    "edge": EatSize(192, 12, 3),  # 5.4 M
    "small": EatSize(384, 12, 6),  # 21 M
    "base": EatSize(768, 12, 12),  # 85 M, released weights
    "large": EatSize(1024, 24, 16),  # 303 M, released weights
}


class Layer(NamedTuple):
    """What one block gives; both (B, 1 + L, dim)."""

    out: Tensor
    """The block's output."""
    ffn: Tensor
    """The output of its feed-forward part before the residual: the target of EAT's pre-training."""


class PatchEmbedding(nn.Module):
    """Log-mel (B, T, 128) → patches (B, T/16 · 8, dim); patch (t, f) is token t · 8 + f."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, features: Tensor) -> Tensor:
        """Cut and project."""
        maps: Tensor = self.proj(features.unsqueeze(1))  # (B, dim, T/16, 8)
        return maps.flatten(2).transpose(1, 2)  # (B, L, dim)


class FixedPositions(nn.Module):
    """Sine-cosine positions: half of the channels for the mel patch, half for the time patch (EAT, after MAE)."""

    positions: Tensor

    def __init__(self, dim: int, time_patches: int) -> None:
        super().__init__()
        # Not part of the weights: releases differ in the length they store, the numbers follow from the formula.
        self.register_buffer("positions", sine_cosine_positions(dim, time_patches), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Add the positions of the first tokens (B, L, dim)."""
        return tokens + self.positions[:, : tokens.shape[1]]


def sine_cosine_positions(dim: int, time_patches: int) -> Tensor:
    """Positions of time_patches × 8 patches in time-major order, float32 (1, time_patches · 8, dim).

    In each half dim/4 sines then dim/4 cosines, with angular frequency 10000^(-i / (dim/4)).
    """
    quarter = dim // 4
    frequency = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    time, mel = torch.meshgrid(
        torch.arange(time_patches, dtype=torch.float64), torch.arange(MEL_PATCHES, dtype=torch.float64), indexing="ij"
    )
    halves = [torch.outer(index.flatten(), frequency) for index in (mel, time)]  # each (L, dim/4)
    waves = [wave for angle in halves for wave in (angle.sin(), angle.cos())]
    return torch.cat(waves, dim=1).float().unsqueeze(0)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Let every token look at all."""
        B, N, D = tokens.shape
        qkv = (
            self.qkv(tokens).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        )  # (3, B, heads, N, d)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])  # softmax is accumulated in float32
        projected: Tensor = self.proj(mixed.transpose(1, 2).reshape(B, N, D))
        return projected


class Mlp(nn.Module):
    """The feed-forward part of a block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, MLP_RATIO * dim)
        self.fc2 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each token alone."""
        transformed: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return transformed


class Block(Recomputable, nn.Module):
    """A transformer block that normalises after each residual (post-norm): weights of pre-norm ViTs do not fit it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.mlp = Mlp(dim)

    def forward(self, tokens: Tensor) -> Layer:
        """Tokens (B, N, dim) → output and feed-forward part of the same shape."""
        attended = self.norm1(tokens + self.attn(tokens))
        ffn = self.mlp(attended)
        return Layer(self.norm2(attended + ffn), ffn)


class Eat(nn.Module):
    """EAT encoder of any size.

    `forward` takes normalised log-mels (B, T, 128), T a multiple of 16 and at most 16 · time_patches, and gives tokens
    (B, 1 + L, dim), the class token first.
    """

    def __init__(self, size: EatSize, time_patches: int = TIME_PATCHES) -> None:
        super().__init__()
        self.size = size
        self.extra_tokens = nn.Parameter(torch.empty(1, 1, size.dim))
        self.local_encoder = PatchEmbedding(size.dim)
        self.fixed_positional_encoder = FixedPositions(size.dim, time_patches)
        self.pre_norm = nn.LayerNorm(size.dim, eps=NORM_EPSILON)
        self.blocks = nn.ModuleList(Block(size.dim, size.heads) for _ in range(size.depth))

    def copy(self) -> Eat:
        """Another encoder with the same weights, also where they are shapes alone."""
        positions = self.fixed_positional_encoder.positions
        with torch.device(positions.device):
            other = Eat(self.size, positions.shape[1] // MEL_PATCHES)
        other.load_state_dict(self.state_dict())
        return other

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh weights as the released code: N(0, 0.02²) matrices, Xavier-uniform patches, a standard normal class token."""
        nn.init.normal_(self.extra_tokens, generator=generator)
        initialise_layers(self, generator, MATRIX_DEVIATION)

    def forward(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """Encode all patches, or only those at the indices `kept`, int64 (B, K); → (B, 1 + L or 1 + K, dim)."""
        tokens = self.embed_patches(features, kept)
        for block in self.blocks:
            tokens = block(tokens).out
        return tokens

    def layers(self, features: Tensor, kept: Tensor | None = None) -> Iterator[Layer]:
        """As `forward`, giving what every block gives, the first block first."""
        tokens = self.embed_patches(features, kept)
        for block in self.blocks:
            layer: Layer = block(tokens)
            tokens = layer.out
            yield layer

    def embed_patches(self, features: Tensor, kept: Tensor | None = None) -> Tensor:
        """What enters the first block: class token and positioned patches, normalised; (B, 1 + L or 1 + K, dim)."""
        patches = self.fixed_positional_encoder(self.local_encoder(features))
        if kept is not None:
            patches = patches.gather(1, kept.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))  # (B, K, dim)
        cls = self.extra_tokens.expand(patches.shape[0], -1, -1)
        tokens: Tensor = self.pre_norm(torch.cat([cls, patches], dim=1))
        return tokens


def initialise_layers(module: nn.Module, generator: torch.Generator, matrix_deviation: float | None = None) -> None:
    """Draw fresh weights and zero biases for every layer inside a module.

    Convolutions, each as one flat matrix, and matrices are Xavier-uniform; matrices normal where a deviation is given.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            if matrix_deviation is not None and isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=matrix_deviation, generator=generator)
            else:
                nn.init.xavier_uniform_(layer.weight.data.view(layer.weight.shape[0], -1), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.LayerNorm):
            layer.reset_parameters()
