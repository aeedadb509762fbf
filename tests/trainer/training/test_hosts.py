"""A run on two hosts: two processes that share the run folder and shards, and have homes, caches and folders of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from asd_trainer.cli.program import main
from asd_trainer.data.dataset import read_dataset
from asd_trainer.data.shard_writing import write_shards
from asd_trainer.training.checkpoint import steps_done
from asd_trainer.training.stage_mark import read_mark
from rig.tones import write_tones
from rig.waiting import PATIENT_S, wait_until

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
    return ["-m", "asd_trainer", "run", "smoke", "--data", str(data), "--out", str(run), "--threads", "1", *keys]


class Host:
    """One of two processes, each the only one of its host, as a launcher would start them there."""

    def __init__(self, rank: int, port: int, folder: Path, words: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
        alone = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": str(rank), "OMP_NUM_THREADS": "1"}
        own = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache"), "TMPDIR": str(folder)}
        offered = {**os.environ, **meeting, **alone, **own, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        offered.pop("ASD_SHARD_CACHE", None)
        self.log = folder / "log"
        with self.log.open("w") as log:
            command = [sys.executable, *words]
            self.process = subprocess.Popen(command, env=offered, cwd=folder, stdout=log, stderr=log)

    def ended(self) -> int:
        return self.process.wait(PATIENT_S)


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


def test_two_hosts_learn_like_one_and_go_on_after_one_has_died(tmp_path: Path, shards: Path) -> None:
    together, address = tmp_path / "shared" / "run", f"local://{shards}"
    together.parent.mkdir()

    def started(*more: str) -> list[Host]:
        port = free_port()
        return [Host(rank, port, tmp_path / f"host{rank}", call(address, together, *more)) for rank in (0, 1)]

    hosts = started()
    stage = together / "stages" / "finetune"
    wait_until(lambda: steps_done(stage) >= 2 or hosts[0].process.poll() is not None, "a checkpoint")
    hosts[1].process.send_signal(signal.SIGKILL)
    assert hosts[1].ended() == -signal.SIGKILL, hosts[1].log.read_text()
    assert hosts[0].ended() == 2, hosts[0].log.read_text()
    assert "another one has ended, or can't be reached" in hosts[0].log.read_text()
    done = steps_done(stage)
    assert 2 <= done < 12
    assert read_mark(stage) is None

    hosts = started()
    assert [host.ended() for host in hosts] == [0, 0], "".join(host.log.read_text() for host in hosts)
    assert f"going on after step {done} of 12" in hosts[0].log.read_text()
    mark = read_mark(stage)
    assert mark is not None
    assert mark.processes == 2
    fetched = [list((tmp_path / f"host{rank}").rglob("shards/*.parquet")) for rank in (0, 1)]
    assert fetched[0]  # into a folder of its own; the other one reads the features that lie in the run
    assert not fetched[1]

    alone = CliRunner().invoke(main, call(shards, tmp_path / "alone")[2:])
    assert alone.exit_code == 0, alone.output
    found, expected = (
        load_file(run / "stages" / "finetune" / "embedder.safetensors") for run in (together, tmp_path / "alone")
    )
    for name, tensor in expected.items():  # as near as in test_processes
        apart = (found[name].float() - tensor.float()).abs()
        assert float(apart.mean()) < 5e-5 + 1e-3 * float(tensor.float().abs().mean()), name


_LOOK = """
import sys
from pathlib import Path
from asd_daemon.errors import StageError
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
    port = free_port()
    hosts = [Host(rank, port, tmp_path / f"host{rank}", ["-c", _LOOK, str(tmp_path), "x" * rank]) for rank in (0, 1)]
    for host in hosts:
        assert host.ended() == 0, host.log.read_text()
        assert (
            "run: is not the same folder for all 2 processes (not for 1): give --out on a disk" in host.log.read_text()
        )
        assert "finetune: processes found checkpoints of different steps (0, 1)" in host.log.read_text()
    assert not list(tmp_path.glob("host*/run/.*"))
