"""BEATs (Chen et al., arXiv 2212.09058): a transformer over 16 × 16 patches whose attention is biased by gated relative positions.

Owns the architecture as released: patches normalised and projected, a convolution as position, blocks that normalise after each residual
(which deep norm scales: arXiv 2203.00555), and one table of buckets of distances that all blocks share, gated by each query (WavLM,
arXiv 2110.13900). Parameters bear the released names, but for the convolution, whose weight norm is worked out when it is loaded.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_trainer.networks.encoders.front_ends import KaldiFrontEnd
from asd_trainer.networks.encoders.interface import EncoderShape, LogMelEncoder

MEL_BANDS = 128
GATE_UNITS = 8


@dataclass(frozen=True)
class BeatsSize:
    """The numbers that make one, as the checkpoint's `cfg` names them; the defaults are the released ones."""

    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    embed_dim: int = 512
    input_patch_size: int = 16
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    deep_norm: bool = True
    conv_bias: bool = False


class Attention(nn.Module):
    """Self-attention with a bias for each distance, which every query gates."""

    def __init__(self, size: BeatsSize, *, has_table: bool) -> None:
        super().__init__()
        dim, self.heads = size.encoder_embed_dim, size.encoder_attention_heads
        self.relative_attention_bias = nn.Embedding(size.num_buckets, self.heads) if has_table else None
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))
        self.grep_linear = nn.Linear(dim // self.heads, GATE_UNITS)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """(B, N, dim), with the table's bias (heads, N, N), → (B, N, dim)."""
        B, N, D = tokens.shape
        query, key, value = (
            projection(tokens).view(B, N, self.heads, D // self.heads).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Step by step: traced with a bias, torch's fused attention promises the exporter another memory layout than it has there
        closeness = query @ key.transpose(2, 3) * (D // self.heads) ** -0.5 + self.gate(query) * bias
        mixed = closeness.softmax(dim=3) @ value
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(B, N, D))
        return out

    def gate(self, query: Tensor) -> Tensor:
        """What each query (B, heads, N, d) makes of the bias, (B, heads, N, 1)."""
        B, H, N, _ = query.shape
        opened = self.grep_linear(query).view(B, H, N, 2, GATE_UNITS // 2).sum(dim=4).sigmoid()
        update, reset = opened[..., :1], opened[..., 1:]
        gates: Tensor = update * (reset * self.grep_a - 1) + 2
        return gates

    def bias(self, count: int, size: BeatsSize) -> Tensor:
        """The table's entry for each query and key of `count` tokens, (heads, N, N)."""
        if self.relative_attention_bias is None:
            raise ValueError("the first block holds the table of all")
        buckets = distance_buckets(count, size.num_buckets, size.max_distance)
        # By index: an operator that is called embedding would clash with the name of an exported embedder's output
        return self.relative_attention_bias.weight[buckets.to(self.grep_a.device)].permute(2, 0, 1)


class Layer(nn.Module):
    """A block: attention and feed-forward, each normalised after its residual."""

    def __init__(self, size: BeatsSize, *, has_table: bool) -> None:
        super().__init__()
        dim = size.encoder_embed_dim
        self.self_attn = Attention(size, has_table=has_table)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, size.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(size.encoder_ffn_embed_dim, dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.residual = (2 * size.encoder_layers) ** 0.25 if size.deep_norm else 1.0

    def forward(self, tokens: Tensor, bias: Tensor) -> Tensor:
        """(B, N, dim) → (B, N, dim)."""
        tokens = self.self_attn_layer_norm(self.residual * tokens + self.self_attn(tokens, bias))
        out: Tensor = self.final_layer_norm(self.residual * tokens + self.fc2(F.gelu(self.fc1(tokens))))
        return out


class Backbone(nn.Module):
    """Position, norm and blocks."""

    def __init__(self, size: BeatsSize) -> None:
        super().__init__()
        dim = size.encoder_embed_dim
        convolution = nn.Conv1d(dim, dim, size.conv_pos, padding=size.conv_pos // 2, groups=size.conv_pos_groups)
        self.pos_conv = nn.Sequential(convolution)
        self.layer_norm = nn.LayerNorm(dim)
        first, *others = (Layer(size, has_table=n == 0) for n in range(size.encoder_layers))
        self.layers = nn.ModuleList([first, *others])
        self.size = size

    def forward(self, tokens: Tensor) -> list[Tensor]:
        """What every block gives of (B, N, dim)."""
        placed = F.gelu(self.pos_conv(tokens.transpose(1, 2))[..., : tokens.shape[1]]).transpose(1, 2)
        tokens = self.layer_norm(tokens + placed)
        bias = cast(Layer, self.layers[0]).self_attn.bias(tokens.shape[1], self.size)
        found = []
        for layer in self.layers:
            tokens = layer(tokens, bias)
            found.append(tokens)
        return found


class Beats(LogMelEncoder):
    """BEATs of any size: windows (B, 160 000) → tokens (B, 62, 8, dim)."""

    family = "beats"

    def __init__(self, size: BeatsSize) -> None:
        patch = size.input_patch_size
        super().__init__(
            EncoderShape(self.family, asdict(size)),
            channels=size.encoder_embed_dim,
            depth=size.encoder_layers,
            bands=MEL_BANDS // patch,
        )
        self.front_end = KaldiFrontEnd()
        self.patch_embedding = nn.Conv2d(1, size.embed_dim, kernel_size=patch, stride=patch, bias=size.conv_bias)
        self.layer_norm = nn.LayerNorm(size.embed_dim)
        same = size.embed_dim == size.encoder_embed_dim
        self.post_extract_proj = None if same else nn.Linear(size.embed_dim, size.encoder_embed_dim)
        self.encoder = Backbone(size)

    def encode(self, mel: Tensor) -> list[Tensor]:
        """Tokens (B, T, 8, dim) of every block, from a log-mel (B, frames, 128)."""
        maps = self.patch_embedding(mel[:, None])  # (B, C, T, F)
        B, _, T, bands = maps.shape
        tokens = self.layer_norm(maps.flatten(2).transpose(1, 2))  # (B, T · F, C), time-major
        if self.post_extract_proj is not None:
            tokens = self.post_extract_proj(tokens)
        return [each.view(B, T, bands, self.channels) for each in self.encoder(tokens)]


def distance_buckets(count: int, buckets: int, farthest: int) -> Tensor:
    """The bucket of the distance from every token to every other, int64 (count, count): rows are queries (T5, arXiv 1910.10683).

    One half of the buckets is for what comes later; in each half the near ones have a bucket each, the far ones ever wider ones.
    """
    away = torch.arange(count)[None, :] - torch.arange(count)[:, None]
    half = buckets // 2
    exact = half // 2
    far = exact + (away.abs().clamp_min(1).float() / exact).log() / math.log(farthest / exact) * (half - exact)
    bucket = torch.where(away.abs() < exact, away.abs(), far.long().clamp_max(half - 1))
    return bucket + (away > 0).long() * half
