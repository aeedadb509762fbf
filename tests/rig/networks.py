"""Networks of the real architecture, small enough for a test."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from asd_trainer.networks.eat import EatSize
from asd_trainer.networks.embedder import Embedder, EmbedderShape
from asd_trainer.networks.separator import Separator, SeparatorSize

SMALL_SEPARATOR = SeparatorSize("small", "fourier", 512, 256, 257, 8, 1, 1, 1, 2, 5, 40, dropout=0.0, layer_scale=0.1)


def tiny_embedder(seed: int = 0) -> Embedder:
    """An untrained embedder of two blocks, 16 components, in evaluation mode."""
    shape = EmbedderShape(encoder=EatSize(dim=64, depth=2, heads=2), dimensions=16, attention_dim=8)
    embedder = Embedder(shape)
    embedder.initialise(torch.Generator().manual_seed(seed))
    return embedder.eval()


def tiny_quantile_embedder(seed: int = 0) -> Embedder:
    """The same of patches alone, pooled by quantiles over time."""
    shape = EmbedderShape(
        EatSize(dim=32, depth=1, heads=2), dimensions=16, attention_dim=8, layers="patches", pooling="quantiles"
    )
    embedder = Embedder(shape)
    embedder.initialise(torch.Generator().manual_seed(seed))
    return embedder.eval()


def small_separator(seed: int = 0) -> Separator:
    """An untrained separator of one stage."""
    torch.manual_seed(seed)
    return Separator(SMALL_SEPARATOR)


def tiny_features(clips: int, seed: int = 0) -> NDArray[np.float32]:
    """Made-up normalised log-mels (clips, 1024, 128), smooth in frequency as sound is."""
    rng = np.random.default_rng(seed)
    tilt = np.linspace(0.5, -1.0, 128)
    bumps = rng.normal(size=(clips, 1, 16)).repeat(8, axis=2)
    return np.asarray(tilt + 0.5 * bumps + 0.2 * rng.normal(size=(clips, 1024, 128)), np.float32)
