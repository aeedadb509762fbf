"""The processes that train together: one, or as many as `accelerate launch` or `torchrun` started, on one host or several.

Owns how they find each other, how long they wait, that all see one run folder, and what is said when one of them is lost. It trains
nothing.
"""

from __future__ import annotations

import atexit
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from asd_daemon.errors import StageError

PATIENCE = timedelta(days=2)
"""How long processes wait for the first one, which separates, synthesises and computes features for all."""
_LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "gloo",
    "NCCL",
    "TCPStore",
    "Timed out",
)
"""What libraries say when another process is out of reach; gloo has no error of its own."""


def processes() -> PartialState:
    """Where in them we are; the first call joins them. Without an accelerator, or where it is not wanted, they meet on the CPU.

    Raises:
        StageError: a launcher wanted several and told none of them how many there are, or another one can't be reached.
    """
    _refuse_lone_process()
    unwanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
    with lost_processes_told():
        return PartialState(cpu=unwanted or not torch.accelerator.is_available(), timeout=PATIENCE)


_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def _refuse_lone_process() -> None:
    """`accelerate launch` without GPUs names a first process to one that it starts alone: each host would train the whole run by itself."""
    told = os.environ
    if "MASTER_ADDR" in told and "ACCELERATE_MIXED_PRECISION" in told and not any(name in told for name in _COUNTS):
        raise StageError(
            f"accelerate launch was asked for several processes, names the first one (MASTER_ADDR={told['MASTER_ADDR']}) and has started "
            "this one alone, as it does without GPUs: start them with torchrun --nnodes HOSTS --nproc-per-node PROCESSES -m asd_trainer …"
        )


@atexit.register
def _leave() -> None:
    """Leave the others in order: threads of a group that is still joined abort the process when Python is gone from under them."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def lost_processes_told() -> Iterator[None]:
    """Inside, that another process is out of reach is an error in words.

    Raises:
        StageError: it is.
    """
    try:
        yield
    except RuntimeError as e:
        text = str(e).strip()
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or not (
            isinstance(e, torch.distributed.DistError) or any(word in text for word in _LOST)
        ):
            raise
        raise StageError(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}: another one has ended, or can't be reached "
            f"({text.splitlines()[0] if text else type(e).__name__}); the same commands on all hosts go on from the last checkpoint"
        ) from e


def refuse_separate_folders(folder: Path) -> None:
    """See that a folder is one and the same for all processes: what the first one writes there, all others read.

    Raises:
        StageError: it is not, in all of them; or it can't be written.
    """
    together = processes()
    if together.num_processes == 1:
        return
    mark = [f".together-{secrets.token_hex(8)}" if together.is_main_process else ""]
    broadcast_object_list(mark)
    path = folder / mark[0]
    try:
        if together.is_main_process:
            path.touch()
        together.wait_for_everyone()
        there = gather_object([path.exists()])
    except OSError as e:
        raise StageError(f"{folder}: can't be written: {e.strerror}") from e
    finally:
        if together.is_main_process:
            path.unlink(missing_ok=True)
    if not all(there):
        missing = ", ".join(str(rank) for rank, found in enumerate(there) if not found)
        raise StageError(
            f"{folder}: is not the same folder for all {len(there)} processes (not for {missing}): "
            "give --out on a disk that all hosts share"
        )


def refuse_different_steps(name: str, step: int) -> None:
    """See that all processes go on from the same checkpoint.

    Raises:
        StageError: they found different ones, in all of them.
    """
    together = processes()
    found = gather_object([step]) if together.num_processes > 1 else [step]
    if len(set(found)) > 1:
        raise StageError(
            f"{name}: processes found checkpoints of different steps ({', '.join(map(str, found))}): is what one host writes "
            "seen by the others at once? An NFS mount needs lookupcache=positive"
        )
