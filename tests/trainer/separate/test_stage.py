"""The stages that separate and synthesise, and what other stages take from them."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import DataSetError, SettingsError, StageError
from asd_trainer.data.dataset import ClipTable, class_labels, load_clip, read_dataset, training_clips
from asd_trainer.recipe.recipe import Recipe, load_recipe
from asd_trainer.run.stage_clips import of_years, stage_table
from asd_trainer.run.stages import run_stage, run_stages, stages_of
from asd_trainer.separate.losses import separate as separated_sources
from asd_trainer.separate.stage import (
    finetuning_clips,
    guided_machines,
    read_clips,
    separate,
    separated_machines,
    separated_twins,
    synthesize,
    write_clips,
)
from asd_trainer.separate.training import load_separator
from rig.guided import write_guided_tones
from rig.tones import write_tones

pytestmark = pytest.mark.torch


def tiny_recipe(*overrides: str) -> Recipe:
    keys = ("separate.enabled=true", "separate.steps=2", "separate.batch_mixtures=1", "separate.crop_s=0.25")
    more = ("synthesize.clips=20", "finetune.epochs=1", "finetune.batch_clips=8", "finetune.kept_patches=0.05")
    return load_recipe("smoke", [*keys, *more, *overrides])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ClipTable:
    return read_dataset([write_guided_tones(tmp_path_factory.mktemp("tones"))])


@pytest.fixture(scope="module")
def run(table: ClipTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "guided"
    for stage in ("separate", "synthesize"):
        run_stage(stage, tiny_recipe(), table, run)
    return run


def test_machines_are_separated_by_what_guides_them(run: Path, table: ClipTable) -> None:
    machines = separated_machines(run)
    assert {name: (one.guidance, one.network) for name, one in machines.items()} == {
        "hummer": ("clean", "."),
        "singer": ("noise", "."),
    }
    assert set(guided_machines(tiny_recipe("separate.guidance=clean").separate, table)) == {"hummer"}


def test_twin_is_the_machine_that_the_network_hears_in_the_clip(run: Path, table: ClipTable) -> None:
    clips = (*table.select(split="test", machine="singer"), *training_clips(table))
    network = load_separator(run / "stages" / "separate")
    for clip, one in zip(clips, separated_twins(run, clips), strict=True):
        assert one is not None
        assert one.clip is clip
        assert replace(one.machine, path=clip.path) == clip
        expected = separated_sources(network, load_clip(clip))[0]
        np.testing.assert_allclose(load_clip(one.machine), expected, atol=2e-7)  # 24 bit


def test_clips_of_one_name_in_two_folders_have_twins_of_their_own(run: Path, tmp_path: Path) -> None:
    others = read_dataset([write_tones(tmp_path / "other", train=1, test=1, seconds=6.0)])
    first = training_clips(others)[0]
    (one,) = separated_twins(run, [first])
    assert one is not None
    assert len(list((run / "separated").rglob(f"hummer/train/{first.path.stem}.flac"))) == 2
    expected = separated_sources(load_separator(run / "stages" / "separate"), load_clip(first))[0]
    np.testing.assert_allclose(load_clip(one.machine), expected, atol=2e-7)  # 24 bit; not the twin of the other folder


def test_machine_that_the_run_does_not_know_has_no_twin(run: Path, table: ClipTable) -> None:
    stranger = replace(table.clips[0], machine="kettle")
    assert separated_twins(run, [stranger]) == (None,)
    assert separated_twins(run.parent / "none", table.clips) == (None,) * len(table.clips)


def test_synthetic_clips_are_four_to_one_of_known_classes_and_follow_from_the_seed(
    run: Path, table: ClipTable, tmp_path: Path
) -> None:
    folder = run / "stages" / "synthesize"
    clips = read_clips(folder / "clips.jsonl", folder)
    assert Counter((clip.machine, clip.domain) for clip in clips) == {
        (machine, domain): number
        for machine in ("hummer", "singer")
        for domain, number in (("source", 8), ("target", 2))
    }
    assert set(class_labels(clips)[1]) == set(class_labels(training_clips(table))[1])
    assert all(clip.path.exists() for clip in clips)
    for stage in ("separate", "synthesize"):
        run_stage(stage, tiny_recipe(), table, tmp_path)
    again = read_clips(tmp_path / "stages" / "synthesize" / "clips.jsonl", tmp_path / "stages" / "synthesize")
    assert [clip.path.read_bytes() for clip in again] == [clip.path.read_bytes() for clip in clips]


def test_finetuning_learns_from_original_separated_and_synthetic_clips(run: Path, table: ClipTable) -> None:
    originals = training_clips(table)
    clips = finetuning_clips(tiny_recipe(), table, run)
    assert len(clips) == 2 * len(originals) + 20
    assert clips[: len(originals)] == originals
    assert {clip.path.parents[3].name for clip in clips[len(originals) : 2 * len(originals)]} == {"separated"}
    without = tiny_recipe("finetune.separated=false", "synthesize.clips=0")
    assert finetuning_clips(without, table, run) == originals
    run_stage("finetune", tiny_recipe(), table, run)
    history = (run / "stages" / "finetune" / "history.jsonl").read_text().splitlines()
    assert len(history) == len(clips) // 8


def test_one_network_for_each_machine_lies_in_a_folder_of_its_own(table: ClipTable, tmp_path: Path) -> None:
    run_stage("separate", tiny_recipe("separate.networks=each"), table, tmp_path)
    assert {name: one.network for name, one in separated_machines(tmp_path).items()} == {
        "hummer": "hummer",
        "singer": "singer",
    }
    (hummer,) = separated_twins(tmp_path, training_clips(table)[:1])
    assert hummer is not None
    expected = separated_sources(
        load_separator(tmp_path / "stages" / "separate" / "hummer"), load_clip(training_clips(table)[0])
    )
    np.testing.assert_allclose(load_clip(hummer.machine), expected[0], atol=2e-7)


def test_recipe_that_asks_for_stages_that_are_not_done_is_refused(table: ClipTable, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="separate is not done: asd-train separate"):
        finetuning_clips(tiny_recipe(), table, tmp_path)
    (tmp_path / "stages" / "separate").mkdir(parents=True)
    with pytest.raises(StageError, match="separator is not trained yet"):
        separated_machines(tmp_path)
    with pytest.raises(SettingsError, match=r"separate\.enabled: false"):
        separate(load_recipe("smoke"), table, tmp_path)
    with pytest.raises(SettingsError, match=r"synthesize\.clips: 0"):
        synthesize(load_recipe("smoke"), table, tmp_path)


def test_data_without_supplement_can_not_be_separated(tmp_path: Path) -> None:
    plain = read_dataset([write_tones(tmp_path / "data", train=2, test=1)])
    with pytest.raises(DataSetError, match="no machine has clean or noise-only clips"):
        run_stage("separate", tiny_recipe(), plain, tmp_path / "run")


def test_machine_without_a_domain_is_left_out_of_the_synthesis(
    run: Path, table: ClipTable, caplog: pytest.LogCaptureFixture
) -> None:
    poorer = ClipTable(tuple(clip for clip in table.clips if (clip.machine, clip.domain) != ("singer", "target")))
    folder = run / "stages" / "poorer"
    folder.mkdir()
    with caplog.at_level(logging.WARNING):
        synthesize(tiny_recipe(), poorer, folder)
    assert "left out for want of a domain with machine and noise: singer" in caplog.text
    assert {clip.machine for clip in read_clips(folder / "clips.jsonl", folder)} == {"hummer"}
    source = ClipTable(tuple(clip for clip in table.clips if clip.domain == "source"))
    with pytest.raises(DataSetError, match=r"no machine has separated training clips of both domains"):
        synthesize(tiny_recipe(), source, folder)


def test_list_of_clips_is_read_as_it_was_written(table: ClipTable, tmp_path: Path) -> None:
    root = table.clips[0].path.parents[2]
    write_clips(tmp_path / "clips.jsonl", table.clips, root)
    assert read_clips(tmp_path / "clips.jsonl", root) == table.clips
    row = json.loads((tmp_path / "clips.jsonl").read_text().splitlines()[0])
    (tmp_path / "clips.jsonl").write_text(json.dumps({**row, "colour": "red"}) + "\n")
    with pytest.raises(StageError, match="colour"):
        read_clips(tmp_path / "clips.jsonl", root)


def test_stages_take_the_years_that_the_recipe_gives_them(table: ClipTable, tmp_path: Path) -> None:
    dated = ClipTable(tuple(replace(clip, year=2020 + n % 3) for n, clip in enumerate(table.clips)))
    recipe = tiny_recipe("years=[2021]", "pretrain.years=[2020, 2022]", "pretrain.steps=1")
    assert stages_of(recipe) == ("separate", "synthesize", "pretrain", "finetune")
    assert {clip.year for clip in stage_table("finetune", recipe, dated).clips} == {2021}
    assert {clip.year for clip in stage_table("pretrain", recipe, dated).clips} == {2020, 2022}
    assert of_years(table, (2021,)).clips == table.clips  # they do not say their year
    with pytest.raises(DataSetError, match="takes recordings of 2024, and all there are of 2020, 2021, 2022"):
        of_years(dated, (2024,))


def test_weights_that_can_not_be_had_are_refused_before_any_stage_is_begun(table: ClipTable, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"nowhere\.pt"):
        run_stages(tiny_recipe(f"encoder.weights={tmp_path / 'nowhere.pt'}"), table, tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()
