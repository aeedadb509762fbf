"""A run on two hosts: two processes that share the run folder and shards, and have homes, caches and folders of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from asd_trainer.data.dataset import read_dataset
from asd_trainer.data.shard_writing import write_shards
from asd_trainer.training.checkpoint import steps_done
from asd_trainer.training.stage_mark import read_mark
from rig.tones import write_tones
from rig.trainer import ForkingTrainer, TrainerCall
from rig.waiting import PATIENT_S, is_over, wait_until

pytestmark = pytest.mark.torch

TINY = (
    "finetune.epochs=6",
    "finetune.batch_clips=4",
    "finetune.kept_patches=0.05",
    "finetune.optimiser.learning_rate=1e-4",
    "finetune.optimiser.checkpoint_steps=2",
)


def call(data: Path | str, run: Path | str, *more: str) -> list[str]:
    keys = [word for key in (*TINY, *more) for word in ("--set", key)]
    return ["run", "smoke", "--data", str(data), "--out", str(run), "--threads", "1", *keys]


def environment(rank: int, port: int, folder: Path) -> dict[str, str]:
    """Of the only process of a host, as a launcher would start it there, with a home and a cache of its own."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    alone = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": str(rank)}
    return {**meeting, **alone, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ForkingTrainer, ForkingTrainer]]:
    with (
        ForkingTrainer(tmp_path_factory.mktemp("host0")) as first,
        ForkingTrainer(tmp_path_factory.mktemp("host1")) as second,
    ):
        yield first, second


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    data = write_tones(root / "data", train=2, test=1)
    write_shards(read_dataset([data]), [data], root / "shards", clips_a_shard=6, progress=lambda *_: None)
    return root / "shards"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_hosts_learn_like_one_and_go_on_after_one_has_died(
    tmp_path: Path, shards: Path, hosts: tuple[ForkingTrainer, ForkingTrainer]
) -> None:
    together, address = tmp_path / "shared" / "run", f"local://{shards}"
    for name in ("shared", "home0", "home1"):
        (tmp_path / name).mkdir()

    def started() -> list[TrainerCall]:
        port = free_port()
        homes = enumerate((tmp_path / "home0", tmp_path / "home1"))
        return [hosts[rank].start(*call(address, together), **environment(rank, port, home)) for rank, home in homes]

    first, second = started()
    stage = together / "stages" / "finetune"
    wait_until(lambda: steps_done(stage) >= 2 or is_over(first.pid), "a checkpoint")
    second.send(signal.SIGKILL)
    assert second.wait() == -signal.SIGKILL, second.log.read_text()
    assert first.wait() == 2, first.log.read_text()
    assert "another one has ended, or can't be reached" in first.log.read_text()
    done = steps_done(stage)
    assert 2 <= done < 12
    assert read_mark(stage) is None

    first, second = started()
    assert [first.wait(), second.wait()] == [0, 0], first.log.read_text() + second.log.read_text()
    assert f"going on after step {done} of 12" in first.log.read_text()
    mark = read_mark(stage)
    assert mark is not None
    assert mark.processes == 2
    fetched = [list((tmp_path / home).rglob("shards/*.parquet")) for home in ("home0", "home1")]
    assert fetched[0]  # into a folder of its own; the other one reads the features that lie in the run
    assert not fetched[1]

    alone = hosts[0].start(*call(shards, tmp_path / "alone"))
    assert alone.wait() == 0, alone.log.read_text()
    found, expected = (
        load_file(run / "stages" / "finetune" / "embedder.safetensors") for run in (together, tmp_path / "alone")
    )
    for name, tensor in expected.items():  # as near as in test_processes
        apart = (found[name].float() - tensor.float()).abs()
        assert float(apart.mean()) < 5e-5 + 1e-3 * float(tensor.float().abs().mean()), name


_LOOK = """
import atexit
import sys
from pathlib import Path
import torch
from asd_daemon.errors import StageError
atexit.register(lambda: print("joined at the end:", torch.distributed.is_initialized()))  # what was registered first is called last
from asd_trainer.training.processes import refuse_different_steps, refuse_separate_folders
Path("run").mkdir()
refuse_separate_folders(Path(sys.argv[1]))
refuse_different_steps("finetune", 3)
for look in (lambda: refuse_separate_folders(Path("run")), lambda: refuse_different_steps("finetune", len(sys.argv[2]))):
    try:
        look()
    except StageError as e:
        print(e)
"""


def test_what_hosts_do_not_share_is_refused_by_all(tmp_path: Path) -> None:
    port, looking = free_port(), []
    for rank in (0, 1):
        folder = tmp_path / f"host{rank}"
        folder.mkdir()
        offered = {
            **os.environ,
            **environment(rank, port, folder),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        command = [sys.executable, "-c", _LOOK, str(tmp_path), "x" * rank]
        looking.append(subprocess.Popen(command, env=offered, cwd=folder, stdout=subprocess.PIPE, text=True))
    for one in looking:
        told = one.communicate(timeout=PATIENT_S)[0]
        assert one.returncode == 0
        assert "joined at the end: False" in told
        assert "run: is not the same folder for all 2 processes (not for 1): give --out on a disk" in told
        assert "finetune: processes found checkpoints of different steps (0, 1)" in told
    assert not list(tmp_path.glob("host*/run/.*"))
