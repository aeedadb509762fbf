"""Poolings of frozen encoders against their formulas, and the embedder on disk."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asd_daemon.errors import StageError
from asd_trainer.networks.eat import EatSize
from asd_trainer.networks.embedder import load_embedder, save_embedder
from asd_trainer.networks.encoders.interface import EncoderShape
from asd_trainer.networks.encoders.mobilenet import MobileNetSize
from asd_trainer.networks.encoders.patch_transformer import PatchTransformerSize
from asd_trainer.networks.frozen import FrozenEmbedder, FrozenPooling, FrozenShape, pool_over_time

pytestmark = pytest.mark.torch

F64 = NDArray[np.float64]
CED = FrozenShape(EncoderShape("ced", asdict(PatchTransformerSize(16, 3, 2))))
TOKENS = torch.randn(2, 11, 3, 5, generator=torch.Generator().manual_seed(0))


def by_hand(pooling: FrozenPooling, series: F64) -> F64:
    """Of one band's tokens (T, C)."""
    mean: F64 = series.mean(axis=0)
    away = np.array([np.sqrt(((moment - mean) ** 2).sum()) for moment in series])
    weights = (1 + away / away.max()) ** 8
    weights /= weights.sum()
    if pooling == "mean":
        return mean
    if pooling == "statistics":
        return np.concatenate([mean, series.std(axis=0)])
    if pooling == "quantiles":
        return np.concatenate([np.sort(series, axis=0)[rank] for rank in (0, 1, 5)])
    if pooling == "rdp":
        return np.asarray(np.einsum("t,tc->c", weights, series), np.float64)
    positive = np.maximum(series, 0) ** 3
    mean_power: F64 = positive.mean(axis=0) if pooling == "gem" else np.einsum("t,tc->c", weights, positive)
    return mean_power ** (1 / 3)


@pytest.mark.parametrize("pooling", ["mean", "statistics", "gem", "rdp", "rdp-gem", "quantiles"])
def test_pooling_equals_its_formula_in_every_band(pooling: FrozenPooling) -> None:
    found = pool_over_time(TOKENS, pooling, power=3.0, gamma=8.0).numpy()
    for clip in range(2):
        for band in range(3):
            expected = by_hand(pooling, TOKENS[clip, :, band].numpy().astype(np.float64))
            np.testing.assert_allclose(found[clip, band], expected, atol=1e-4)


def made(shape: FrozenShape) -> FrozenEmbedder:
    embedder = FrozenEmbedder(shape)
    embedder.encoder.initialise(torch.Generator().manual_seed(2))
    return embedder.eval()


def test_embedding_is_the_pooled_tokens_of_the_chosen_layers_centred_scaled_and_of_unit_length(tmp_path: Path) -> None:
    shape = replace(CED, layers=(1, 3), pooling="statistics")
    embedder = made(shape)
    assert embedder.dimensions == 2 * 4 * 2 * 16
    embedder.centre.copy_(torch.randn(embedder.dimensions, generator=torch.Generator().manual_seed(3)))
    embedder.spread.fill_(2.0)
    window = 0.1 * torch.randn(2, 160_000, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        first, _, third = embedder.encoder.layers(window)
        tokens = torch.cat([first, third], dim=3).numpy()
        found = embedder(window).numpy()
    pooled = np.concatenate([tokens.mean(axis=1), tokens.std(axis=1)], axis=2).reshape(2, -1)
    expected = (pooled - embedder.centre.numpy()) / 2
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    folder = tmp_path / "stages" / "frozen"
    folder.mkdir(parents=True)
    save_embedder(embedder, folder)
    (folder / "done").touch()
    read = load_embedder(tmp_path)
    assert read.shape == shape
    with torch.inference_mode():
        torch.testing.assert_close(read(window), torch.from_numpy(found))


def test_averaged_bands_are_one_band() -> None:
    embedder = made(replace(CED, bands="averaged"))
    window = 0.1 * torch.randn(1, 160_000, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        mean = embedder.encoder(window).mean(dim=(1, 2))
        torch.testing.assert_close(embedder(window), mean / mean.norm(dim=1, keepdim=True))


def test_eat_hears_log_mels_and_leaves_padding_out() -> None:
    shape = FrozenShape(EncoderShape("eat", asdict(EatSize(16, 2, 2))))
    embedder = made(shape)
    assert embedder.hears == "features"
    with torch.inference_mode():
        assert embedder(torch.zeros(3, 1024, 128)).shape == (3, 8 * 16)


def test_layers_that_there_are_not_or_that_do_not_fit_are_refused() -> None:
    with pytest.raises(StageError, match=r"frozen.layers: 4 is none of the encoder's layers, 1 to 3"):
        FrozenEmbedder(replace(CED, layers=(1, 4)))
    mobile = FrozenShape(EncoderShape("efficientat", asdict(MobileNetSize(0.1))), layers=(1, 17))
    with pytest.raises(StageError, match=r"frozen.layers: \[1, 17\]: their tokens lie on different grids"):
        FrozenEmbedder(mobile)
