from __future__ import annotations

import dataclasses
import math
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asd_trainer.networks.complexity import count
from asd_trainer.networks.separator import SIZES, Separator, SeparatorSize
from asd_trainer.networks.separator_blocks import (
    CrossSourceBlock,
    FramewiseConvolution,
    GlobalBlock,
    LocalBlock,
    PositionAttention,
    RelativePosition,
    SequenceNorm,
)
from asd_trainer.networks.separator_fronts import FourierFront
from asd_trainer.separate.losses import separation_loss

pytestmark = pytest.mark.torch

Network = TypeVar("Network", bound=nn.Module)

# Published parameters in millions and GMAC, SepReformer README; the GMAC are those of 16 000 samples.
PUBLISHED = {
    "tiny": (3.7, 10.4),
    "small": (4.5, 21.3),
    "base": (14.2, 39.8),
    "medium": (17.3, 81.3),
    "large": (55.5, 155.0),
}

SMALL_LEARNED = SeparatorSize(
    "small learned", "learned", 16, 8, 12, 16, 2, heads=2, local_frames=5, reach_frames=40, dropout=0.0
)
SMALL_FOURIER = SeparatorSize(
    "small fourier",
    "fourier",
    32,
    16,
    17,
    16,
    2,
    heads=2,
    local_frames=5,
    reach_frames=40,
    dropout=0.0,
    layer_scale=0.1,
)
SMALL = pytest.mark.parametrize("size", [SMALL_LEARNED, SMALL_FOURIER], ids=lambda size: size.front)


