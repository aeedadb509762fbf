"""Checkpoints of a stage in training: weights, optimiser, random state and history, whole or not there at all.

Tensors are safetensors, scalars json; nothing is a pickle. A checkpoint appears under its name only when all of it is on disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from asd_daemon.errors import StageError
from asd_trainer.training.whole_file import write_whole

SCHEMA = 1
MODEL, OPTIMISER, RANDOM, STATE = "model.safetensors", "optimiser.safetensors", "random.safetensors", "state.json"
KEPT = 2  # the one before the last stays until the last is whole


class Checkpoints:
    """Checkpoints and history of one stage in its folder.

    `fingerprint` names the data that the stage learns from; a checkpoint with another one is refused. Of several processes one
    `writes`; the others only read.
    """

    def __init__(self, folder: Path, fingerprint: str, *, writes: bool = True) -> None:
        self._folder, self._fingerprint, self._writes = folder / "checkpoints", fingerprint, writes
        self._history = folder / "history.jsonl"
        self._noted: list[str] = []

    def note(self, step: int, figures: Mapping[str, float]) -> None:
        """Remember the figures of a step for the history; they are written with the next checkpoint."""
        if self._writes:
            self._noted.append(json.dumps({"step": step, **figures}))

    def save(self, step: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Write a checkpoint after a step, then drop the older ones.

        Raises:
            StageError: the folder can't be written.
        """
        final = self._folder / f"step-{step:08d}"
        partial = final.with_suffix(".partial")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, partial / MODEL)
            save_file(_optimiser_tensors(model, optimiser), partial / OPTIMISER)
            save_file(_random_state(), partial / RANDOM)
            state = {"schema": SCHEMA, "step": step, "fingerprint": self._fingerprint}
            (partial / STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")
            with self._history.open("a", encoding="utf-8") as history:
                history.writelines(f"{line}\n" for line in self._noted)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
        except OSError as e:
            raise StageError(f"{partial}: the checkpoint can't be written: {e.strerror}") from e
        self._noted.clear()
        for older in checkpoint_folders(self._folder)[:-KEPT]:
            _remove_at_once(older)

    def resume(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Load the newest whole checkpoint into model and optimiser; the number of steps done, 0 where there is none.

        Raises:
            StageError: the checkpoint is broken, or was made with other data or another version.
        """
        found = checkpoint_folders(self._folder)
        if not found:
            self._cut_history(0)
            return 0
        newest = found[-1]
        try:
            state = json.loads((newest / STATE).read_text(encoding="utf-8"))
            if state["schema"] != SCHEMA or state["fingerprint"] != self._fingerprint:
                raise StageError(
                    f"{newest}: was made with other clips or another version; remove it, or give another --out"
                )
            model.load_state_dict(load_file(newest / MODEL))
            _restore_optimiser(model, optimiser, load_file(newest / OPTIMISER))
            _restore_random_state(load_file(newest / RANDOM))
        except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as e:
            raise StageError(
                f"{newest}: the checkpoint is broken ({str(e).splitlines()[0]}); remove it to go on from the one before"
            ) from e
        step = int(state["step"])
        self._cut_history(step)
        return step

    def _cut_history(self, step: int) -> None:
        """Drop lines of steps that will be done again, and one that was written by half."""
        if not self._writes or not self._history.exists():
            return
        lines = self._history.read_text(encoding="utf-8").splitlines(keepends=True)[:step]
        write_whole(self._history, "".join(lines))


def checkpoint_folders(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder of checkpoints, oldest first; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.startswith("step-") and not p.suffix)


def steps_done(stage: Path) -> int:
    """Steps that the newest checkpoint of a stage's folder holds."""
    found = checkpoint_folders(stage / "checkpoints")
    return int(found[-1].name.removeprefix("step-")) if found else 0


def _remove_at_once(folder: Path) -> None:
    """Remove a folder such that a kill in the middle leaves nothing under its name."""
    doomed = folder.with_name(f"{folder.name}.removed")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of every parameter as `<slot>/<parameter>`, for example `exp_avg/projection.weight`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{slot}/{names[parameter]}": tensor.contiguous()
        for parameter, slots in optimiser.state.items()
        for slot, tensor in slots.items()
    }


def _restore_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for key, tensor in tensors.items():
        slot, _, name = key.partition("/")
        parameter = parameters[name]
        # Counters stay on the CPU, where the optimiser keeps them; a clone is aligned as a fresh tensor is.
        device = parameter.device if tensor.ndim else tensor.device
        optimiser.state[parameter][slot] = tensor.clone().to(device)


def _random_state() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_random_state(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
