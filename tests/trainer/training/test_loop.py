"""The training loop: resuming, interruption, schedule, refusal."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from asd_daemon.errors import StageError
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.training.checkpoint import checkpoint_folders, steps_done
from asd_trainer.training.interruption import Interrupted
from asd_trainer.training.loop import build_optimiser, learning_rate, train

STEPS = 23
SETTINGS = OptimiserRecipe(learning_rate=1e-2, checkpoint_steps=5)


class Regression(nn.Module):
    """A small net with dropout, so that torch's own random state matters."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(11)
        self.net = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 1))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.net(x).squeeze(1) - y).square().mean()}


class RegressionTask:
    """Learns a fixed function from batches that follow from the step; can send itself a signal or a NaN at a step."""

    name = "regression"
    seed = 5
    steps = STEPS

    def __init__(
        self, fingerprint: str = "data", at_step: int | None = None, sends: signal.Signals | None = None
    ) -> None:
        self.model = Regression()
        self.fingerprint = fingerprint
        self._at_step, self._sends = at_step, sends

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        y = x.sin().sum(dim=1)
        if step == self._at_step:
            if self._sends is None:
                y = y * torch.nan
            else:
                os.kill(os.getpid(), self._sends)
        return {"x": x[rank::world], "y": y[rank::world]}


def weights(task: RegressionTask) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in task.model.state_dict().items()}


@pytest.mark.parametrize("stop_at", [0, 4, 5, 13, STEPS - 2])
def test_training_interrupted_and_resumed_ends_bit_for_bit_like_training_in_one_go(
    tmp_path: Path, stop_at: int
) -> None:
    whole = RegressionTask()
    train(whole, SETTINGS, tmp_path / "whole")

    with pytest.raises(Interrupted, match=f"after step {stop_at + 1} of {STEPS}") as stopped:
        train(RegressionTask(at_step=stop_at, sends=signal.SIGTERM), SETTINGS, tmp_path / "halves")
    assert stopped.value.exit_code == 143
    torch.rand(3)  # a new process starts from another random state
    resumed = RegressionTask()
    train(resumed, SETTINGS, tmp_path / "halves")

    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())
    histories = [(tmp_path / run / "history.jsonl").read_text() for run in ("whole", "halves")]
    assert histories[0] == histories[1]
    assert [json.loads(line)["step"] for line in histories[0].splitlines()] == list(range(1, STEPS + 1))


def test_training_killed_without_warning_goes_on_from_the_last_checkpoint_to_the_same_end(tmp_path: Path) -> None:
    whole = RegressionTask()
    train(whole, SETTINGS, tmp_path / "whole")

    class Killed(RegressionTask):
        def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
            if step == 13:
                raise ConnectionAbortedError("killed")
            return super().batch(step, rank, world)

    with pytest.raises(ConnectionAbortedError):
        train(Killed(), SETTINGS, tmp_path / "killed")
    # What a kill in the middle of writing leaves behind: half a checkpoint and half a line.
    (tmp_path / "killed" / "checkpoints" / "step-00000015.partial").mkdir()
    with (tmp_path / "killed" / "history.jsonl").open("a") as history:
        history.write('{"step": 11, "lo')
    resumed = RegressionTask()
    train(resumed, SETTINGS, tmp_path / "killed")
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(resumed).items())
    assert (tmp_path / "killed" / "history.jsonl").read_text() == (tmp_path / "whole" / "history.jsonl").read_text()


def test_ctrl_c_saves_and_gives_exit_code_130_and_restores_the_handler(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        train(RegressionTask(at_step=2, sends=signal.SIGINT), SETTINGS, tmp_path)
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_signal_in_the_last_step_is_not_an_interruption(tmp_path: Path) -> None:
    train(RegressionTask(at_step=STEPS - 1, sends=signal.SIGTERM), SETTINGS, tmp_path)
    assert not (tmp_path / "checkpoints" / f"step-{STEPS - 1:08d}").exists()
    assert (tmp_path / "checkpoints" / f"step-{STEPS:08d}").exists()


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    train(RegressionTask(), SETTINGS, tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_loss_that_is_not_finite_is_refused_with_step_and_way_out(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"loss is nan at step 8; lower optimiser\.learning_rate"):
        train(RegressionTask(at_step=7), SETTINGS, tmp_path)


def test_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(RegressionTask(at_step=7, sends=signal.SIGTERM), SETTINGS, tmp_path)
    with pytest.raises(StageError, match="made with other clips"):
        train(RegressionTask(fingerprint="other"), SETTINGS, tmp_path)


def test_broken_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(RegressionTask(at_step=7, sends=signal.SIGTERM), SETTINGS, tmp_path)
    (tmp_path / "checkpoints" / "step-00000008" / "optimiser.safetensors").write_bytes(b"short")
    with pytest.raises(StageError, match=r"step-00000008.*broken"):
        train(RegressionTask(), SETTINGS, tmp_path)


def test_learning_rate_rises_linearly_then_falls_as_a_cosine() -> None:
    settings = OptimiserRecipe(learning_rate=1.0, warmup_ratio=0.1, final_ratio=0.02)
    rates = [learning_rate(step, 1000, settings) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[49] == pytest.approx(0.5)
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 99
    assert rates[549] == pytest.approx(0.02 + 0.98 / 2)
    assert rates[-1] == pytest.approx(0.02)


def test_biases_and_norms_do_not_decay() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    decayed, spared = build_optimiser(model, OptimiserRecipe(weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1
    assert [p.ndim for p in decayed["params"]] == [2]
    assert spared["weight_decay"] == 0
    assert len(spared["params"]) == 3


def test_stages_of_one_process_may_differ_in_their_number_format(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watched(RegressionTask):
        def __init__(self) -> None:
            super().__init__()
            self.model.net[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))

    for number, precision in enumerate(("bf16", "no", "bf16")):
        train(Watched(), SETTINGS.model_copy(update={"mixed_precision": precision}), tmp_path / str(number))
    assert seen == [torch.bfloat16] * STEPS + [torch.float32] * STEPS + [torch.bfloat16] * STEPS


def test_removal_of_an_old_checkpoint_that_was_killed_half_way_does_not_stop_a_run(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(RegressionTask(at_step=12, sends=signal.SIGTERM), SETTINGS, tmp_path)
    newest, older = sorted((tmp_path / "checkpoints").iterdir(), reverse=True)
    older.rename(older.with_name(f"{older.name}.removed"))
    next(newest.parent.glob("*.removed")).joinpath("model.safetensors").unlink()
    train(RegressionTask(), SETTINGS, tmp_path)
    assert steps_done(tmp_path) == STEPS
    assert len(checkpoint_folders(tmp_path / "checkpoints")) == 2
