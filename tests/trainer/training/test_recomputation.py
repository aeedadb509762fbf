"""Steps that are done in parts, or with blocks computed twice: the same loss, gradients and statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from asd_trainer.finetune.classification import Classifier
from asd_trainer.networks.eat import SIZES, Block, Eat
from asd_trainer.networks.separator import SIZES as SEPARATOR_SIZES
from asd_trainer.networks.separator import Separator
from asd_trainer.pretrain.masks import draw_masks
from asd_trainer.pretrain.stage import Pretrainer
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.separate.training import SupervisedSeparator
from asd_trainer.training.loop import parts_of
from asd_trainer.training.recomputation import recomputed

pytestmark = pytest.mark.torch


def result(
    model: nn.Module,
    call: Callable[..., dict[str, Tensor]],
    batch: dict[str, Tensor],
    *,
    twice: bool = False,
    at_once: int = 0,
) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """Loss, gradients and buffers after a backward pass of a model that is left as it was."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.zero_grad()
    torch.manual_seed(5)
    total = 0.0
    with recomputed(model, wanted=twice):
        for weight, part in parts_of(batch, at_once):
            loss = call(**part)["loss"] * weight
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.load_state_dict(before)
    return total, gradients, buffers


def assert_alike(
    one: tuple[float, dict[str, Tensor], dict[str, Tensor]], other: tuple[float, dict[str, Tensor], dict[str, Tensor]]
) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-6)
    for first, second in zip(one[1:], other[1:], strict=True):
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            torch.testing.assert_close(tensor, second[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("size", ["edge", "tiny"])  # tiny drops out
def test_separator_computed_twice_has_the_same_gradients_and_statistics(size: str) -> None:
    torch.manual_seed(0)
    model = SupervisedSeparator(Separator(SEPARATOR_SIZES[size])).train()
    samples = 8192 if size == "edge" else 2048
    batch = {"sources": torch.randn(2, 2, samples) * 0.1}
    once, again = (
        result(model, lambda sources: model.judged(sources, 0.4), batch, twice=twice) for twice in (False, True)
    )
    assert any(name.endswith("num_batches_tracked") for name in once[2])
    assert_alike(once, again)


def test_embedder_computed_twice_has_the_same_gradients_and_statistics() -> None:
    model = Classifier(load_recipe("smoke"), 4).train()
    labels = torch.tensor([0, 1, 2, 3])
    kept = torch.arange(64).expand(4, 64)
    batch = {
        "features": torch.randn(4, 1024, 128),
        "labels": labels,
        "partner_labels": labels,
        "mix": torch.ones(4),
        "kept": kept,
    }
    assert_alike(*(result(model, model, batch, twice=twice) for twice in (False, True)))


def pretraining() -> tuple[Pretrainer, dict[str, Tensor]]:
    settings = load_recipe("smoke", ["pretrain.mask.clones=3", "pretrain.crop_frames=128"]).pretrain
    generator = torch.Generator().manual_seed(0)
    encoder = Eat(SIZES["smoke"])
    encoder.initialise(generator)
    masks = draw_masks(15, 8, settings.mask, np.random.default_rng(0))
    batch = {
        "features": torch.randn(5, 128, 128, generator=generator),
        "kept": torch.from_numpy(masks.kept.reshape(5, 3, -1)),
        "masked": torch.from_numpy(masks.masked.reshape(5, 3, -1)),
        "noise_seeds": torch.arange(5),
        "step": torch.tensor(0),
        "sequences": torch.tensor(15),
    }
    return Pretrainer(encoder, settings, generator).train(), batch


@pytest.mark.parametrize(("at_once", "twice"), [(2, False), (1, False), (0, True), (2, True)])
def test_pre_training_in_parts_has_the_same_loss_and_gradients(at_once: int, twice: bool) -> None:
    model, batch = pretraining()
    whole = result(model, model, batch)
    assert_alike(whole, result(model, model, batch, at_once=at_once, twice=twice))


def test_parts_share_out_the_rows_and_keep_what_has_none() -> None:
    batch = {"rows": torch.arange(5), "step": torch.tensor(7)}
    parts = parts_of(batch, 2)
    assert [weight for weight, _ in parts] == [0.4, 0.4, 0.2]
    assert [part["rows"].tolist() for _, part in parts] == [[0, 1], [2, 3], [4]]
    assert all(int(part["step"]) == 7 for _, part in parts)
    assert parts_of(batch, 0) == parts_of(batch, 9) == [(1.0, batch)]


def test_blocks_are_computed_twice_only_while_asked_for() -> None:
    model, batch = pretraining()
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    block = model.student.blocks[0]
    assert isinstance(block, Block)
    block.norm1.register_forward_hook(count)
    for twice, expected in ((True, 2), (False, 1)):
        calls = 0
        result(model, model, batch, twice=twice)
        assert calls == expected
