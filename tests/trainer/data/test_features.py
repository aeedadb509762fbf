"""The cache of log-mels: right, whole, shared between processes, and never of another feature or other sound."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError, StageError
from asd_daemon.judge.features.log_mel import FEATURE, log_mel
from asd_trainer.data import features
from asd_trainer.data.dataset import Clip, load_clip, read_dataset
from asd_trainer.data.features import cached_log_mels, clips_digest
from rig.tones import write_tones
from rig.waiting import PATIENT_S


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Clip, ...]:
    return read_dataset([write_tones(tmp_path / "data", train=2, test=1)]).clips


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many clips each computation was asked for."""
    calls: list[int] = []
    original = features.clip_log_mels

    def counting(wanted: Sequence[Clip]) -> Iterator[NDArray[np.float32]]:
        calls.append(len(wanted))
        return original(wanted)

    monkeypatch.setattr(features, "clip_log_mels", counting)
    return calls


def test_rows_are_the_clips_log_mels_and_are_computed_once(
    clips: tuple[Clip, ...], computed: list[int], tmp_path: Path
) -> None:
    first = cached_log_mels(clips, tmp_path / "features")
    assert first.shape == (len(clips), 998, 128)
    assert not first.flags.writeable
    for row, clip in zip(first, clips, strict=True):
        np.testing.assert_array_equal(row, log_mel(load_clip(clip)))
    np.testing.assert_array_equal(cached_log_mels(clips, tmp_path / "features"), first)
    assert computed == [len(clips)]
    assert not list((tmp_path / "features").glob("*.partial"))


def test_another_feature_setting_is_computed_anew(
    clips: tuple[Clip, ...], computed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = clips_digest(clips)
    cached_log_mels(clips, tmp_path / "features")
    monkeypatch.setattr(features, "FEATURE", FEATURE.model_copy(update={"low_hz": FEATURE.low_hz + 30}))
    assert clips_digest(clips) != before
    cached_log_mels(clips, tmp_path / "features")
    assert computed == [len(clips)] * 2
    assert len(list((tmp_path / "features").glob("*.npy"))) == 2


def test_a_changed_recording_is_computed_anew(clips: tuple[Clip, ...], computed: list[int], tmp_path: Path) -> None:
    first = cached_log_mels(clips, tmp_path / "features")[0].copy()
    soundfile.write(clips[0].path, np.random.default_rng(0).uniform(-0.1, 0.1, 20_000), 16_000)
    assert not np.array_equal(cached_log_mels(clips, tmp_path / "features")[0], first)
    assert len(computed) == 2


def test_a_file_that_was_cut_off_is_made_again(clips: tuple[Clip, ...], computed: list[int], tmp_path: Path) -> None:
    whole = np.array(cached_log_mels(clips, tmp_path / "features"))
    (path,) = (tmp_path / "features").glob("*.npy")
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(cached_log_mels(clips, tmp_path / "features"), whole)
    assert len(computed) == 2


def test_a_clip_that_can_not_be_read_leaves_no_half_cache(clips: tuple[Clip, ...], tmp_path: Path) -> None:
    clips[3].path.write_bytes(b"RIFF")
    with pytest.raises(RecordingError, match=clips[3].path.name):
        cached_log_mels(clips, tmp_path / "features")
    assert {path.suffix for path in (tmp_path / "features").iterdir()} == {".lock"}


def test_a_full_disk_is_said_and_not_died_of(
    clips: tuple[Clip, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StageError, match="can't be written: No space left on device"):
        cached_log_mels(clips, tmp_path / "features")
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(StageError, match=r"needs 0\.0 GB, 0\.0 GB are free"):
        cached_log_mels(clips, tmp_path / "features")


READER = """
import sys
from pathlib import Path
from asd_trainer.data import features
from asd_trainer.data.dataset import read_dataset
clips = read_dataset([Path(sys.argv[1])]).clips
computed, original = [], features.clip_log_mels
features.clip_log_mels = lambda wanted: computed.append(len(wanted)) or original(wanted)
print("ready", flush=True)
sys.stdin.readline()
found = features.cached_log_mels(clips, Path(sys.argv[2]))
print(len(computed), float(found.sum(dtype="float64")), flush=True)
"""


def test_of_processes_that_begin_together_one_computes_and_all_read_the_same(
    clips: tuple[Clip, ...], tmp_path: Path
) -> None:
    call = [sys.executable, "-c", READER, str(tmp_path / "data"), str(tmp_path / "features")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(call, **pipes) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [process.communicate(timeout=PATIENT_S)[0].split() for process in processes]
    assert sorted(computations for computations, _ in found) == ["0", "0", "1"]
    assert len({total for _, total in found}) == 1
