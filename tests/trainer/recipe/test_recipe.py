"""Recipes: shipped, from a file, overridden, refused, and tied to their run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from asd_daemon.errors import SettingsError, StageError
from asd_trainer.finetune.classification import embedder_shape
from asd_trainer.networks.eat import SIZES
from asd_trainer.networks.embedder import Embedder
from asd_trainer.networks.encoders.registry import NAMED
from asd_trainer.recipe.encoder import ENCODER_NAMES
from asd_trainer.recipe.keys import Section
from asd_trainer.recipe.recipe import Recipe, load_recipe, shipped_recipes
from asd_trainer.run.stages import STAGES, stages_of
from asd_trainer.training.run_folder import claim_run, read_run_recipe


def test_every_shipped_recipe_is_valid_and_says_what_it_is_for() -> None:
    assert "smoke" in shipped_recipes()
    assert all(load_recipe(name).description for name in shipped_recipes())


def test_edge_recipe_does_everything_with_a_small_encoder() -> None:
    recipe = load_recipe("edge")
    assert stages_of(recipe) == ("separate", "synthesize", "pretrain", "finetune")
    assert sum(p.numel() for p in Embedder(embedder_shape(recipe)).parameters()) <= 6_000_000
    every = tuple(name for name in STAGES if name != "frozen")
    assert stages_of(load_recipe("edge", ["distil.teacher=runs/large"])) == every


def test_frozen_recipe_trains_nothing() -> None:
    assert stages_of(load_recipe("frozen")) == ("frozen",)


def test_encoder_names_of_recipes_are_those_that_are_built() -> None:
    assert set(ENCODER_NAMES) == {"eat", *NAMED}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["encoder.name=ced-tny"], "ced-tiny"),
        (["encoder.name=ced-tiny", "pretrain.steps=4"], "pretrain.steps: only EAT can; encoder.name is ced-tiny"),
        (["encoder.name=ced-tiny", "finetune.kept_patches=0.5"], "finetune.kept_patches: only EAT can"),
        (["encoder.name=ced-tiny", "embedding.layers=patches"], "embedding.layers: only EAT can"),
        (["frozen.enabled=true", "distil.teacher=runs/large"], "distil.teacher: a frozen encoder learns nothing"),
        (["encoder.lora.rank=4", "frozen.enabled=true"], "encoder.lora.rank: a frozen encoder learns nothing"),
        (["encoder.name=mn04_as", "encoder.lora.rank=4"], "encoder.lora.rank: mn04_as is no transformer"),
        (["encoder.name=mn04_as", "embedding.layers=all"], "embedding.layers: the layers of mn04_as"),
        (["frozen.layers=[0]"], "frozen.layers.0: 0 is not allowed"),
    ],
)
def test_what_an_encoder_can_not_do_is_refused_with_its_key(overrides: list[str], said: str, tmp_path: Path) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text("description: all keys at their defaults\n")
    with pytest.raises(SettingsError) as refused:
        load_recipe(str(plain), overrides)
    assert said in str(refused.value)


def test_overrides_set_nested_keys_with_yaml_values() -> None:
    recipe = load_recipe(
        "smoke",
        [
            "finetune.epochs=3",
            "finetune.optimiser.learning_rate=5e-4",
            "finetune.augment.roll=false",
            "encoder.size=edge",
        ],
    )
    assert recipe.finetune.epochs == 3
    assert recipe.finetune.optimiser.learning_rate == 5e-4
    assert recipe.finetune.augment.roll is False
    assert recipe.encoder.size == "edge"


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("finetune.epoch=3", ["finetune.epoch", "did you mean epochs"]),
        ("finetune.arcface.scal=3", ["finetune.arcface.scal", "did you mean scale"]),
        ("zzz=3", ["zzz", "encoder, frozen, embedding"]),
        ("finetune.epochs=0", ["finetune.epochs", "0", "greater than or equal to 1"]),
        ("finetune.epochs=many", ["finetune.epochs", "'many'"]),
        ("encoder.size=huge", ["encoder.size", "'huge'", "'base'"]),
        ("finetune", ["--set finetune", "key.sub=value"]),
        ("finetune.=3", ["key.sub=value"]),
        ("seed.sub=3", ["seed is a value"]),
        ("seed=[", ["'['"]),
    ],
)
def test_wrong_override_is_refused_with_key_value_and_way_out(override: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 4\n")
    with pytest.raises(SettingsError) as refused:
        load_recipe(str(path), [override])
    assert all(part in str(refused.value) for part in parts), refused.value


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("finetune: {epochs: -1}", "finetune.epochs: -1"),
        ("finetun: {}", "did you mean finetune"),
        ("finetune: 3", "finetune: 3"),
        ("a: [", "not YAML"),
        ("- 1", "holds list"),
    ],
)
def test_wrong_file_is_refused_with_its_name(text: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load_recipe(str(path))
    assert part in str(refused.value)
    assert str(path) in str(refused.value)


def test_unknown_recipe_names_those_that_exist() -> None:
    with pytest.raises(SettingsError, match="smoke"):
        load_recipe("smok")


def test_every_size_of_the_encoder_can_be_chosen() -> None:
    assert all(load_recipe("smoke", [f"encoder.size={size}"]).encoder.size == size for size in SIZES)


def test_empty_file_is_the_default_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("")
    assert load_recipe(str(path)) == Recipe()


def test_run_folder_keeps_its_recipe_and_accepts_the_same_again(tmp_path: Path) -> None:
    recipe = load_recipe("smoke", ["seed=7"])
    claim_run(tmp_path / "runs" / "one", recipe)
    claim_run(tmp_path / "runs" / "one", recipe)
    assert read_run_recipe(tmp_path / "runs" / "one") == recipe


def test_run_folder_of_another_recipe_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    claim_run(tmp_path, load_recipe("smoke", ["finetune.epochs=7"]))
    with pytest.raises(StageError, match=r"seed is 0 there, 2 here; finetune\.epochs is 7 there, 9 here"):
        claim_run(tmp_path, load_recipe("smoke", ["finetune.epochs=9", "seed=2"]))


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not a run folder"):
        read_run_recipe(tmp_path)


def keys(section: type[Section], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, field in section.model_fields.items():
        found.append((prefix + name, field))
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found.extend(keys(field.annotation, f"{prefix}{name}."))
    return found


@pytest.mark.parametrize(("name", "field"), keys(Recipe))
def test_every_key_has_title_sentence_and_unit(name: str, field: object) -> None:
    assert getattr(field, "title", None), name
    assert str(getattr(field, "description", "")).endswith("."), name
    assert "unit" in getattr(field, "json_schema_extra", {}), name


def test_paper_recipe_holds_what_the_report_says_for_each_submission() -> None:
    first = load_recipe("paper")
    assert first.encoder.size == "base"
    assert first.encoder.weights == "worstchan/EAT-base_epoch30_pretrain"
    assert (first.pretrain.steps, first.pretrain.batch_clips) == (10_000, 16)
    assert (first.finetune.epochs, first.finetune.batch_clips) == (30, 32)
    for optimiser in (first.pretrain.optimiser, first.finetune.optimiser):
        assert (optimiser.name, optimiser.learning_rate, optimiser.final_ratio) == ("adam", 5e-5, 0)
    assert first.separate.enabled
    assert first.separate.guidance == "clean"
    assert (first.synthesize.clips, first.years, first.pretrain.years) == (10_000, (2025,), (2025,))
    last = load_recipe("paper", ["synthesize.clips=20000", "pretrain.years=[]"])
    assert (last.synthesize.clips, last.years, last.pretrain.years) == (20_000, (2025,), ())


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (
            ["synthesize.clips=10"],
            r"synthesize\.clips: 10 synthetic clips are made of separated ones; set separate\.enabled",
        ),
        (["separate.enabled=true", "synthesize.clips=7"], r"synthesize\.clips: 7"),
        (["separate.snr_db=[5, -5]"], r"separate\.snr_db.*lower bound comes first"),
    ],
)
def test_separation_that_can_not_be_is_refused(overrides: list[str], part: str) -> None:
    with pytest.raises(SettingsError, match=part):
        load_recipe("smoke", overrides)


def test_quantiles_over_time_need_every_patch() -> None:
    with pytest.raises(SettingsError, match=r"finetune\.kept_patches: 0\.125 of the patches have no quantiles"):
        load_recipe("smoke", ["embedding.pooling=quantiles"])
    assert load_recipe("default").embedding.pooling == "quantiles"


def test_submissions_differ_in_synthetic_clips_and_years_alone() -> None:
    paper = load_recipe("paper")
    years = {"2025": (2025,), "all": (2020, 2021, 2022, 2023, 2024, 2025)}
    for clips in (10, 20):
        for when, expected in years.items():
            submission = load_recipe(f"paper-{clips}k-{when}")
            assert submission.synthesize.clips == 1000 * clips
            assert submission.pretrain.years == expected
            same = {"description", "synthesize", "pretrain"}
            assert submission.model_dump(exclude=same) == paper.model_dump(exclude=same)
            assert submission.pretrain.model_copy(update={"years": (2025,)}) == paper.pretrain
    assert paper.evaluate.separation == "always"
    assert load_recipe("edge").evaluate.separation == "auto"


def test_recipe_based_on_another_changes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "based_on: edge\nfinetune:\n  epochs: 3\n  optimiser:\n    learning_rate: 0.001\n"
    )
    (tmp_path / "mine.yaml").write_text("based_on: own.yaml\nyears: [2024]\n")
    edge, mine = load_recipe("edge"), load_recipe(str(tmp_path / "mine.yaml"), ["seed=4"])
    assert (mine.years, mine.seed, mine.finetune.epochs, mine.finetune.optimiser.learning_rate) == (
        (2024,),
        4,
        3,
        0.001,
    )
    assert (mine.pretrain, mine.finetune.augment) == (edge.pretrain, edge.finetune.augment)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("based_on: papper\n", "a.yaml: based_on: "),
        ("based_on: [paper]\n", "a.yaml: based_on: ['paper'] is no recipe"),
        ("based_on: b.yaml\n", "circle"),
        ("based_on: a.yaml\n", "circle"),
    ],
)
def test_base_that_can_not_be_is_refused(text: str, part: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("based_on: a.yaml\n")
    with pytest.raises(SettingsError) as refused:
        load_recipe(str(tmp_path / "a.yaml"))
    assert part in str(refused.value)
    assert str(tmp_path / "a.yaml") in str(refused.value)


def test_run_goes_on_with_another_way_of_saving_memory(tmp_path: Path) -> None:
    claim_run(tmp_path, load_recipe("smoke"))
    claim_run(
        tmp_path, load_recipe("smoke", ["memory=8", "finetune.optimiser.recompute=true", "pretrain.micro_clips=2"])
    )
