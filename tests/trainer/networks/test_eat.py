"""The EAT encoder against formulas and a block written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from asd_trainer.networks.eat import SIZES, Block, Eat, EatSize, FixedPositions, PatchEmbedding

TINY = EatSize(dim=16, depth=3, heads=2)


def tiny() -> Eat:
    encoder = Eat(TINY)
    encoder.initialise(torch.Generator().manual_seed(1))
    return encoder.eval()


@pytest.mark.parametrize(
    ("size", "least_m", "most_m"), [("base", 85, 88), ("large", 302.5, 309), ("edge", 4, 6), ("smoke", 0.5, 1.5)]
)
def test_parameter_count_of_each_size_is_the_published_one(size: str, least_m: float, most_m: float) -> None:
    with torch.device("meta"):
        encoder = Eat(SIZES[size])
    assert least_m <= sum(p.numel() for p in encoder.parameters()) / 1e6 <= most_m


def test_weights_bear_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        weights = {name: tuple(tensor.shape) for name, tensor in Eat(SIZES["base"]).state_dict().items()}
    outside = {
        "extra_tokens": (1, 1, 768),
        "local_encoder.proj.weight": (768, 1, 16, 16),
        "local_encoder.proj.bias": (768,),
        "pre_norm.weight": (768,),
        "pre_norm.bias": (768,),
    }
    inside = {
        "norm1.weight": (768,),
        "norm1.bias": (768,),
        "attn.qkv.weight": (2304, 768),
        "attn.qkv.bias": (2304,),
        "attn.proj.weight": (768, 768),
        "attn.proj.bias": (768,),
        "norm2.weight": (768,),
        "norm2.bias": (768,),
        "mlp.fc1.weight": (3072, 768),
        "mlp.fc1.bias": (3072,),
        "mlp.fc2.weight": (768, 3072),
        "mlp.fc2.bias": (768,),
    }
    assert weights == outside | {f"blocks.{n}.{name}": shape for n in range(12) for name, shape in inside.items()}


def test_positions_equal_the_formula_written_out_for_one_token() -> None:
    positions = FixedPositions(768, 64).positions.numpy()
    assert positions.shape == (1, 512, 768)
    for t, f in [(0, 0), (0, 7), (5, 3), (63, 7)]:
        expected = np.empty(768)
        for i in range(192):
            rate = 10_000 ** (-i / 192)
            expected[i], expected[192 + i] = np.sin(f * rate), np.cos(f * rate)
            expected[384 + i], expected[576 + i] = np.sin(t * rate), np.cos(t * rate)
        np.testing.assert_allclose(positions[0, t * 8 + f], expected, atol=1e-6)


def test_patches_are_flattened_with_time_first() -> None:
    embedding = PatchEmbedding(4)
    torch.nn.init.constant_(embedding.proj.weight, 1 / 256)
    torch.nn.init.zeros_(embedding.proj.get_parameter("bias"))
    features = torch.zeros(1, 64, 128)
    features[0, 32:48, 16:32] = 1.0  # time patch 2, mel patch 1
    tokens = embedding(features)
    assert tokens.shape == (1, 4 * 8, 4)
    assert tokens[0, :, 0].nonzero().flatten().tolist() == [2 * 8 + 1]


F64 = NDArray[np.float64]


def numpy_norm(x: F64, weight: F64, bias: F64) -> F64:
    normalised: F64 = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * weight + bias
    return normalised


def test_block_normalises_after_each_residual_like_a_block_written_by_hand() -> None:
    generator = torch.Generator().manual_seed(3)
    block = Block(16, 2).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    x = torch.randn(1, 7, 16, generator=generator, dtype=torch.float64)
    w = {name: tensor.numpy() for name, tensor in block.state_dict().items()}

    tokens = x[0].numpy()
    qkv = tokens @ w["attn.qkv.weight"].T + w["attn.qkv.bias"]
    heads = []
    for head in range(2):
        q, k, v = (qkv[:, part * 16 + head * 8 : part * 16 + head * 8 + 8] for part in range(3))
        scores = np.exp(q @ k.T / np.sqrt(8))
        heads.append(scores / scores.sum(1, keepdims=True) @ v)
    attended = np.concatenate(heads, axis=1) @ w["attn.proj.weight"].T + w["attn.proj.bias"]
    r = numpy_norm(tokens + attended, w["norm1.weight"], w["norm1.bias"])
    hidden = torch.from_numpy(r @ w["mlp.fc1.weight"].T + w["mlp.fc1.bias"])
    activated = (hidden * 0.5 * (1 + torch.erf(hidden / np.sqrt(2)))).numpy()
    m = activated @ w["mlp.fc2.weight"].T + w["mlp.fc2.bias"]
    out = numpy_norm(r + m, w["norm2.weight"], w["norm2.bias"])

    with torch.no_grad():
        layer = block(x)
    np.testing.assert_allclose(layer.ffn[0].numpy(), m, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(layer.out[0].numpy(), out, rtol=1e-9, atol=1e-9)


def test_class_token_has_no_position_and_comes_first() -> None:
    encoder = tiny()
    tokens = encoder.embed_patches(torch.zeros(2, 1024, 128))
    assert tokens.shape == (2, 1 + 512, 16)
    torch.testing.assert_close(tokens[:, 0], encoder.pre_norm(encoder.extra_tokens)[:, 0].expand(2, -1))


def test_last_layer_equals_forward_with_no_norm_after_it() -> None:
    encoder = tiny()
    features = torch.randn(2, 96, 128, generator=torch.Generator().manual_seed(5))
    layers = list(encoder.layers(features))
    assert len(layers) == TINY.depth
    tokens = encoder(features)
    assert tokens.shape == (2, 1 + 6 * 8, 16)
    torch.testing.assert_close(layers[-1].out, tokens)
    torch.testing.assert_close(layers[-1].ffn.shape, tokens.shape)


def test_kept_patches_carry_their_own_positions() -> None:
    encoder = tiny()
    features = torch.randn(1, 96, 128, generator=torch.Generator().manual_seed(5))
    everything = encoder.embed_patches(features)
    kept = torch.tensor([[3, 40, 11]])
    torch.testing.assert_close(encoder.embed_patches(features, kept), everything[:, [0, 4, 41, 12]])
    shuffled = torch.randperm(48, generator=torch.Generator().manual_seed(1)).unsqueeze(0)
    torch.testing.assert_close(
        encoder(features, shuffled)[:, 1:], encoder(features)[:, 1:][:, shuffled[0]], atol=1e-5, rtol=1e-4
    )


def test_same_generator_gives_the_same_weights_and_another_gives_others() -> None:
    first, second = tiny(), tiny()
    other = Eat(TINY)
    other.initialise(torch.Generator().manual_seed(2))
    weights, others = first.state_dict(), other.state_dict()
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in weights.items())
    assert not torch.equal(weights["blocks.2.mlp.fc2.weight"], others["blocks.2.mlp.fc2.weight"])


def test_fresh_matrices_are_normal_with_the_released_deviation_and_patches_are_xavier_uniform() -> None:
    made = Eat(SIZES["smoke"])
    made.initialise(torch.Generator().manual_seed(3))
    for name, tensor in made.state_dict().items():
        if name.endswith(".weight") and name.startswith("blocks.") and tensor.ndim == 2:
            assert float(tensor.std()) == pytest.approx(0.02, rel=0.03), name
            assert float(tensor.abs().max()) > 3 * 0.02, name  # a uniform of this deviation ends at 0.035
        elif name.endswith(".bias"):
            assert not tensor.any(), name
    patches = made.local_encoder.proj.weight
    bound = math.sqrt(6 / (256 + 128))
    assert 0.99 * bound < float(patches.detach().abs().max()) <= bound


def test_size_whose_heads_do_not_divide_it_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4 and of heads 3"):
        EatSize(dim=16, depth=1, heads=3)
