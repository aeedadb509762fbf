"""The utterance-frame objective against independent computations, and the stage as a whole."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from asd_daemon.errors import SettingsError
from asd_daemon.judge.features.log_mel import eat_input
from asd_trainer.networks.decoder import Decoder, unshuffle
from asd_trainer.networks.eat import SIZES, Eat, EatSize, Layer
from asd_trainer.networks.weights import load_weights
from asd_trainer.pretrain.objective import layer_targets, patch_deviation, teacher_decay, utterance_frame_losses
from asd_trainer.pretrain.stage import COLLAPSED, Pretrainer, PretrainingTask, cut_piece, pretrain_encoder
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.recipe.pretraining import DecoderRecipe, MaskRecipe, PretrainRecipe, TeacherRecipe
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.training.interruption import Interrupted
from rig.waiting import PATIENT_S

TINY = EatSize(dim=16, depth=3, heads=2)
SETTINGS = PretrainRecipe(
    steps=12,
    batch_clips=4,
    crop_frames=96,
    utterance_weight=0.5,
    mask=MaskRecipe(clones=3, block=2),
    teacher=TeacherRecipe(decay=0.9, final_decay=0.99, rise_steps=10),
    decoder=DecoderRecipe(layers=2, groups=4),
    optimiser=OptimiserRecipe(learning_rate=2e-3, checkpoint_steps=4),
)


def encoder(seed: int = 1) -> Eat:
    made = Eat(TINY)
    made.initialise(torch.Generator().manual_seed(seed))
    return made


def pretrainer(settings: PretrainRecipe = SETTINGS) -> Pretrainer:
    return Pretrainer(encoder(), settings, torch.Generator().manual_seed(2))


def log_mels(clips: int = 8, frames: int = 150) -> NDArray[np.float32]:
    """Clips with a line in frequency and a beat in time of their own."""
    rng = np.random.default_rng(3)
    time, mel = np.arange(frames)[:, None], np.arange(128)[None]
    made = [
        -6
        + 3 * np.sin(time / rng.uniform(4, 20))
        + 4 * np.exp(-(((mel - rng.uniform(10, 110)) / 8) ** 2))
        + rng.normal(0, 0.3, (frames, 128))
        for _ in range(clips)
    ]
    return np.stack(made).astype(np.float32)


def task(settings: PretrainRecipe = SETTINGS, **how: Any) -> PretrainingTask:
    return PretrainingTask(pretrainer(settings), log_mels(), settings, seed=7, fingerprint="clips", **how)


def test_targets_equal_the_formula_in_numpy() -> None:
    rng = np.random.default_rng(4)
    ffns = [rng.normal(layer, 1 + layer, (2, 1 + 48, 16)) for layer in range(3)]
    found = layer_targets(Layer(torch.zeros(2, 49, 16), torch.from_numpy(ffn).float()) for ffn in ffns)
    normalised = []
    for ffn in ffns:
        patches = ffn[:, 1:]
        normalised.append(
            (patches - patches.mean(axis=1, keepdims=True)) / np.sqrt(patches.var(axis=1, keepdims=True) + 1e-5)
        )
    mean = np.mean(normalised, axis=0)
    expected = (mean - mean.mean(axis=2, keepdims=True)) / np.sqrt(mean.var(axis=2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_targets_come_from_the_feed_forward_output_of_every_block() -> None:
    made = encoder()
    features = torch.randn(2, 96, 128, generator=torch.Generator().manual_seed(5))
    caught: list[Tensor] = []
    for block in made.blocks:
        assert isinstance(block.mlp, nn.Module)
        block.mlp.register_forward_hook(lambda _module, _given, out: caught.append(out))
    with torch.no_grad():
        found = layer_targets(made.layers(features))
    assert len(caught) == TINY.depth
    torch.testing.assert_close(found, layer_targets(Layer(ffn, ffn) for ffn in caught))


def test_losses_equal_the_formula_by_hand() -> None:
    rng = np.random.default_rng(6)
    predictions, cls, targets = rng.normal(size=(6, 5, 16)), rng.normal(size=(6, 16)), rng.normal(size=(2, 8, 16))
    masked = np.stack([np.sort(rng.permutation(8)[:5]) for _ in range(6)])
    frame = utterance = 0.0
    for sequence in range(6):
        clip = targets[sequence // 3]
        for place, patch in enumerate(masked[sequence]):
            frame += ((predictions[sequence, place] - clip[patch]) ** 2).sum() / math.sqrt(16) / 30
        utterance += ((cls[sequence] - clip.mean(axis=0)) ** 2).sum() / math.sqrt(16) / 6
    as_tensor = [torch.from_numpy(array).float() for array in (predictions, cls, targets)]
    losses = utterance_frame_losses(as_tensor[0], as_tensor[1], as_tensor[2], torch.from_numpy(masked))
    assert float(losses.frame) == pytest.approx(frame, rel=1e-5)
    assert float(losses.utterance) == pytest.approx(utterance, rel=1e-5)


def test_utterance_weight_of_clones_times_clips_is_the_released_reduction() -> None:
    # fairseq sums all elements and divides by the number of masked patches N, the utterance term having been multiplied by N before.
    B, clones, M, D = 2, 3, 5, 16
    generator = torch.Generator().manual_seed(8)
    predictions = torch.randn(B * clones, M, D, generator=generator)
    cls = torch.randn(B * clones, D, generator=generator)
    targets = torch.randn(B, 8, D, generator=generator)
    masked = torch.stack([torch.randperm(8, generator=generator)[:M].sort().values for _ in range(B * clones)])
    N = B * clones * M
    expected = torch.stack([targets[s // clones, masked[s]] for s in range(B * clones)])
    frame_sum = ((predictions - expected) ** 2 / math.sqrt(D)).sum()
    utterance_sum = ((cls - targets.mean(1).repeat_interleave(clones, 0)) ** 2 / math.sqrt(D)).sum() * N
    losses = utterance_frame_losses(predictions, cls, targets, masked)
    torch.testing.assert_close(losses.frame + B * clones * losses.utterance, (frame_sum + utterance_sum) / N)


def test_loss_is_frame_plus_weighted_utterance_and_the_default_weight_is_one() -> None:
    assert PretrainRecipe().utterance_weight == 1.0
    made = task()
    figures = made.model(**made.batch(0, 0, 1))
    sequences = SETTINGS.batch_clips * SETTINGS.mask.clones
    torch.testing.assert_close(figures["loss"], figures["frame_loss"] + 0.5 * sequences * figures["utterance_loss"])
    mean = task(SETTINGS.model_copy(update={"utterance_reduction": "mean"}))
    figures = mean.model(**mean.batch(0, 0, 1))
    torch.testing.assert_close(figures["loss"], figures["frame_loss"] + 0.5 * figures["utterance_loss"])


def test_papers_step_weighs_the_utterance_as_the_released_code_does() -> None:
    paper = load_recipe("paper").pretrain
    settings = SETTINGS.model_copy(
        update={name: getattr(paper, name) for name in ("utterance_weight", "utterance_reduction")}
    )
    made = task(settings)
    figures = made.model(**made.batch(0, 0, 1))
    sequences = settings.batch_clips * settings.mask.clones
    torch.testing.assert_close(figures["loss"] - figures["frame_loss"], sequences * figures["utterance_loss"])


def test_tokens_are_put_back_where_they_came_from() -> None:
    generator = torch.Generator().manual_seed(9)
    tokens = torch.randn(4, 48, 16, generator=generator)
    order = torch.stack([torch.randperm(48, generator=generator) for _ in range(4)])
    kept, masked = order[:, :10], order[:, 10:]
    noise = torch.full((4, 38, 16), 7.0)
    places = kept.unsqueeze(-1).expand(-1, -1, 16)
    restored = unshuffle(tokens.gather(1, places), noise, kept, masked)
    for sequence in range(4):
        assert torch.equal(restored[sequence, kept[sequence]], tokens[sequence, kept[sequence]])
        assert (restored[sequence, masked[sequence]] == 7).all()


def test_decoder_equals_its_formula_on_the_map() -> None:
    decoder = Decoder(16, DecoderRecipe(layers=2, groups=4)).double()
    decoder.initialise(torch.Generator().manual_seed(10))
    generator = torch.Generator().manual_seed(11)
    whole = torch.randn(2, 48, 16, generator=generator, dtype=torch.float64)
    order = torch.stack([torch.randperm(48, generator=generator) for _ in range(2)])
    kept, masked = order[:, :10].sort().values, order[:, 10:].sort().values
    picked = [torch.stack([clip[row] for clip, row in zip(whole, rows, strict=True)]) for rows in (kept, masked)]
    found = decoder(picked[0], kept, masked, picked[1]).detach().numpy()

    maps = whole.numpy().reshape(2, 6, 8, 16).transpose(0, 3, 1, 2)  # (S, C, T, 8)
    for convolution in decoder.convolutions:
        weight, bias = (p.detach().numpy() for p in convolution.parameters())
        padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
        out = np.zeros_like(maps)
        for channel in range(16):
            first = channel // 4 * 4  # four channels in a group
            for t in range(6):
                for f in range(8):
                    window = padded[:, first : first + 4, t : t + 3, f : f + 3]
                    out[:, channel, t, f] = (window * weight[channel]).sum(axis=(1, 2, 3)) + bias[channel]
        out = (out - out.mean(axis=1, keepdims=True)) / np.sqrt(out.var(axis=1, keepdims=True) + 1e-5)
        gelu = torch.nn.functional.gelu(torch.from_numpy(out)).numpy()
        maps = maps + gelu
    tokens = maps.transpose(0, 2, 3, 1).reshape(2, 48, 16)
    projected = tokens @ decoder.proj.weight.detach().numpy().T + decoder.proj.bias.detach().numpy()
    np.testing.assert_allclose(
        found, np.stack([clip[row] for clip, row in zip(projected, masked.numpy(), strict=True)]), atol=1e-9
    )


def test_only_visible_tokens_are_encoded_and_the_teacher_sees_each_clip_once() -> None:
    made = task()
    seen: dict[str, list[torch.Size]] = {"student": [], "teacher": []}
    for name, shapes in seen.items():
        for block in getattr(made.model, name).blocks:
            block.register_forward_pre_hook(lambda _module, given, shapes=shapes: shapes.append(given[0].shape))
    made.model(**made.batch(0, 0, 1))
    patches = 96 // 16 * 8
    assert seen["student"] == [torch.Size([4 * 3, 1 + int(0.2 * patches), 16])] * TINY.depth
    assert seen["teacher"] == [torch.Size([4, 1 + patches, 16])] * TINY.depth


def test_clone_is_encoded_as_the_encoder_alone_would_encode_those_patches() -> None:
    made = task()
    batch = made.batch(0, 0, 1)
    caught: list[Tensor] = []
    made.model.student.blocks[-1].register_forward_hook(lambda _module, _given, layer: caught.append(layer.out))
    made.model(**batch)
    for clip in range(4):
        for clone in range(3):
            alone = made.model.student(batch["features"][clip : clip + 1], batch["kept"][clip, clone : clone + 1])
            torch.testing.assert_close(caught[0][clip * 3 + clone], alone[0], atol=1e-5, rtol=1e-4)


def test_gradient_reaches_student_and_decoder_alone() -> None:
    made = task()
    made.model(**made.batch(0, 0, 1))["loss"].backward()
    for name, parameter in made.model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) is not name.startswith("teacher."), name


def test_teacher_follows_by_the_formula_once_an_update() -> None:
    model = pretrainer()
    batch = task().batch(0, 0, 1)
    expected = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    generator = torch.Generator().manual_seed(12)
    for updates in range(4):
        batch["step"] = torch.tensor(updates)
        model(**batch)
        if updates:
            decay = teacher_decay(updates, SETTINGS.teacher)
            own = model.student.state_dict()
            expected = {name: decay * tensor + (1 - decay) * own[name] for name, tensor in expected.items()}
        model(**batch)  # a second look at the same step moves nothing
        for name, tensor in model.teacher.state_dict().items():
            torch.testing.assert_close(tensor, expected[name])
        with torch.no_grad():
            for parameter in model.student.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def test_teacher_decay_rises_linearly_then_stays() -> None:
    released = TeacherRecipe()
    assert teacher_decay(0, released) == 0.9998
    assert teacher_decay(50_000, released) == pytest.approx((0.9998 + 0.99999) / 2, abs=1e-12)
    assert teacher_decay(100_000, released) == teacher_decay(400_000, released) == pytest.approx(0.99999)


def test_teacher_stays_in_float32_and_evaluation_mode_under_mixed_precision() -> None:
    made = task()
    made.model.train()
    assert not made.model.teacher.training
    caught: list[Tensor] = []
    made.model.teacher.blocks[-1].register_forward_hook(lambda _module, _given, layer: caught.append(layer.out))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        figures = made.model(**made.batch(0, 0, 1))
    assert caught[0].dtype == torch.float32
    assert figures["loss"].dtype == torch.float32


def test_counters_say_what_is_masked_and_how_much_targets_and_predictions_vary() -> None:
    made = task()
    figures = made.model(**made.batch(0, 0, 1))
    assert float(figures["masked"]) == pytest.approx(1 - int(0.2 * 48) / 48)
    assert float(figures["teacher_decay"]) == pytest.approx(0.9)
    assert 0.1 < float(figures["target_deviation"]) < 2
    rng = np.random.default_rng(13)
    tokens = rng.normal(size=(3, 7, 5))
    assert float(patch_deviation(torch.from_numpy(tokens))) == pytest.approx(
        np.sqrt(tokens.reshape(21, 5).var(axis=0, ddof=1) + 1e-6).mean(), rel=1e-6
    )


def test_collapse_is_warned_of_once_and_again_only_after_recovery(caplog: pytest.LogCaptureFixture) -> None:
    made = task()
    batch = {**made.batch(0, 0, 1), "step": torch.tensor(5)}
    healthy = made.model.decoder.proj.weight.detach().clone()
    with caplog.at_level(logging.WARNING), torch.no_grad():
        made.model(**batch)
        assert not caplog.records
        made.model.decoder.proj.weight.zero_()
        made.model(**{**batch, "step": torch.tensor(0)})  # in the warm-up nothing is said
        assert not caplog.records
        made.model(**batch)
        made.model(**batch)
        assert len(caplog.records) == 1
        assert "prediction deviation fell to 0.001 at step 6: the encoder is collapsing" in caplog.text
        made.model.decoder.proj.weight.copy_(healthy)
        made.model(**batch)
        made.model.decoder.proj.weight.zero_()
        made.model(**batch)
    assert len(caplog.records) == 2


def test_batch_split_over_two_processes_has_the_gradient_of_one() -> None:
    whole, halves = task(), task()
    whole.model(**whole.batch(3, 0, 1))["loss"].backward()
    losses = [halves.model(**halves.batch(3, rank, 2))["loss"] for rank in range(2)]
    torch.autograd.backward(torch.stack(losses).mean())
    other = dict(halves.model.named_parameters())
    for name, parameter in whole.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(other[name].grad, parameter.grad, atol=1e-5, rtol=1e-3)


def test_every_clip_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    numbered = np.broadcast_to(-np.arange(8, dtype=np.float32)[:, None, None], (8, 150, 128))
    made = PretrainingTask(pretrainer(), numbered, SETTINGS, seed=7, fingerprint="clips")
    values = [made.batch(step, 0, 1)["features"][:, 0, 0] * (2 * 4.569) - 4.268 for step in range(4)]
    orders = [torch.cat(values[start : start + 2]).round().int().tolist() for start in (0, 2)]
    assert [sorted(order) for order in orders] == [list(range(-7, 1))] * 2
    assert orders[0] != orders[1]


def test_batch_of_a_step_is_the_same_every_time_and_its_masks_differ_from_clip_to_clip() -> None:
    made = task()
    first, again, other = made.batch(1, 0, 1), made.batch(1, 0, 1), task(decoder_alone=True).batch(1, 0, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["features"], other["features"])
    assert torch.unique(first["kept"].flatten(0, 1), dim=0).shape[0] == 12
    assert torch.unique(first["noise_seeds"]).shape[0] == 4


def test_piece_is_what_the_daemon_feeds_its_encoder() -> None:
    clip = log_mels(1, 998)[0]
    np.testing.assert_allclose(cut_piece(clip, 1024, 0.5, 0.0), eat_input(clip), atol=1e-6)
    np.testing.assert_allclose(cut_piece(clip, 96, 0.999, 0.0), eat_input(clip[998 - 96 :])[:96], atol=1e-6)
    louder = cut_piece(clip, 96, 0.0, 10.0) - cut_piece(clip, 96, 0.0, 0.0)
    np.testing.assert_allclose(louder, math.log(10) / (2 * 4.569), atol=1e-5)


def test_piece_of_a_short_clip_is_cut_from_its_sound_not_from_the_silence_it_was_filled_up_with() -> None:
    clip = np.full((998, 128), math.log(np.finfo(np.float32).eps), np.float32)
    clip[:498] = log_mels(1, 498)[0]
    for start in (0.0, 0.5, 0.999):
        piece = cut_piece(clip, 496, start, 0.0) * (2 * 4.569) - 4.268
        assert piece.min() > -15
    silent = cut_piece(np.full((998, 128), math.log(np.finfo(np.float32).eps), np.float32), 96, 0.3, 0.0)
    assert np.isfinite(silent).all()


def test_groups_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"pretrain\.decoder\.groups: 5 does not divide the encoder's 16 channels"):
        pretrainer(SETTINGS.model_copy(update={"decoder": DecoderRecipe(groups=5)}))


def test_decoder_of_another_make_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"pretrain\.decoder: 2 layers of kernel 3 in 4 groups do not fit .*convolutions\.1\.bias"
    ):
        Decoder(16, DecoderRecipe(layers=2, groups=4)).load({"proj.weight": torch.ones(16, 16)})


class Stopped(PretrainingTask):
    """Sends itself a signal at a step."""

    at_step = 6

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        if step == self.at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(step, rank, world)


@pytest.mark.parametrize("warmup_steps", [0, 3])
@pytest.mark.parametrize("at_step", [1, 6])
def test_stopped_stage_goes_on_and_ends_bit_for_bit_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warmup_steps: int, at_step: int
) -> None:
    settings = SETTINGS.model_copy(update={"decoder": DecoderRecipe(layers=2, groups=4, warmup_steps=warmup_steps)})

    def stage(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        pretrain_encoder(encoder(), log_mels(), settings, folder, seed=7, fingerprint="clips")

    stage(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(Stopped, "at_step", at_step)
        patched.setattr("asd_trainer.pretrain.stage.PretrainingTask", Stopped)
        with pytest.raises(Interrupted):
            stage(tmp_path / "halves")
    stage(tmp_path / "halves")
    for name in ("encoder.safetensors", "history.jsonl"):
        assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_decoder_alone_leaves_the_encoder_as_it_came(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 0, "decoder": DecoderRecipe(layers=2, groups=4, warmup_steps=6)})
    made = encoder()
    pretrain_encoder(made, log_mels(), settings, tmp_path, seed=7, fingerprint="clips")
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, encoder().state_dict()[name]), name
    lines = (tmp_path / "decoder" / "history.jsonl").read_text().splitlines()
    losses = [json.loads(line)["frame_loss"] for line in lines]
    assert len(losses) == 6
    assert losses[-1] < losses[0]


def test_teacher_that_came_with_the_weights_makes_the_first_targets(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"steps": 1})
    averaged = {name: 2 * tensor for name, tensor in encoder(9).state_dict().items()}
    pretrain_encoder(encoder(), log_mels(), settings, tmp_path, seed=7, fingerprint="clips", teacher=averaged)
    first = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[0])
    batch = task(settings).batch(0, 0, 1)
    other = Eat(TINY)
    other.load_state_dict(averaged)
    with torch.no_grad():
        expected, own = (patch_deviation(layer_targets(made.layers(batch["features"]))) for made in (other, encoder()))
    assert first["target_deviation"] == pytest.approx(float(expected), rel=1e-4)
    assert first["target_deviation"] != pytest.approx(float(own), rel=1e-3)


def test_loss_falls_without_a_collapse_and_the_encoder_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = SETTINGS.model_copy(
        update={"steps": 120, "optimiser": OptimiserRecipe(learning_rate=3e-3, checkpoint_steps=60)}
    )
    made = encoder()
    with caplog.at_level(logging.WARNING):
        pretrain_encoder(made, log_mels(), settings, tmp_path, seed=7, fingerprint="clips")
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    frame = [row["frame_loss"] for row in history]
    assert np.mean(frame[-10:]) < 0.7 * np.mean(frame[:10])
    # Predicting the mean of the targets would cost their variance times dim / √dim: the student does better than any constant.
    assert np.mean(frame[-10:]) < 0.9 * np.mean([row["target_deviation"] ** 2 for row in history[-10:]]) * math.sqrt(
        TINY.dim
    )
    assert min(row["prediction_deviation"] for row in history[20:]) > 10 * COLLAPSED["prediction_deviation"]
    assert not caplog.records
    with pytest.raises(Exception, match="16 channels × 3 blocks is no size of EAT"):
        load_weights(str(tmp_path))


@pytest.mark.parametrize("size", ["smoke", "edge", "small"])
def test_every_size_of_our_own_learns_with_the_default_decoder(size: str) -> None:
    settings = PretrainRecipe(steps=1, batch_clips=1, crop_frames=32, mask=MaskRecipe(clones=2))
    made = Eat(SIZES[size])
    made.initialise(torch.Generator().manual_seed(1))
    model = Pretrainer(made, settings, torch.Generator().manual_seed(2))
    batch = PretrainingTask(model, log_mels(1), settings, seed=7, fingerprint="clips").batch(0, 0, 1)
    assert batch["kept"].shape == (1, 2, 3)  # 3 of 16 patches
    model(**batch)["loss"].backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_decoder_of_the_large_model_fits_its_channels() -> None:
    large = PretrainRecipe(decoder=DecoderRecipe(layers=3, kernel=5), mask=MaskRecipe(kept=0.25, surplus=0.1))
    with torch.device("meta"):
        model = Pretrainer(Eat(SIZES["large"]), large, torch.Generator())
    assert model.decoder.convolutions[0].weight.shape == (1024, 64, 5, 5)


PROGRAM = """
import importlib.util, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
spec = importlib.util.spec_from_file_location("stage", sys.argv[1])
stage = importlib.util.module_from_spec(spec)
sys.modules["stage"] = stage
spec.loader.exec_module(stage)
stage.pretrain_with_warmup(Path(sys.argv[2]))
"""


def pretrain_with_warmup(folder: Path) -> None:
    settings = SETTINGS.model_copy(update={"decoder": DecoderRecipe(layers=2, groups=4, warmup_steps=3)})
    folder.mkdir(exist_ok=True)
    pretrain_encoder(encoder(), log_mels(), settings, folder, seed=7, fingerprint="clips")


def test_two_processes_end_like_one(tmp_path: Path) -> None:
    pretrain_with_warmup(tmp_path / "1")
    (tmp_path / "program.py").write_text(PROGRAM)
    offered = {
        **os.environ,
        "ACCELERATE_USE_CPU": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(tmp_path / "program.py")]
    done = subprocess.run(
        [sys.executable, *command, __file__, str(tmp_path / "2")],
        check=False,
        env=offered,
        capture_output=True,
        text=True,
        timeout=2 * PATIENT_S,
    )
    assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / str(world) / "encoder.safetensors") for world in (1, 2))
    for name, tensor in one.items():
        # Sums of other order, carried through twelve steps of Adam: far below what one step of 2e-3 moves.
        torch.testing.assert_close(two[name], tensor, atol=5e-4, rtol=0)
    histories = [
        [json.loads(line) for line in (tmp_path / str(world) / "history.jsonl").read_text().splitlines()]
        for world in (1, 2)
    ]
    assert [row["loss"] for row in histories[1]] == pytest.approx([row["loss"] for row in histories[0]], rel=1e-3)
