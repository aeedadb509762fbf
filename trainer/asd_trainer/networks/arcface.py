"""The head that trains an embedder: an additive angular margin between classes.

Owns the loss's logits. It knows no encoder and no class's name.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

COSINE_LIMIT = 1.0 - 1e-6  # the derivative of the sine is infinite at ±1


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al., CVPR 2019) on embeddings of unit length, with sub-centres (Deng et al., ECCV 2020).

    `forward` gives logits (B, classes): scale · cos(θ + margin) for the true class, scale · cos θ for every other. Where θ + margin
    would pass π the margin goes on linearly in cos θ, so that the logit keeps falling as the angle grows. A class with several
    centres is as near as its nearest centre.
    """

    def __init__(self, dimensions: int, classes: int, scale: float, margin: float, subcentres: int = 1) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.centres = nn.Parameter(torch.empty(classes, subcentres, dimensions))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw fresh centres, in all directions alike."""
        nn.init.normal_(self.centres, generator=generator)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, classes) for embeddings (B, D) whose true classes are `labels`, int64 (B,)."""
        cosine = self.cosine(embeddings)
        true = F.one_hot(labels, cosine.shape[1]).bool()
        return self.scale * torch.where(true, add_margin(cosine, self.margin), cosine)

    def cosine(self, embeddings: Tensor) -> Tensor:
        """Cosine of the angle to the nearest centre of each class, (B, classes), always in float32."""
        with torch.autocast(
            embeddings.device.type, enabled=False
        ):  # bf16 has 8 bits, and the margin works on small angles
            centres = F.normalize(self.centres.float(), dim=2)
            return torch.einsum("bd,ckd->bck", embeddings.float(), centres).amax(dim=2)


def add_margin(cosine: Tensor, margin: float) -> Tensor:
    """cos(θ + margin) from cos θ while θ + margin ≤ π; beyond, cos θ - (1 - cos margin), which meets it at -1."""
    bounded = cosine.clamp(-COSINE_LIMIT, COSINE_LIMIT)
    sine = (1.0 - bounded.square()).sqrt()
    shifted = bounded * math.cos(margin) - sine * math.sin(margin)
    return torch.where(cosine > -math.cos(margin), shifted, cosine - (1.0 - math.cos(margin)))
