"""Figures of every step for TensorBoard or MLflow, beside the run's own history, where a run asks for them.

Owns where they go and what is said when they can't; accelerate's trackers write them. A tracker that fails later stops, and training
goes on: `history.jsonl` has all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asd_daemon.errors import StageError, UsageError
from asd_daemon.redaction import redact
from asd_trainer.training.processes import processes
from asd_trainer.training.whole_file import write_whole

log = logging.getLogger(__name__)

TENSORBOARD, MLFLOW = "tensorboard", "mlflow"
TRACKERS = (TENSORBOARD, MLFLOW)
_PACKAGES = {TENSORBOARD: ("tensorboardX", "tensorboard"), MLFLOW: ("mlflow",)}
URI_VARIABLE = "MLFLOW_TRACKING_URI"
MLFLOW_RUN = "mlflow-run"
"""Holds the name by which MLflow knows a stage, so that the stage goes on there."""

Follow = Callable[[int, Mapping[str, float]], None]
"""Called with a step, counted from 1, and its figures."""

_WANTED: list[tuple[Path, Sequence[str]]] = []


@contextmanager
def tracked(run: Path, names: Sequence[str]) -> Iterator[None]:
    """Inside, stages of a run tell their figures to these trackers.

    Raises:
        UsageError: a tracker's package is not installed.
    """
    for name in names:
        if not any(find_spec(package) for package in _PACKAGES[name]):
            raise UsageError(f"--log-to {name}: needs a package: pip install 'asd-edge[{name}]'")
    _WANTED.append((run, tuple(dict.fromkeys(names))))
    try:
        yield
    finally:
        _WANTED.pop()


@contextmanager
def followed(folder: Path, first: int) -> Iterator[Follow]:
    """Who is to be told the figures of a stage in its folder, after `first` steps that were done before; the first process tells.

    Raises:
        StageError: a tracker can't begin.
    """
    run, names = _WANTED[-1] if _WANTED else (folder, ())
    if not names or not processes().is_main_process:
        yield lambda _step, _figures: None
        return
    stage = folder.relative_to(run / "stages").as_posix()
    trackers: dict[str, Any] = {}
    for name in names:
        try:
            tracker = _tensorboard(run, stage, first) if name == TENSORBOARD else _mlflow(run, stage, folder)
            tracker.start()
            if name == MLFLOW:
                write_whole(folder / MLFLOW_RUN, f"{tracker.tracker.info.run_id}\n")
        except _failures(name) as e:
            raise StageError(f"--log-to {name}: can't begin: {redact(_first_line(e))}") from e
        trackers[name] = tracker

    def follow(step: int, figures: Mapping[str, float]) -> None:
        for name, tracker in list(trackers.items()):
            try:
                tracker.log(dict(figures), step=step)
            except _failures(name) as e:
                log.warning("--log-to %s: stopped at step %d: %s", name, step, redact(_first_line(e)))
                del trackers[name]

    try:
        yield follow
    finally:
        for name, tracker in trackers.items():
            try:
                tracker.finish()
            except _failures(name) as e:
                log.warning("--log-to %s: could not be ended: %s", name, redact(_first_line(e)))


def _tensorboard(run: Path, stage: str, first: int) -> Any:
    """Event files in RUN/tensorboard/<stage>; steps that are done again take the place of those of a session that was killed."""
    from accelerate.tracking import TensorBoardTracker

    again = {"purge_step": first + 1} if first else {}
    suffix = f".{first}"  # names hold seconds: a session must not take the file of the one before
    return TensorBoardTracker(stage, run / TENSORBOARD, filename_suffix=suffix, **again)


def _mlflow(run: Path, stage: str, folder: Path) -> Any:
    """A run named <run>/<stage> of the experiment asd-edge, in RUN/mlflow unless MLFLOW_TRACKING_URI names a server."""
    from accelerate.tracking import MLflowTracker

    if URI_VARIABLE not in os.environ:
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        import_module("mlflow").set_tracking_uri((run / MLFLOW).absolute().as_uri())
    known = folder / MLFLOW_RUN
    run_id = known.read_text(encoding="utf-8").strip() if known.exists() else None
    return MLflowTracker("asd-edge", run_id=run_id, run_name=f"{run.absolute().name}/{stage}")


def _failures(name: str) -> tuple[type[Exception], ...]:
    """What a tracker raises when it can't write, or its server is out of reach."""
    own = import_module("mlflow.exceptions").MlflowException if name == MLFLOW else OSError
    return (OSError, own)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
