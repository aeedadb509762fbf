"""Low-rank adaptation against the matrices that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asd_trainer.networks.eat import Eat, EatSize
from asd_trainer.networks.encoders.beats import Beats, BeatsSize
from asd_trainer.networks.encoders.interface import EncoderShape, TokenEncoder
from asd_trainer.networks.encoders.mobilenet import MobileNet, MobileNetSize
from asd_trainer.networks.encoders.patch_transformer import PatchTransformerSize
from asd_trainer.networks.encoders.registry import build_encoder
from asd_trainer.networks.lora import adapt, merge
from asd_trainer.recipe.encoder import Projection

pytestmark = pytest.mark.torch

QUERY: tuple[Projection, ...] = ("query",)


def eat(seed: int = 0) -> Eat:
    made = Eat(EatSize(16, 2, 2))
    made.initialise(torch.Generator().manual_seed(seed))
    return made


def learn(encoder: nn.Module, sound: Tensor) -> None:
    """A few steps that move whatever learns."""
    moving = [p for p in encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(moving, lr=0.05)
    for _ in range(4):
        optimiser.zero_grad()
        tokens = encoder(sound)
        (tokens * torch.linspace(-1, 1, tokens.numel()).sin().view(tokens.shape)).sum().backward()
        optimiser.step()


@pytest.mark.parametrize(
    ("projections", "rows", "names"),
    [
        (("query", "value"), [*range(16), *range(32, 48)], ["attn.qkv"]),
        (("key",), range(16, 32), ["attn.qkv"]),
        (("output",), range(16), ["attn.proj"]),
        (("mlp",), None, ["mlp.fc1", "mlp.fc2"]),
    ],
)
def test_merged_matrix_is_the_frozen_one_and_a_product_of_low_rank_in_the_rows_that_were_asked_for(
    projections: tuple[Projection, ...], rows: Sequence[int] | None, names: list[str]
) -> None:
    encoder, sound = eat(), torch.randn(2, 64, 128, generator=torch.Generator().manual_seed(1))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with torch.no_grad():
        unadapted = encoder(sound)
    added = adapt(encoder, 3, 6.0, projections, torch.Generator().manual_seed(2))
    assert added == sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    with torch.no_grad():
        torch.testing.assert_close(encoder(sound), unadapted, msg="what is added begins at nothing")
    learn(encoder, sound)
    parts = {name: tensor.clone() for name, tensor in encoder.state_dict().items() if ".parametrizations." in name}
    with torch.no_grad():
        adapted = encoder(sound)
    merge(encoder)
    after = encoder.state_dict()
    assert after.keys() == before.keys()
    for name in names:
        for block in range(2):
            key = f"blocks.{block}.{name}"
            low = f"{key}.parametrizations.weight"
            expected = before[f"{key}.weight"].clone()
            product = (6.0 / 3) * parts[f"{low}.0.up"] @ parts[f"{low}.0.down"]
            expected[slice(None) if rows is None else list(rows)] += product
            torch.testing.assert_close(after[f"{key}.weight"], expected)
            change = after[f"{key}.weight"] - before[f"{key}.weight"]
            assert 0 < torch.linalg.matrix_rank(change, rtol=1e-4) <= 3
            del before[f"{key}.weight"]
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), f"{name} was to stay"
    with torch.no_grad():
        torch.testing.assert_close(encoder(sound), adapted)


def tiny_beats() -> TokenEncoder:
    return Beats(BeatsSize(2, 8, 16, 2, 6, conv_pos=4, conv_pos_groups=2))


def tiny_ced() -> TokenEncoder:
    return build_encoder(EncoderShape("ced", asdict(PatchTransformerSize(16, 2, 2))))


@pytest.mark.parametrize("encoder", [tiny_beats(), tiny_ced()])
def test_every_transformer_can_be_adapted_and_its_batch_norms_stay(encoder: TokenEncoder) -> None:
    encoder.initialise(torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    adapt(encoder, 2, 2.0, ("query", "value"), torch.Generator().manual_seed(1))
    encoder.train()
    sound = 0.1 * torch.randn(2, 160_000, generator=torch.Generator().manual_seed(2))
    learn(encoder, sound)
    merge(encoder)
    moved = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    wanted = ("attn.qkv.weight", "q_proj.weight", "v_proj.weight")
    assert moved
    assert all(name.endswith(wanted) for name in moved), moved
    for name in moved:
        if name.endswith("qkv.weight"):
            assert F.mse_loss(encoder.state_dict()[name][16:32], before[name][16:32]) == 0, "no key was to move"


def test_encoder_without_such_projections_is_refused() -> None:
    with pytest.raises(ValueError, match="no block of the encoder has any of query"):
        adapt(MobileNet(MobileNetSize(0.1)), 2, 2.0, QUERY, torch.Generator())
