"""Features that are computed when they are needed give the same batches and weights as those of the cache, and take no disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import load_file

from asd_daemon.errors import RecordingError
from asd_trainer.cli.program import main
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, read_dataset, training_clips
from asd_trainer.data.feature_rows import at_hand
from asd_trainer.data.features import cached_log_mels, computed_log_mels, computed_waveforms
from asd_trainer.data.sound import load_clip
from asd_trainer.data.workers import Processes, at_work
from rig.tones import write_tones

pytestmark = pytest.mark.torch

KEYS = (
    "pretrain.steps=2",
    "pretrain.batch_clips=4",
    "pretrain.mask.clones=2",
    "pretrain.crop_frames=64",
    "finetune.epochs=1",
    "finetune.batch_clips=4",
    "finetune.kept_patches=0.05",
    "finetune.augment.mixup_probability=0.5",
    "finetune.augment.noise_probability=0.5",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_tones(tmp_path_factory.mktemp("tones"), train=2, test=1)])


def test_rows_are_those_of_the_cache_and_only_what_is_needed_is_computed(
    table: ClipTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = training_clips(table)
    cached, computed = cached_log_mels(clips, tmp_path), computed_log_mels(clips)
    assert (computed.shape, computed.ndim, len(computed)) == (cached.shape, cached.ndim, len(cached))
    asked: list[Clip] = []

    def noting(clip: Clip, channel: int) -> NDArray[np.float32]:
        asked.append(clip)
        return load_clip(clip, channel)

    monkeypatch.setattr("asd_trainer.data.features.load_clip", noting)
    some = at_hand(computed, np.array([5, 2, 5, 7]))
    assert len(asked) == 3
    for row in (5, 2, 7):
        np.testing.assert_array_equal(some[row], cached[row])
    assert some.shape == cached.shape
    with pytest.raises(KeyError):
        some[0]
    assert at_hand(cached, [1]) is cached
    np.testing.assert_array_equal(computed_waveforms(clips)[3], load_clip(clips[3]))


def test_workers_compute_them(table: ClipTable, tmp_path: Path) -> None:
    clips = training_clips(table)
    cached = cached_log_mels(clips, tmp_path)
    with at_work(Processes(2)):
        for row, found in computed_log_mels(clips).together(range(len(clips))).items():
            np.testing.assert_array_equal(found, cached[row])


def test_clip_that_has_gone_is_named(tmp_path: Path) -> None:
    clips = training_clips(read_dataset([write_tones(tmp_path, train=1, test=1)]))
    clips[1].path.unlink()
    with pytest.raises(RecordingError, match=clips[1].path.stem):
        computed_log_mels(clips)[1]


def test_a_run_that_computes_ends_with_the_same_weights_and_keeps_no_features(table: ClipTable, tmp_path: Path) -> None:
    data = table.clips[0].path.parents[2]
    for how in ("cache", "compute"):
        keys = [word for key in (*KEYS, f"features={how}") for word in ("--set", key)]
        call = ["run", "smoke", "--data", str(data), "--out", str(tmp_path / how), "--threads", "1", *keys]
        done = CliRunner().invoke(main, call)
        assert done.exit_code == 0, done.output
        assert (tmp_path / how / "features").exists() == (how == "cache")
    for stage, file in (("pretrain", "encoder"), ("finetune", "embedder")):
        one, other = (
            load_file(tmp_path / how / "stages" / stage / f"{file}.safetensors") for how in ("cache", "compute")
        )
        for name, tensor in one.items():
            np.testing.assert_array_equal(other[name].numpy(), tensor.numpy())