def shaken(network: Network, seed: int = 0) -> Network:
    """Give every parameter and statistic a value of its own, so that nothing hides behind a scale of 1e-5."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand(parameter.shape, generator=draw) + 0.5)
        for name, statistic in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                statistic.copy_(torch.rand(statistic.shape, generator=draw) + 0.5)
    return network.eval()


@pytest.fixture(autouse=True)
def _same_weights_every_time() -> None:
    torch.manual_seed(0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_counted_on_meta_matches_publication(name: str) -> None:
    with torch.device("meta"):
        network = Separator(SIZES[name])
    cost = count(network, sample_rate_hz=16_000)
    parameters, gmac = PUBLISHED[name]
    assert cost.parameters / 1e6 == pytest.approx(parameters, rel=0.05)
    assert cost.macs_per_second / 1e9 == pytest.approx(gmac, rel=0.05)


def test_count_of_known_network_equals_hand_count_without_auxiliary() -> None:
    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Linear(10, 7)
            self.framewise = FramewiseConvolution(7, 5)
            self.auxiliary = nn.Linear(7, 1000)

        def forward(self, waveform: Tensor) -> Tensor:
            out: Tensor = self.framewise(self.matrix(waveform.view(waveform.shape[0], -1, 10)))
            return out

    cost = count(Known(), sample_rate_hz=200, seconds=3.0)
    assert cost.parameters == 10 * 7 + 7 + 7 * 5 + 7
    assert cost.macs_per_second == 20 * 10 * 7 + 20 * 7 * 5  # 20 frames of 10 samples in a second


def test_edge_size_is_below_its_budget() -> None:
    with torch.device("meta"):
        cost = count(Separator(SIZES["edge"]), sample_rate_hz=16_000, seconds=10.0)
    assert cost.parameters < 2_000_000
    assert cost.macs_per_second < 0.2e9


@SMALL
@pytest.mark.parametrize("samples", [1, 7, 16, 127, 128, 1000, 1601])
def test_forward_of_any_length_sums_to_mixture(size: SeparatorSize, samples: int) -> None:
    network = shaken(Separator(size))
    mixture = noise(2, samples)
    sources = network(mixture)
    assert sources.shape == (2, 2, samples)
    torch.testing.assert_close(sources.sum(dim=1), mixture)
    assert (sources[:, 0] - sources[:, 1]).abs().max() > 1e-3


@SMALL
def test_forward_of_louder_mixture_is_as_much_louder(size: SeparatorSize) -> None:
    network = shaken(Separator(size))
    mixture = 0.1 * noise(1, 2000)
    torch.testing.assert_close(network(7.5 * mixture), 7.5 * network(mixture), rtol=1e-4, atol=1e-5)


@SMALL
def test_forward_of_batch_equals_each_alone(size: SeparatorSize) -> None:
    network = shaken(Separator(size))
    mixtures = noise(3, 1200) * torch.tensor([[1.0], [0.01], [5.0]])
    together = network(mixtures)
    for mixture, sources in zip(mixtures, together, strict=True):
        torch.testing.assert_close(network(mixture[None])[0], sources, rtol=0, atol=1e-4 * float(mixture.abs().max()))


@SMALL
def test_forward_of_silence_is_silence(size: SeparatorSize) -> None:
    assert shaken(Separator(size))(torch.zeros(1, 500)).abs().max() < 1e-4


@SMALL
def test_with_stages_in_evaluation_gives_the_same_sources(size: SeparatorSize) -> None:
    network = shaken(Separator(size))
    separation = network.with_stages(noise(2, 700))
    torch.testing.assert_close(separation.sources, network(noise(2, 700)))
    assert [stage.shape for stage in separation.stages] == [(2, 2, 700)] * size.stages


@SMALL
def test_loss_of_mixture_reaches_every_parameter(size: SeparatorSize) -> None:
    network = Separator(dataclasses.replace(size, layer_scale=0.1))
    sources = noise(2, 2, 4096)
    loss = separation_loss(network.with_stages(sources.sum(dim=1)), sources, auxiliary=0.4)
    torch.autograd.backward(loss)
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert unreached == []


def test_folded_sources_equal_sources_run_apart() -> None:
    size, sequences = SMALL_LEARNED, noise(6, 24, 16)
    positions = RelativePosition(8, 40)(6)
    for block in (GlobalBlock(16, 2, 0.0, 0.1), LocalBlock(16, 5, 0.0, 0.1)):
        shaken(block)
        arguments = (positions,) if isinstance(block, GlobalBlock) else ()
        folded = block(sequences, *arguments)
        for apart, one in zip(sequences[:, None], folded[:, None], strict=True):
            torch.testing.assert_close(block(apart, *arguments), one, rtol=1e-5, atol=1e-5)
    network = shaken(Separator(size))
    stage = network.decoder[0]
    frames, skip = noise(6, 12, 16, seed=1), noise(6, 24, 16, seed=2)
    folded = stage(frames, skip, positions)
    for pair in range(3):  # the two sources of a mixture stay together, the mixtures come apart
        of_pair = slice(2 * pair, 2 * pair + 2)
        torch.testing.assert_close(
            stage(frames[of_pair], skip[of_pair], positions), folded[of_pair], rtol=1e-5, atol=1e-5
        )


def test_split_puts_sources_of_a_mixture_next_to_each_other() -> None:
    network = shaken(Separator(SMALL_LEARNED))
    frames = noise(3, 8, 16)
    torch.testing.assert_close(network.split(frames)[2:4], network.split(frames[1:2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("length", [2, 3, 9])
@pytest.mark.parametrize("reach", [4, 50])
def test_position_attention_equals_attention_written_out(length: int, reach: int) -> None:
    heads, width = 2, 6
    attention, relative = PositionAttention(heads * width, heads, 0.0), RelativePosition(width, reach)
    frames = noise(2, length, heads * width)
    heard = attention(frames, relative(length))
    projected = attention.query_key_value(frames).detach().numpy()
    table = relative.table.detach().numpy()
    expected = np.zeros((2, length, heads * width))
    for b in range(2):
        for h in range(heads):
            query, key, value = (
                projected[b, :, part * 12 + h * width : part * 12 + (h + 1) * width] for part in range(3)
            )
            for i in range(length):
                at = [int(np.clip(j - i, -reach, reach)) + reach for j in range(length)]
                score = np.array([query[i] @ (key[j] + table[at[j]]) / math.sqrt(width) for j in range(length)])
                weight = np.exp(score - score.max())
                expected[b, i, h * width : (h + 1) * width] = weight @ value / weight.sum()
    expected = expected @ attention.output.weight.detach().numpy().T + attention.output.bias.detach().numpy()
    np.testing.assert_allclose(heard.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_dropout_of_the_published_size_reaches_every_attention() -> None:
    network = Separator(SIZES["tiny"])
    blocks = [block for block in network.modules() if isinstance(block, PositionAttention | CrossSourceBlock)]
    assert len(blocks) > 20
    assert {block.dropout.p for block in blocks} == {0.05}
    attention, relative = PositionAttention(8, 2, 0.5), RelativePosition(4, 5)
    frames = noise(1, 6, 8)
    expected = attention.eval()(frames, relative(6))
    torch.manual_seed(1)
    differing = attention.train()(frames, relative(6))
    torch.testing.assert_close(attention.eval()(frames, relative(6)), expected)
    assert not torch.allclose(differing, expected)


def test_cross_source_block_equals_torch_attention_across_sources() -> None:
    B, J, T, heads, width = 3, 2, 5, 4, 16
    block = shaken(CrossSourceBlock(width, heads, J, 0.0, 0.1))
    frames = noise(B * J, T, width)
    query, key, value = (
        block.query_key_value(block.norm(frames))
        .view(B, J, T, 3, heads, width // heads)
        .permute(3, 0, 2, 4, 1, 5)  # B, T, heads, J, d: attention over J
    )
    mixed = (
        nn.functional.scaled_dot_product_attention(query, key, value).permute(0, 3, 1, 2, 4).reshape(B * J, T, width)
    )
    expected = block.feed_forward(frames + block.scale * block.output(mixed))
    torch.testing.assert_close(block(frames), expected, rtol=1e-5, atol=1e-5)


def test_sequence_norm_equals_group_norm_of_one_group() -> None:
    norm = shaken(SequenceNorm(6))
    frames = 3.0 * noise(2, 9, 6) + 1.0
    expected = nn.functional.group_norm(frames.transpose(1, 2), 1, norm.weight, norm.bias, eps=1e-8).transpose(1, 2)
    torch.testing.assert_close(norm(frames), expected, rtol=1e-4, atol=1e-5)


def test_framewise_convolution_equals_convolution_in_one_dimension() -> None:
    ours = FramewiseConvolution(6, 5, stride=2)
    frames = noise(2, 12, 6)
    weight, bias = ours.convolution.weight[:, :, 0], ours.convolution.bias
    expected = nn.functional.conv1d(frames.transpose(1, 2), weight, bias, stride=2, padding=2, groups=6).transpose(1, 2)
    torch.testing.assert_close(ours(frames), expected)


def test_fourier_front_equals_numpy_transform_and_inverts_it() -> None:
    K, hop = 64, 32
    front = FourierFront(SeparatorSize("any", "fourier", K, hop, K // 2 + 1, 8, 1))
    sound = noise(K * 6).numpy()
    frames = np.lib.stride_tricks.sliding_window_view(sound, K)[::hop]
    coefficients, magnitudes = front.encode(torch.from_numpy(frames.copy())[None])
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(K) / K))
    from_the_middle = (-1.0) ** np.arange(K // 2 + 1)
    expected = np.fft.rfft(frames * window) * math.sqrt(2 / K) * from_the_middle
    np.testing.assert_allclose(coefficients[0, :, : K // 2 + 1], expected.real, atol=1e-5)
    np.testing.assert_allclose(coefficients[0, :, K // 2 + 1 :], expected.imag, atol=1e-5)
    np.testing.assert_allclose(magnitudes[0], np.log(np.sqrt(np.abs(expected) ** 2 + 1e-5)), atol=1e-4)
    pieces = front.decode(coefficients)[0].numpy()
    back = np.zeros_like(sound)
    for start, piece in zip(range(0, len(sound), hop), pieces, strict=False):
        back[start : start + K] += piece
    np.testing.assert_allclose(back[hop:-hop], sound[hop:-hop], atol=1e-5)  # the ends lie in one frame only


def test_fourier_front_of_ones_as_masks_gives_the_coefficients() -> None:
    front = FourierFront(SMALL_FOURIER)
    coefficients = noise(2, 5, 34)
    output = torch.zeros(2, 2, 5, 34)
    output[:, 0, :, :17] = 1.0  # machine: 1 + 0i
    output[:, 1, :, 17:] = 1.0  # noise: 0 + 1i, a quarter turn
    turned = torch.view_as_real(torch.complex(coefficients[..., :17], coefficients[..., 17:]) * 1j)
    estimate = front.estimate(output, coefficients)
    torch.testing.assert_close(estimate[:, 0], coefficients)
    torch.testing.assert_close(estimate[:, 1], torch.cat(turned.unbind(-1), dim=-1))


def test_fourier_front_of_kernel_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="256 frequencies"):
        FourierFront(dataclasses.replace(SIZES["edge"], channels=256))
