"""CED and Dasheng: vision transformers over patches of a log-mel in dB, with learned positions of their own for time and for frequency.

Owns the architecture as released (CED: Dinkel et al., arXiv 2308.11957; Dasheng: Dinkel et al., arXiv 2406.06992): a batch norm of each
mel band, patches, positions, blocks that normalise before each part, and a last norm. Parameters bear the released names.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from asd_trainer.networks.eat import NORM_EPSILON, Attention, Mlp
from asd_trainer.networks.encoders.front_ends import DecibelFrontEnd
from asd_trainer.networks.encoders.interface import EncoderShape, LogMelEncoder

MEL_BANDS = 64


@dataclass(frozen=True)
class PatchTransformerSize:
    """The numbers that make one."""

    dim: int
    depth: int
    heads: int
    patch_bands: int = 16
    """Height of a patch in mel bands; 64 leaves no axis of frequency."""
    patch_frames: int = 16
    """Width of a patch in frames of 10 ms."""
    time_patches: int = 63
    """Positions in time that were learned."""


class Block(nn.Module):
    """A transformer block that normalises before each of its parts."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPSILON)
        self.mlp = Mlp(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) → (B, N, dim)."""
        tokens = tokens + self.attn(self.norm1(tokens))
        out: Tensor = tokens + self.mlp(self.norm2(tokens))
        return out


class PatchEmbedding(nn.Module):
    """Log-mel (B, 64, T) → (B, dim, F, T'); frames that fill no patch are left out."""

    def __init__(self, size: PatchTransformerSize) -> None:
        super().__init__()
        patch = (size.patch_bands, size.patch_frames)
        self.proj = nn.Conv2d(1, size.dim, kernel_size=patch, stride=patch)

    def forward(self, mel: Tensor) -> Tensor:
        """Cut and project."""
        maps: Tensor = self.proj(mel[:, None])
        return maps


class PatchTransformer(LogMelEncoder):
    """CED (family `ced`) or Dasheng (family `dasheng`) of any size."""

    def __init__(self, family: str, size: PatchTransformerSize) -> None:
        bands = MEL_BANDS // size.patch_bands
        super().__init__(EncoderShape(family, asdict(size)), channels=size.dim, depth=size.depth, bands=bands)
        self.family, self.size = family, size
        self.front_end = DecibelFrontEnd()
        self.init_bn = nn.BatchNorm1d(MEL_BANDS, momentum=0.01)
        self.patch_embed = PatchEmbedding(size)
        self.time_pos_embed = nn.Parameter(torch.empty(1, size.dim, 1, size.time_patches))
        self.freq_pos_embed = nn.Parameter(torch.empty(1, size.dim, bands, 1))
        self.blocks = nn.ModuleList(Block(size.dim, size.heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.dim, eps=NORM_EPSILON)

    def encode(self, mel: Tensor) -> list[Tensor]:
        """Tokens (B, T, F, dim) of every block, from a log-mel (B, frames, 64)."""
        maps = self.patch_embed(self.init_bn(mel.transpose(1, 2)))
        time = min(maps.shape[3], self.size.time_patches)  # what is longer than was ever learned is left out
        maps = maps[..., :time] + self.time_pos_embed[..., :time] + self.freq_pos_embed
        B, C, bands, _ = maps.shape
        tokens = maps.flatten(2).transpose(1, 2)  # (B, F · T, C), frequency-major
        found = []
        for block in self.blocks:
            tokens = block(tokens)
            found.append(tokens)
        found[-1] = self.norm(tokens)
        return [each.view(B, bands, time, C).transpose(1, 2) for each in found]
