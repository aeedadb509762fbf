"""Batch norm over several processes against torch's own over the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from asd_trainer.networks.normalisation import BatchNorm
from rig.processes import batch, learned
from rig.waiting import PATIENT_S

pytestmark = pytest.mark.torch

PROGRAM = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from torch import distributed
from asd_trainer.networks.normalisation import BatchNorm
from rig.processes import batch, learned

folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
rows, wish = batch()
# Parts of different size: the statistics are those of all rows, not the mean of two statistics.
part = slice(0, 3) if rank == 0 else slice(3, None)
found = learned(BatchNorm(rows.shape[1]).double(), rows[part], wish[part])
for name in ("weight", "bias"):
    distributed.all_reduce(found[name])
save_file(found, folder / f"{rank}.safetensors")
distributed.barrier()
distributed.destroy_process_group()
"""


def test_two_processes_normalise_and_learn_like_one(tmp_path: Path) -> None:
    rows, wish = batch()
    reference = nn.BatchNorm1d(5).double()
    expected = learned(reference, rows, wish)
    (tmp_path / "program.py").write_text(PROGRAM)
    offered = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), str(tmp_path), str(rank), "2"],
            env=offered,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, stderr = process.communicate(timeout=PATIENT_S)
        assert process.returncode == 0, stderr
    parts = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    for name in ("output", "input"):
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), expected[name], rtol=1e-10, atol=1e-12)
    for name in ("weight", "bias", "running_mean", "running_var"):
        for part in parts:
            torch.testing.assert_close(part[name], expected[name], rtol=1e-10, atol=1e-12)


def test_alone_it_is_the_batch_norm_of_torch() -> None:
    rows, _ = batch()
    own, reference = BatchNorm(5).double(), nn.BatchNorm1d(5).double()
    for training in (True, False):
        own.train(training)
        reference.train(training)
        assert torch.equal(own(rows), reference(rows))
    assert all(torch.equal(tensor, reference.state_dict()[name]) for name, tensor in own.state_dict().items())
