"""Architectures against the same arithmetic in NumPy, from the published formulas and the weights by their released names."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from asd_trainer.networks.encoders.beats import Beats, BeatsSize, distance_buckets
from asd_trainer.networks.encoders.interface import TokenEncoder
from asd_trainer.networks.encoders.mobilenet import MobileNet, MobileNetSize
from asd_trainer.networks.encoders.patch_transformer import PatchTransformer, PatchTransformerSize
from asd_trainer.networks.encoders.registry import NAMED, build_encoder

pytestmark = pytest.mark.torch

F64 = NDArray[np.float64]
Weights = Mapping[str, F64]


def drawn(encoder: TokenEncoder, seed: int = 1) -> tuple[TokenEncoder, Weights]:
    """An encoder with weights no two of which are alike, and these in float64."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    for name, statistic in encoder.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(statistic, generator=generator)
        if name.endswith("running_var"):
            nn.init.uniform_(statistic, 0.5, 2.0, generator=generator)
    state = encoder.state_dict()
    return encoder.eval(), {name: tensor.numpy().astype(np.float64) for name, tensor in state.items()}


def layer_norm(x: F64, w: Weights, name: str, epsilon: float) -> F64:
    centred = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(
        centred / np.sqrt(x.var(axis=-1, keepdims=True) + epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"], np.float64
    )


def linear(x: F64, w: Weights, name: str) -> F64:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def gelu(x: F64) -> F64:
    return np.asarray(0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))), np.float64)


def softmax(x: F64) -> F64:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float64)


