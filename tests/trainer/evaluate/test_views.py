"""A run judges by fused views, and asks normal clips whether separated sound counts; no test clip has a say."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import DataSetError, RecordingError
from asd_daemon.judge.features.views import view_vectors
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED
from asd_daemon.learn.learning import learn
from asd_trainer.data.dataset import Clip, ClipTable, load_clip, read_dataset
from asd_trainer.evaluate import separation_trial, views
from asd_trainer.evaluate.backend import score_run
from asd_trainer.evaluate.embeddings import run_embeddings
from asd_trainer.evaluate.evaluation import machine_results, omega
from asd_trainer.evaluate.run_models import run_extractor
from asd_trainer.evaluate.separation_trial import Separating, helped_machines
from asd_trainer.evaluate.views import normal_sound, run_views
from asd_trainer.recipe.recipe import load_recipe
from asd_trainer.run.stages import run_stages
from rig.guided import write_guided_tones

pytestmark = pytest.mark.torch

CHOICES: tuple[Separating, ...] = ("never", "auto", "always")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_guided_tones(tmp_path_factory.mktemp("tones"), train=8, test=2)])


@pytest.fixture(scope="module")
def run(table: ClipTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    words = ["separate.enabled=true", "separate.steps=2", "separate.batch_mixtures=1", "separate.crop_s=0.25"]
    words += [
        "finetune.epochs=1",
        "finetune.batch_clips=8",
        "embedding.layers=patches",
        "embedding.pooling=quantiles",
        "finetune.kept_patches=1",
    ]
    run_stages(load_recipe("smoke", words), table, run)
    return run


@pytest.fixture(autouse=True)
def few_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed copies of half of the clips, as of a large data set: hearing them is what takes time."""
    monkeypatch.setattr(views, "MOST_CHANGED", 8)


def training(table: ClipTable, machine: str) -> tuple[Clip, ...]:
    return table.select(split="train", machine=machine)


def test_views_of_clips_are_those_of_the_edge_and_of_the_runs_embeddings(run: Path, table: ClipTable) -> None:
    clips = training(table, "hummer")[:3]
    hearing, separates = run_extractor(run, "hummer")
    assert separates
    sound = normal_sound(hearing, clips, (HEARD, "steady-mean"), changes=True)
    np.testing.assert_allclose(sound.vectors[HEARD][:, 0], run_embeddings(run, clips), atol=2e-5)
    expected = np.stack([view_vectors(load_clip(clip))["steady-mean"] for clip in clips])
    np.testing.assert_allclose(sound.vectors["steady-mean"], expected, atol=1e-5)
    assert sound.changed[HEARD].shape == (5, 3, 128)


def test_run_is_judged_by_views_learned_from_its_normal_clips(run: Path, table: ClipTable) -> None:
    scores = score_run(run, table, scoring="views")
    assert [one.clip for one in scores.test] == list(table.select(split="test"))
    assert {one.clip for one in scores.training} == set(table.select(split="train"))
    assert scores.views is not None
    assert set(scores.views) == {"hummer", "singer"}
    assert all(sum(weights.values()) == pytest.approx(1, abs=1e-3) for weights in scores.views.values())
    assert omega(machine_results(scores.test)) > 0.9, "another pitch is what these views are for"
    hearing, _ = run_extractor(run, "singer")
    learned = learn(
        normal_sound(hearing, training(table, "singer"), (HEARD, SEPARATED, "moving-texture"), changes=False)
    )
    few = run_views(run, table.select(split="train"), table.select(split="test", machine="singer"), ("moving-texture",))
    (found,) = few.values()
    assert found.learned.weights == learned.weights
    clip = table.select(split="test", machine="singer")[0]
    again = learned.fusion.score(hearing.vectors(load_clip(clip), learned.fusion.names()))
    assert found.test[0] == pytest.approx(float(again[0]), abs=1e-5)


def test_choice_of_views_does_not_see_the_test_clips(run: Path, table: ClipTable) -> None:
    train, test = table.select(split="train"), table.select(split="test")
    (few, many) = (
        run_views(run, train, some, ("steady-floor", "moving-texture"), own=False) for some in (test[:1], test)
    )
    unit = test[0].unit
    assert few[unit].learned.weights == many[unit].learned.weights
    assert few[unit].test[0] == many[unit].test[0]


def test_too_few_normal_clips_for_views_are_refused(run: Path, table: ClipTable) -> None:
    with pytest.raises(DataSetError, match="hummer: 5 normal clips are too few to learn views from"):
        run_views(run, training(table, "hummer")[:5], table.select(split="test", machine="hummer"))


def test_unreadable_clip_is_named_or_noted(run: Path, table: ClipTable, tmp_path: Path) -> None:
    good, other = training(table, "hummer")[:2]
    broken = replace(other, path=tmp_path / "broken.wav")
    broken.path.write_bytes(b"RIFF")
    hearing, _ = run_extractor(run, "hummer")
    with pytest.raises(RecordingError, match=r"broken\.wav"):
        normal_sound(hearing, [good, broken], (HEARD,), changes=False)
    unread: list[str] = []
    assert normal_sound(hearing, [good, broken], (HEARD,), changes=False, unread=unread).windows == 1
    assert "broken.wav" in unread[0]


def test_separated_sound_counts_where_normal_clips_or_the_recipe_say_so(
    run: Path, table: ClipTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = tmp_path / "run"
    shutil.copytree(run, own, ignore=shutil.ignore_patterns("scores"))
    train = table.select(split="train")
    assert helped_machines(own, train, "always") == ("hummer", "singer")
    assert helped_machines(own, train, "never") == ()
    asked: list[int] = []

    def only_the_first(heard: np.ndarray, *_rest: np.ndarray) -> bool:
        asked.append(len(heard))
        return len(asked) == 1

    monkeypatch.setattr(separation_trial, "separation_improves", only_the_first)
    assert helped_machines(own, train, "auto") == ("hummer",)
    assert helped_machines(own, train, "auto") == ("hummer",), "the answer is kept"
    assert asked == [8, 8]
    never, auto, always = (
        {one.clip: one.score for one in score_run(own, table, separating=choice).test} for choice in CHOICES
    )
    assert auto.keys() == always.keys() == never.keys()
    # Of another number of clips, the embeddings come in batches of another shape, which round differently
    expected = {clip: (always if clip.machine == "hummer" else never)[clip] for clip in auto}
    assert list(auto.values()) == pytest.approx(list(expected.values()), abs=1e-5)
    assert min(abs(always[clip] - never[clip]) for clip in auto) > 1e-3
    # What the recipe says holds where nothing is asked for, and is told.
    (own / "recipe.yaml").write_text(load_recipe("smoke", ["evaluate.separation=always"]).to_yaml())
    with caplog.at_level("INFO", "asd_trainer.evaluate"):
        assert {one.clip: one.score for one in score_run(own, table).test} == always
    assert "and of the separated one of hummer, singer (separated sound: always, by its recipe)" in caplog.text
