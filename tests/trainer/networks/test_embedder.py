"""Pooling, embedder and ArcFace against their formulas."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asd_daemon.errors import StageError
from asd_trainer.networks.arcface import ArcFace, add_margin
from asd_trainer.networks.eat import EatSize
from asd_trainer.networks.embedder import Embedder, EmbedderShape, load_embedder, save_embedder
from asd_trainer.networks.pooling import AttentiveStatisticsPooling, LayerAggregation, QuantilePooling

SHAPE = EmbedderShape(EatSize(dim=16, depth=2, heads=2), dimensions=12, attention_dim=8)


def embedder(seed: int = 1) -> Embedder:
    made = Embedder(SHAPE)
    generator = torch.Generator().manual_seed(seed)
    made.initialise(generator)
    for name, statistic in made.named_buffers():
        if name.endswith(("running_mean", "running_var")):  # as after some training: the norms are no identities
            statistic.copy_(torch.rand(statistic.shape, generator=generator) + 0.5)
    return made.eval()


def saved_run(run: Path) -> Path:
    folder = run / "stages" / "finetune"
    folder.mkdir(parents=True)
    save_embedder(embedder(), folder)
    (folder / "done").touch()
    return folder


def test_pooling_equals_weighted_mean_and_deviation_written_by_hand() -> None:
    generator = torch.Generator().manual_seed(2)
    pooling = AttentiveStatisticsPooling(6, 5).double()
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    tokens = torch.randn(2, 9, 6, generator=generator, dtype=torch.float64)
    w = {name: tensor.numpy() for name, tensor in pooling.state_dict().items()}
    for clip, pooled in zip(tokens.numpy(), pooling(tokens).detach().numpy(), strict=True):
        plain = np.concatenate([clip.mean(0), clip.std(0)])
        hidden = np.tanh(clip @ w["token.weight"].T + w["token.bias"] + w["context.weight"] @ plain)
        scores = np.exp(hidden @ w["score.weight"].T + w["score.bias"])
        alpha = scores / scores.sum(0)
        mean = (alpha * clip).sum(0)
        deviation = np.sqrt((alpha * clip**2).sum(0) - mean**2)
        np.testing.assert_allclose(pooled, np.concatenate([mean, deviation]), rtol=1e-8)


def test_pooling_does_not_depend_on_the_order_of_tokens() -> None:
    pooling = AttentiveStatisticsPooling(6, 5)
    tokens = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(pooling(tokens[:, torch.arange(8, -1, -1)]), pooling(tokens))


def test_quantiles_equal_numpys_row_by_row_and_see_no_padding() -> None:
    tokens = torch.randn(2, 64 * 8, 6, generator=torch.Generator().manual_seed(5))
    pooled = QuantilePooling()(tokens)
    grid = tokens.numpy().reshape(2, 64, 8, 6)[:, :62]  # 998 frames fill 62 patches, what follows is padding
    expected = np.quantile(grid, [0, 0.1, 0.5], axis=1, method="nearest")  # (3, 2, 8, 6)
    np.testing.assert_array_equal(pooled.numpy(), expected.swapaxes(0, 1).reshape(2, -1))
    padded = tokens.clone()
    padded.view(2, 64, -1)[:, 62:] = -100.0
    torch.testing.assert_close(QuantilePooling()(padded), pooled, rtol=0, atol=0)


def test_quantiles_send_their_gradient_to_the_tokens_they_are() -> None:
    tokens = torch.randn(1, 10 * 8, 3, generator=torch.Generator().manual_seed(8), requires_grad=True)
    QuantilePooling()(tokens).sum().backward()
    assert tokens.grad is not None
    torch.testing.assert_close(tokens.grad.view(10, 8, 3).sum(dim=0), torch.full((8, 3), 3.0))
    least = tokens.detach().view(10, 8, 3).argmin(dim=0)
    assert (tokens.grad.view(10, 8, 3).gather(0, least[None]) >= 1).all()


def test_embedder_of_patches_alone_has_no_blocks_and_takes_an_encoders_weights(tmp_path: Path) -> None:
    shape = replace(SHAPE, layers="patches", pooling="quantiles")
    small = Embedder(shape)
    small.initialise(torch.Generator().manual_seed(3))
    assert not any(name.startswith("encoder.blocks.") for name in small.state_dict())
    donor = embedder().encoder.state_dict()
    small.start_from(donor)
    assert torch.equal(small.encoder.state_dict()["local_encoder.proj.weight"], donor["local_encoder.proj.weight"])
    (tmp_path / "stages" / "finetune").mkdir(parents=True)
    save_embedder(small.eval(), tmp_path / "stages" / "finetune")
    (tmp_path / "stages" / "finetune" / "done").touch()
    features = torch.randn(2, 1024, 128, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        torch.testing.assert_close(load_embedder(tmp_path)(features), small(features))


def test_pooling_of_equal_tokens_has_finite_gradients() -> None:
    tokens = torch.ones(1, 4, 6, requires_grad=True)
    AttentiveStatisticsPooling(6, 5)(tokens).sum().backward()
    assert tokens.grad is not None
    assert torch.isfinite(tokens.grad).all()


def test_embeddings_have_unit_length_and_do_not_depend_on_their_batch() -> None:
    features = torch.randn(3, 1024, 128, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        together = embedder()(features)
        alone = embedder()(features[1:2])
    assert together.shape == (3, 12)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(alone[0], together[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5])
def test_arcface_logits_equal_the_formula_with_the_margin_on_the_true_class_alone(margin: float) -> None:
    head = ArcFace(5, 4, scale=30.0, margin=margin)
    head.initialise(torch.Generator().manual_seed(7))
    embeddings = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(8)), dim=1)
    labels = torch.tensor([0, 1, 2, 3, 0, 2])
    logits = head(embeddings, labels).detach().numpy()
    centres = head.centres.detach()[:, 0].numpy().astype(np.float64)
    for row, (x, y) in enumerate(zip(embeddings.numpy().astype(np.float64), labels.tolist(), strict=True)):
        for c, centre in enumerate(centres):
            theta = np.arccos(x @ centre / np.linalg.norm(centre))
            assert theta + margin < np.pi
            expected = 30 * np.cos(theta + margin * (c == y))
            assert logits[row, c] == pytest.approx(expected, abs=1e-4)


def test_margin_keeps_falling_and_has_no_step_where_the_angle_passes_pi() -> None:
    theta = torch.linspace(0.002, np.pi - 0.001, 20_000, dtype=torch.float64)
    shifted = add_margin(theta.cos(), 0.3)
    steps = shifted.diff()
    assert (steps < 0).all()
    assert steps.abs().max() < 1e-3
    inside = theta + 0.3 <= np.pi
    torch.testing.assert_close(shifted[inside], (theta[inside] + 0.3).cos(), atol=1e-6, rtol=0)


def test_arcface_takes_the_nearest_subcentre_of_a_class() -> None:
    head = ArcFace(3, 2, scale=1.0, margin=0.0, subcentres=2)
    with torch.no_grad():
        head.centres.copy_(torch.tensor([[[1.0, 0, 0], [0, 2.0, 0]], [[0, 0, 1.0], [0, 0, -1.0]]]))
    cosine = head.cosine(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]))
    torch.testing.assert_close(cosine, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))


def test_arcface_gradient_equals_finite_differences() -> None:
    head = ArcFace(4, 3, scale=8.0, margin=0.4, subcentres=2)
    head.initialise(torch.Generator().manual_seed(9))
    labels = torch.tensor([0, 2, 1])
    cosine = (
        torch.rand(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.9 - 0.95
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: add_margin(c, 0.4), (cosine,))
    embeddings = torch.nn.functional.normalize(
        torch.randn(3, 4, generator=torch.Generator().manual_seed(5)), dim=1
    ).requires_grad_()
    torch.nn.functional.cross_entropy(head(embeddings, labels), labels).backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    for row in range(3):
        moved = torch.zeros(3, 4)
        moved[row, 1] = 1e-2
        with torch.no_grad():
            up, down = (
                torch.nn.functional.cross_entropy(head(embeddings + s * moved, labels), labels) for s in (1, -1)
            )
        assert float(embeddings.grad[row, 1]) == pytest.approx(float(up - down) / 2e-2, rel=0.03, abs=1e-3)


def test_arcface_on_its_own_centre_and_on_the_opposite_gives_finite_gradients() -> None:
    head = ArcFace(3, 2, scale=30.0, margin=0.3)
    head.initialise(torch.Generator().manual_seed(9))
    own = torch.nn.functional.normalize(head.centres.detach()[0], dim=1)
    embeddings = torch.cat([own, -own]).requires_grad_()
    labels = torch.tensor([0, 0])
    torch.nn.functional.cross_entropy(head(embeddings, labels), labels).backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()


def test_saved_embedder_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    saved_run(tmp_path)
    loaded = load_embedder(tmp_path)
    assert not loaded.training
    assert loaded.shape == SHAPE
    features = torch.randn(1, 1024, 128, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        assert torch.equal(loaded(features), embedder()(features))


def test_run_without_a_done_mark_is_refused(tmp_path: Path) -> None:
    (saved_run(tmp_path) / "done").unlink()
    with pytest.raises(StageError, match="asd-train finetune"):
        load_embedder(tmp_path)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    weights = saved_run(tmp_path) / "embedder.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(StageError, match="can't be read"):
        load_embedder(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"), [("schema", 99, "schema"), ("dimensions", 13, "do not fit"), ("what", 1, "do not fit")]
)
def test_shape_that_does_not_fit_is_refused(tmp_path: Path, key: str, value: int, message: str) -> None:
    described = saved_run(tmp_path) / "embedder.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), key: value}))
    with pytest.raises(StageError, match=message):
        load_embedder(tmp_path)


def test_aggregation_equals_its_formula_over_the_blocks_written_by_hand() -> None:
    generator = torch.Generator().manual_seed(4)
    aggregation = LayerAggregation(6, 3).double()
    for parameter in aggregation.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    layers = [torch.randn(2, 5, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    w = {name: tensor.numpy() for name, tensor in aggregation.state_dict().items()}
    joined = np.concatenate([layer.numpy() for layer in layers], axis=2)
    centred = joined - joined.mean(axis=2, keepdims=True)
    normal = centred / np.sqrt(centred.var(axis=2, keepdims=True) + 1e-6) * w["norm.weight"] + w["norm.bias"]
    hidden = normal @ w["narrow.weight"].T + w["narrow.bias"]
    gelu = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / np.sqrt(2)))
    np.testing.assert_allclose(
        aggregation(layers).detach().numpy(), gelu @ w["mix.weight"].T + w["mix.bias"], rtol=1e-9, atol=1e-12
    )


def test_embedder_of_all_layers_hears_every_block_and_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    made = Embedder(replace(SHAPE, layers="all"))
    made.initialise(torch.Generator().manual_seed(5))
    features = torch.randn(3, 1024, 128, generator=torch.Generator().manual_seed(6))
    made(features, torch.arange(8).expand(3, 8)).square().sum().backward()
    made(features, torch.arange(8).expand(3, 8))[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    first = made.aggregation
    assert first is not None
    assert first.narrow.weight.grad is not None
    assert first.narrow.weight.grad[:, :16].abs().max() > 0  # the first block's tokens
    folder = tmp_path / "stages" / "finetune"
    folder.mkdir(parents=True)
    save_embedder(made.eval(), folder)
    (folder / "done").touch()
    read = load_embedder(tmp_path)
    assert read.shape == made.shape
    with torch.inference_mode():
        assert torch.equal(read(features), made(features))


def test_embedder_written_before_layers_could_be_chosen_pools_the_last(tmp_path: Path) -> None:
    folder = saved_run(tmp_path)
    described = json.loads((folder / "embedder.json").read_text())
    del described["layers"]
    (folder / "embedder.json").write_text(json.dumps(described))
    assert load_embedder(tmp_path).shape.layers == "last"


def test_cosines_are_those_of_float32_under_mixed_precision() -> None:
    generator = torch.Generator().manual_seed(8)
    head = ArcFace(64, 9, 30.0, 0.3)
    head.initialise(generator)
    embeddings = torch.nn.functional.normalize(torch.randn(5, 64, generator=generator), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = head.cosine(embeddings)
    assert torch.equal(mixed, head.cosine(embeddings))