@pytest.mark.parametrize(("bands", "frames", "positions"), [(16, 16, 3), (64, 4, 6)])
def test_patch_transformer_equals_its_formulas(bands: int, frames: int, positions: int) -> None:
    size = PatchTransformerSize(8, 2, 2, patch_bands=bands, patch_frames=frames, time_patches=positions)
    encoder, w = drawn(PatchTransformer("ced", size))
    mel = np.random.default_rng(0).normal(
        -30, 10, (70, 64)
    )  # frames that fill no patch, and more patches than positions
    x = (mel - w["init_bn.running_mean"]) / np.sqrt(w["init_bn.running_var"] + 1e-5) * w["init_bn.weight"] + w[
        "init_bn.bias"
    ]
    tokens = []
    for f in range(64 // bands):  # frequency-major
        for t in range(min(70 // frames, positions)):
            patch = x[t * frames : (t + 1) * frames, f * bands : (f + 1) * bands].T
            token = np.einsum("cij,ij->c", w["patch_embed.proj.weight"][:, 0], patch) + w["patch_embed.proj.bias"]
            tokens.append(token + w["time_pos_embed"][0, :, 0, t] + w["freq_pos_embed"][0, :, f, 0])
    y, every = np.stack(tokens), []
    for block in ("blocks.0", "blocks.1"):
        qkv = linear(layer_norm(y, w, f"{block}.norm1", 1e-6), w, f"{block}.attn.qkv").reshape(-1, 3, 2, 4)
        heads = [softmax(qkv[:, 0, h] @ qkv[:, 1, h].T / 2) @ qkv[:, 2, h] for h in range(2)]  # √4
        y = y + linear(np.concatenate(heads, axis=1), w, f"{block}.attn.proj")
        y = y + linear(
            gelu(linear(layer_norm(y, w, f"{block}.norm2", 1e-6), w, f"{block}.mlp.fc1")), w, f"{block}.mlp.fc2"
        )
        every.append(y)
    every[-1] = layer_norm(y, w, "norm", 1e-6)
    assert isinstance(encoder, PatchTransformer)
    with torch.inference_mode():
        found = encoder.encode(torch.from_numpy(mel.astype(np.float32))[None])
    for expected, layer in zip(every, found, strict=True):
        grid = expected.reshape(64 // bands, -1, 8).transpose(1, 0, 2)
        assert layer.shape == (1, *grid.shape)
        np.testing.assert_allclose(layer[0].numpy(), grid, atol=2e-3)


def bucket(distance: int, buckets: int, farthest: int) -> int:
    """Of a key `distance` tokens after the query, one at a time (T5)."""
    half = buckets // 2
    offset, distance = (half if distance > 0 else 0), abs(distance)
    if distance < half // 2:
        return offset + distance
    share = math.log(distance / (half // 2)) / math.log(farthest / (half // 2))
    return offset + min(half // 2 + int(share * (half - half // 2)), half - 1)


def test_distances_fall_into_the_buckets_of_t5() -> None:
    found = distance_buckets(500, 320, 800)
    rng = np.random.default_rng(1)
    for query, key in rng.integers(0, 500, (400, 2)):
        assert found[query, key] == bucket(int(key - query), 320, 800)
    assert found.max() < 320


def test_beats_equals_its_formulas_with_gated_relative_positions_and_deep_norm() -> None:
    size = BeatsSize(2, 8, 16, 2, 6, conv_pos=4, conv_pos_groups=2, num_buckets=8, max_distance=20)
    encoder, w = drawn(Beats(size))
    mel = np.random.default_rng(0).normal(0, 1, (35, 128))
    patches = [mel[t : t + 16, f : f + 16] for t in (0, 16) for f in range(0, 128, 16)]  # time-major
    x = np.stack([np.einsum("cij,ij->c", w["patch_embedding.weight"][:, 0], patch) for patch in patches])
    x = linear(layer_norm(x, w, "layer_norm", 1e-5), w, "post_extract_proj")
    N = x.shape[0]
    padded, placed = np.pad(x, ((2, 2), (0, 0))), np.zeros((N, 8))
    kernel = w["encoder.pos_conv.0.weight"]  # (8, 4, 4), two groups
    for n in range(N):
        for c in range(8):
            group = slice(0, 4) if c < 4 else slice(4, 8)
            placed[n, c] = (kernel[c].T * padded[n : n + 4, group]).sum() + w["encoder.pos_conv.0.bias"][c]
    x = layer_norm(x + gelu(placed), w, "encoder.layer_norm", 1e-5)
    table = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    bias = np.array([[table[bucket(key - query, 8, 20)] for key in range(N)] for query in range(N)])  # (N, N, heads)
    alpha = (2 * 2) ** 0.25
    for layer in ("encoder.layers.0", "encoder.layers.1"):
        attention, heads = f"{layer}.self_attn", []
        q, k, v = (linear(x, w, f"{attention}.{name}_proj").reshape(N, 2, 4) for name in "qkv")
        for h in range(2):
            opened = linear(q[:, h], w, f"{attention}.grep_linear")
            update, reset = (1 / (1 + np.exp(-opened[:, part].sum(axis=1))) for part in (slice(0, 4), slice(4, 8)))
            gate = update * (reset * w[f"{attention}.grep_a"][0, h, 0, 0] - 1) + 2
            heads.append(softmax(q[:, h] @ k[:, h].T / 2 + gate[:, None] * bias[..., h]) @ v[:, h])
        mixed = linear(np.concatenate(heads, axis=1), w, f"{attention}.out_proj")
        x = layer_norm(alpha * x + mixed, w, f"{layer}.self_attn_layer_norm", 1e-5)
        fed = linear(gelu(linear(x, w, f"{layer}.fc1")), w, f"{layer}.fc2")
        x = layer_norm(alpha * x + fed, w, f"{layer}.final_layer_norm", 1e-5)
    assert isinstance(encoder, Beats)
    with torch.inference_mode():
        found = encoder.encode(torch.from_numpy(mel.astype(np.float32))[None])[-1]
    assert found.shape == (1, 2, 8, 8)
    np.testing.assert_allclose(found[0].reshape(N, 8).numpy(), x, atol=2e-3)


def convolved(x: F64, kernel: F64, stride: int, groups: int) -> F64:
    """A convolution (C, H, W) with 'same' padding, tap by tap."""
    taps, edge = kernel.shape[2], kernel.shape[2] // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge)))
    height, width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    out = np.zeros((kernel.shape[0], height, width))
    for i in range(taps):
        for j in range(taps):
            seen = padded[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
            if groups == 1:
                out += np.einsum("oc,chw->ohw", kernel[:, :, i, j], seen)
            else:
                out += kernel[:, 0, i, j, None, None] * seen
    return out


def normed(x: F64, w: Weights, name: str) -> F64:
    scale = w[f"{name}.weight"] / np.sqrt(w[f"{name}.running_var"] + 1e-3)
    return (x - w[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + w[f"{name}.bias"][:, None, None]


def hard_swish(x: F64) -> F64:
    return x * np.clip(x + 3, 0, 6) / 6


# kernel, stride, whether it widens, excites, adds; hard-swish from the seventh on (MobileNetV3-Large, table 1)
ROWS = [
    (3, 1, False, False, True), (3, 2, True, False, False), (3, 1, True, False, True), (5, 2, True, True, False),
    (5, 1, True, True, True), (5, 1, True, True, True), (3, 2, True, False, False), (3, 1, True, False, True),
    (3, 1, True, False, True), (3, 1, True, False, True), (3, 1, True, True, False), (3, 1, True, True, True),
    (5, 2, True, True, False), (5, 1, True, True, True), (5, 1, True, True, True),
]  # fmt: skip


@pytest.mark.parametrize("axes", ["c", "cf"])
def test_mobilenet_equals_its_formulas_with_excitation_of_channels_and_bands(axes: str) -> None:
    encoder, w = drawn(MobileNet(MobileNetSize(1.0, axes)))
    mel = np.random.default_rng(0).normal(0, 1, (40, 128))
    x = hard_swish(normed(convolved(mel.T[None], w["features.0.0.weight"], 2, 1), w, "features.0.1"))
    for row, (kernel, stride, widens, excites, adds) in enumerate(ROWS, start=1):
        name, place, before = f"features.{row}.block", 0, x
        activation = hard_swish if row > 6 else (lambda y: np.maximum(y, 0))
        if widens:
            x = activation(normed(convolved(x, w[f"{name}.0.0.weight"], 1, 1), w, f"{name}.0.1"))
            place = 1
        assert w[f"{name}.{place}.0.weight"].shape[2] == kernel
        x = activation(normed(convolved(x, w[f"{name}.{place}.0.weight"], stride, x.shape[0]), w, f"{name}.{place}.1"))
        if excites:
            place += 1
            scaled = []
            for number, axis in enumerate(axes):
                mean = x.mean(axis=(1, 2) if axis == "c" else (0, 2))
                stem = f"{name}.{place}.conc_se_layers.{number}"
                factor = 1 / (1 + np.exp(-linear(np.maximum(linear(mean, w, f"{stem}.fc1"), 0), w, f"{stem}.fc2")))
                scaled.append(x * (factor[:, None, None] if axis == "c" else factor[None, :, None]))
            x = np.max(scaled, axis=0)
        x = normed(convolved(x, w[f"{name}.{place + 1}.0.weight"], 1, 1), w, f"{name}.{place + 1}.1")
        x = x + before if adds else x
    x = hard_swish(normed(convolved(x, w["features.16.0.weight"], 1, 1), w, "features.16.1"))
    assert isinstance(encoder, MobileNet)
    with torch.inference_mode():
        found = encoder.encode(torch.from_numpy(mel.astype(np.float32))[None])[-1][0].numpy()
    expected = x.transpose(2, 1, 0)
    assert found.shape == expected.shape == (2, 4, 960)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


GRIDS = {"ced-tiny": (62, 4, 192), "dasheng-base": (250, 1, 768), "beats": (62, 8, 768), "mn04_as": (32, 4, 384)}


@pytest.mark.parametrize("name", GRIDS)
def test_a_window_becomes_tokens_on_the_grid_of_the_encoder(name: str) -> None:
    with torch.device("meta"):
        encoder = build_encoder(NAMED[name].shape).eval()
        tokens = encoder(torch.empty(2, 160_000))
        two = encoder(torch.empty(2, 160_000), (encoder.depth, encoder.depth))
    assert tokens.shape == (2, *GRIDS[name])
    assert two.shape[3] == 2 * GRIDS[name][2] == 2 * encoder.channels
    assert tokens.shape[2] == encoder.bands
    assert build_encoder(encoder.shape).shape == encoder.shape


def test_parameters_are_those_that_were_published() -> None:
    """Less the classifiers: LayerNorm and Linear to 527 classes (CED), two layers to 527 (EfficientAT)."""
    heads = {
        "ced-tiny": 2 * 192 + 193 * 527, "ced-mini": 2 * 256 + 257 * 527, "ced-small": 2 * 384 + 385 * 527,
        "ced-base": 2 * 768 + 769 * 527, "mn04_as": 385 * 512 + 513 * 527, "mn10_as": 961 * 1280 + 1281 * 527,
    }  # fmt: skip
    for name, head in heads.items():
        with torch.device("meta"):
            own = sum(p.numel() for p in build_encoder(NAMED[name].shape).parameters())
        published = NAMED[name].published_parameters_m
        assert published is not None
        assert (own + head) / 1e6 == pytest.approx(published, rel=0.02), name
