"""Clusters that take the place of attributes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from asd_daemon.errors import SettingsError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, read_dataset
from asd_trainer.finetune.pseudo_attributes import cluster, with_pseudo_attributes
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.stages import run_stages
from rig.tones import write_tones

F32 = NDArray[np.float32]
CONDITIONS, CLIPS = 3, 36


def clip(machine: str, name: str, attributes: tuple[tuple[str, str], ...] = ()) -> Clip:
    return Clip(
        Path(machine) / "train" / f"{name}.flac", machine, "00", "train", "source", "normal", attributes, None, None
    )


def log_mel(condition: int, rng: np.random.Generator) -> F32:
    """A machine that hums in another band in each condition, at any level."""
    bands = np.arange(128)
    hum = 4 * np.exp(-(((bands - 30 * (condition + 1)) / 6) ** 2))
    return (hum + rng.normal(0, 0.4, (50, 128)) + rng.uniform(-8, 0)).astype(np.float32)


def recordings(rng: np.random.Generator) -> tuple[list[Clip], F32, NDArray[np.int64]]:
    conditions = np.arange(CLIPS) % CONDITIONS
    return (
        [clip("fan", f"n{n}") for n in range(CLIPS)],
        np.stack([log_mel(int(c), rng) for c in conditions]),
        conditions,
    )


@pytest.mark.parametrize("clusters", [3, "auto"])
def test_clips_of_a_condition_bear_one_cluster_whatever_their_level(clusters: int) -> None:
    clips, features, conditions = recordings(np.random.default_rng(1))
    named = with_pseudo_attributes(clips, features, CLIPS, clusters)
    found = [dict(one.attributes)["cluster"] for one in named]
    assert adjusted_rand_score(conditions, found) == 1.0
    assert [one.path for one in named] == [one.path for one in clips]


def test_shapeless_sound_and_few_clips_are_not_cut() -> None:
    rng = np.random.default_rng(2)
    assert not cluster(rng.normal(size=(200, 256)).astype(np.float32), "auto").any()
    assert not cluster(rng.normal(size=(7, 256)).astype(np.float32), 4).any()
    assert len(set(cluster(rng.normal(size=(9, 256)).astype(np.float32), 4).tolist())) == 2  # four clips each, at least


def test_clips_beyond_what_is_linked_go_to_the_nearest_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asd_trainer.finetune.pseudo_attributes.MOST_LINKED", 12)
    clips, features, conditions = recordings(np.random.default_rng(3))
    found = [dict(one.attributes)["cluster"] for one in with_pseudo_attributes(clips, features, CLIPS, 3)]
    assert adjusted_rand_score(conditions, found) == 1.0


def test_what_was_made_of_a_recording_goes_with_it_and_the_rest_to_what_it_sounds_like() -> None:
    rng = np.random.default_rng(4)
    clips, features, _ = recordings(rng)
    separated = [clip("fan", "n4"), clip("fan", "n5")]
    synthetic = [clip("fan", "synthetic0")]
    made = np.stack([log_mel(0, rng), log_mel(0, rng), log_mel(2, rng)])  # separation changed how the first two sound
    named = with_pseudo_attributes([*clips, *separated, *synthetic], np.concatenate([features, made]), CLIPS, 3)
    assert named[CLIPS].attributes == named[4].attributes
    assert named[CLIPS + 1].attributes == named[5].attributes
    assert named[CLIPS + 2].attributes == named[2].attributes


def test_machines_with_attributes_keep_theirs() -> None:
    rng = np.random.default_rng(5)
    clips, features, _ = recordings(rng)
    told = [clip("valve", f"n{n}", (("v", str(n % 2)),)) for n in range(CLIPS)]
    named = with_pseudo_attributes([*clips, *told], np.concatenate([features, features]), 2 * CLIPS, 3)
    assert list(named[CLIPS:]) == told


def test_run_tells_clusters_apart_and_its_classes_say_so(tmp_path: Path) -> None:
    told = read_dataset([write_tones(tmp_path / "tones", train=16, test=1)])
    table = ClipTable(tuple(replace(one, attributes=()) for one in told.clips))
    overrides = ["finetune.epochs=1", "finetune.batch_clips=8", "finetune.kept_patches=0.05"]
    run_stages(load_recipe("smoke", [*overrides, "finetune.pseudo_attributes=2"]), table, tmp_path / "run")
    classes = json.loads((tmp_path / "run" / "stages" / "finetune" / "classes.json").read_text())
    assert any("cluster=1" in name for name in classes)
    with pytest.raises(SettingsError, match=r"finetune\.pseudo_attributes"):
        load_recipe("smoke", ["finetune.pseudo_attributes=some"])
