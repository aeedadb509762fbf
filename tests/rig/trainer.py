"""asd-train in processes of its own that a test can stop and kill, each there in a moment: one process imports the libraries and forks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from rig.waiting import PATIENT_S

_PROGRAM = """
import json, os, sys
import accelerate, torch, torch.optim, torch.utils.flop_counter
from asd_trainer.cli import program
from asd_trainer.run import stages
from asd_trainer.run.fitting import Fitting
from asd_trainer.run.step_cost import StepCost
sys.modules["asd_trainer.cli.run"].show_forecast = lambda *_, **__: None  # seconds, at every call
stages.fitted = lambda name, recipe, *_: Fitting(recipe, (), StepCost(()))
for line in sys.stdin:
    words, log, environment = json.loads(line)
    child = os.fork()
    if child == 0:
        for file, mode, number in ((os.devnull, os.O_RDONLY, 0), (os.devnull, os.O_WRONLY, 1), (log, os.O_WRONLY | os.O_CREAT, 2)):
            os.dup2(os.open(file, mode, 0o600), number)
        os.environ.update(environment)
        sys.argv = ["asd-train", *words]
        program.main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class TrainerCall:
    """One call of asd-train that goes on, or has ended."""

    pid: int
    log: Path
    _answers: IO[str]

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return Path(f"/proc/{self.pid}").exists()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.runs:
            os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code when it has ended, as `subprocess` tells it."""
        return int(self._answers.readline())


class ForkingTrainer:
    """`with ForkingTrainer(folder) as trainer: trainer.start("run", …)`; one call at a time, with one thread each."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._calls = folder, 0

    def __enter__(self) -> Self:
        offered = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", _PROGRAM]
        self._process = subprocess.Popen(command, env=offered, stdin=pipe, stdout=pipe, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                end.close()
        self._process.wait(PATIENT_S)

    def start(self, *words: object, **environment: str) -> TrainerCall:
        """Begin a call, with more in its environment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._calls += 1
        log = self._folder / f"asd-train-{self._calls}.log"
        self._process.stdin.write(json.dumps([[str(word) for word in words], str(log), environment]) + "\n")
        self._process.stdin.flush()
        return TrainerCall(int(self._process.stdout.readline()), log, self._process.stdout)
