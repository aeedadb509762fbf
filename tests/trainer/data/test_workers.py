"""Log-mels by threads, processes and a dask cluster of two worker processes: the same bits in the same order, whoever dies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asd_daemon.errors import RecordingError, StageError, UsageError
from asd_daemon.judge.features.log_mel import log_mel
from asd_trainer.cli.program import main
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import load_clip, read_dataset
from asd_trainer.data.features import cached_log_mels, clip_log_mels
from asd_trainer.data.shard_writing import write_shards
from asd_trainer.data.worker_choice import chosen_workers
from asd_trainer.data.workers import Threads, Workers, at_work, workers
from rig.odd_work import deadly, dying_once
from rig.tones import write_tones

distributed = pytest.importorskip("distributed", reason="needs the dask extra")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The scheduler of two worker processes; others take the place of those that die."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as running:
        yield running.scheduler_address.replace("tcp://", "dask://")


@pytest.fixture(params=["threads", "processes", "dask"])
def chosen(request: pytest.FixtureRequest) -> Iterator[Workers]:
    words = {"threads": None, "processes": "2", "dask": "cluster"}[request.param]
    found = chosen_workers(request.getfixturevalue("cluster") if words == "cluster" else words)
    with at_work(found):
        yield found


def made_up(folder: Path, count: int) -> list[Clip]:
    return [Clip(folder, "fan", "00", "train", None, "normal", (), None, None, row=row) for row in range(count)]


def test_log_mels_are_the_same_bits_in_the_same_order(chosen: Workers, tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", train=3, test=1)
    table = read_dataset([data])
    write_shards(table, [data], tmp_path / "shards", clips_a_shard=7, progress=lambda *_: None)
    clips = (*table.clips, *read_dataset([tmp_path / "shards"]).clips)
    found = cached_log_mels(clips, tmp_path / "features")
    assert workers() is chosen
    assert len(found) == len(clips) == 40
    for row, clip in zip(found, clips, strict=True):
        np.testing.assert_array_equal(row, log_mel(load_clip(clip)))


def test_clip_that_can_not_be_read_is_named(chosen: Workers, tmp_path: Path) -> None:
    clips = read_dataset([write_tones(tmp_path / "data", train=2, test=1)]).clips
    clips[6].path.write_bytes(b"RIFFnothing")
    with pytest.raises(RecordingError, match=clips[6].path.stem):
        list(clip_log_mels(clips))
    assert len(list(clip_log_mels(clips[:6]))) == 6


@pytest.mark.parametrize("who", ["2", "cluster"])
def test_of_a_worker_that_dies_nothing_is_lost(who: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    words = request.getfixturevalue("cluster") if who == "cluster" else who
    with at_work(chosen_workers(words)) as chosen:
        rows = np.array(list(chosen.each(dying_once, made_up(tmp_path, 30), 2)))
        np.testing.assert_array_equal(rows[:, 0], np.arange(30) + 2)
        assert (tmp_path / "died").is_dir()


@pytest.mark.parametrize("who", ["2", "cluster"])
def test_clips_of_which_all_workers_die_end_it(who: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    words = request.getfixturevalue("cluster") if who == "cluster" else who
    with at_work(chosen_workers(words)) as chosen:
        with pytest.raises(StageError, match=r"--workers .*memory"):
            list(chosen.each(deadly, made_up(tmp_path, 30), 0))
        rows = list(chosen.each(deadly, made_up(tmp_path, 5), 0))
        assert [int(row[0]) for row in rows] == [0, 1, 2, 3, 4]


def test_words_that_name_nobody_are_refused() -> None:
    for words in ("0", "many", "dask://host", "dask://host:port", "slurm://host:1", "-1"):
        with pytest.raises(UsageError, match=f"--workers {words}"):
            chosen_workers(words)
    assert isinstance(chosen_workers(None), Threads)


def test_scheduler_that_does_not_answer_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asd_trainer.data.cluster.WAIT_S", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        words = f"dask://127.0.0.1:{taken.getsockname()[1]}"
        data = write_tones(tmp_path / "data", train=2, test=1)
        call = ["run", "smoke", "--data", str(data), "--out", str(tmp_path / "run"), "--workers", words]
        done = CliRunner().invoke(main, call)
    assert done.exit_code == 2
    assert f"error: --workers {words}: no dask scheduler answers there" in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_ray_that_is_not_there_is_said() -> None:
    with pytest.raises(StageError, match=r"pip install 'asd-edge\[ray\]'"):
        chosen_workers("ray://127.0.0.1:1").start()
