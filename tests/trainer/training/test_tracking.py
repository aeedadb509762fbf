"""Figures of steps in TensorBoard's files and in MLflow are those of the history, also of a stage that was killed and goes on."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from asd_daemon.errors import StageError, UsageError
from asd_trainer.cli.program import main
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.training import tracking
from asd_trainer.training.loop import train
from asd_trainer.training.tracking import tracked

pytestmark = pytest.mark.torch

SETTINGS = OptimiserRecipe(learning_rate=1e-2, checkpoint_steps=4)
Rows = dict[int, dict[str, float]]


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.net(x).square().mean(), "mean": x.mean()}


class SlopeTask:
    name = "slope"
    seed = 0
    fingerprint = "data"

    def __init__(self, steps: int = 10, breaks_at: int | None = None) -> None:
        self.model, self.steps, self._breaks_at = Slope(), steps, breaks_at

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        if step == self._breaks_at:
            raise KeyboardInterrupt  # as if killed: nothing is written
        return {"x": torch.randn(4, 2, generator=torch.Generator().manual_seed(step))[rank::world]}


def history(folder: Path) -> Rows:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return {int(row.pop("step")): row for row in rows}


def events(folder: Path) -> Rows:
    """What TensorBoard would show: the files in their order, without what a later session does again."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: Rows = {}
    for path in sorted(folder.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (size,) = struct.unpack_from("<Q", content, at)  # length, its sum, the record, its sum
            event = Event.FromString(content[at + 12 : at + 12 + size])
            at += 16 + size
            if event.session_log.status == SessionLog.START:
                found = {step: row for step, row in found.items() if step < event.step}
            for value in event.summary.value:
                found.setdefault(event.step, {})[value.tag] = value.simple_value
    return found


def assert_same(found: Rows, expected: Rows) -> None:
    assert found.keys() == expected.keys()
    for step, row in expected.items():
        assert found[step] == pytest.approx(row, rel=1e-6)  # event files hold float32


def learn(run: Path, names: Sequence[str]) -> Path:
    """A stage that is killed in the middle of step 7 and goes on after step 4."""
    folder = run / "stages" / "separate" / "fan"
    folder.mkdir(parents=True)
    with tracked(run, names), pytest.raises(KeyboardInterrupt):
        train(SlopeTask(breaks_at=6), SETTINGS, folder)
    with tracked(run, names):
        train(SlopeTask(), SETTINGS, folder)
    return folder


def test_event_files_hold_the_history(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs the tensorboard extra")
    folder = learn(tmp_path, ["tensorboard"])
    assert_same(events(tmp_path / "tensorboard" / "separate" / "fan"), history(folder))
    assert set(history(folder)[10]) == {"loss", "mean", "gradient_norm", "learning_rate"}


def test_mlflow_holds_the_history_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the mlflow extra")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = learn(tmp_path, ["mlflow"])
    client = mlflow.MlflowClient((tmp_path / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("asd-edge").experiment_id])
    assert run.info.run_name == f"{tmp_path.name}/separate/fan"
    found: Rows = {}
    for name in run.data.metrics:
        for one in client.get_metric_history(run.info.run_id, name):
            found.setdefault(one.step, {})[name] = one.value  # of a step that was done twice the later one
    assert_same(found, history(folder))


def test_nothing_is_told_unless_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "stages" / "slope"
    folder.mkdir(parents=True)
    train(SlopeTask(4), SETTINGS, folder)
    assert {path.name for path in tmp_path.iterdir()} == {"stages"}


def test_tracker_that_fails_later_stops_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full:
        told = 0

        def start(self) -> None:
            pass

        def log(self, values: dict[str, float], step: int) -> None:
            if step == 3:
                raise OSError(28, "No space left on device")
            self.told += 1

        def finish(self) -> None:
            raise AssertionError("it was given up")

    full = Full()
    monkeypatch.setattr(tracking, "_tensorboard", lambda *_: full)
    folder = tmp_path / "stages" / "slope"
    folder.mkdir(parents=True)
    with tracked(tmp_path, ["tensorboard"]):
        train(SlopeTask(6), SETTINGS, folder)
    assert full.told == 2
    assert len(history(folder)) == 6
    assert [r.message for r in caplog.records if "--log-to tensorboard: stopped at step 3" in r.message]


def test_tracker_that_can_not_begin_is_said(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs the tensorboard extra")
    folder = tmp_path / "stages" / "slope"
    folder.mkdir(parents=True)
    (tmp_path / "tensorboard").write_text("a file")
    with tracked(tmp_path, ["tensorboard"]), pytest.raises(StageError, match="--log-to tensorboard: can't begin"):
        train(SlopeTask(4), SETTINGS, folder)


def test_missing_package_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"pip install 'asd-edge\[mlflow\]'"), tracked(tmp_path, ["mlflow"]):
        raise AssertionError("nothing is to be done")
    call = ["run", "smoke", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--log-to", "tensorboard"]
    done = CliRunner().invoke(main, call)
    assert done.exit_code == 2
    assert "error: --log-to tensorboard: needs a package: pip install 'asd-edge[tensorboard]'" in done.output
