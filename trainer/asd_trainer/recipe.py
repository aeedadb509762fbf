"""The recipe of a run: every choice that shapes a model, as YAML.

Owns the keys with their units, bounds and sentences, the shipped recipes, and the rule that a run folder belongs to one recipe.
It trains nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError

from asd_daemon.errors import SettingsError, StageError
from asd_trainer.distillation_recipe import DistilRecipe
from asd_trainer.pretraining_recipe import PretrainRecipe
from asd_trainer.recipe_keys import OptimiserRecipe, Section, setting
from asd_trainer.separation_recipe import SeparateRecipe, Span, SynthesizeRecipe
from asd_trainer.whole_file import write_whole

RUN_RECIPE = "recipe.yaml"


class EncoderRecipe(Section):
    """The EAT encoder."""

    size: Literal["smoke", "edge", "small", "base", "large"] = setting(
        "smoke", "", "Size of the EAT encoder.", title="Size"
    )
    weights: str = setting(
        "",
        "",
        "Where the encoder's first weights come from: a Hugging Face repository (worstchan/EAT-base_epoch30_pretrain), a fairseq "
        ".pt file, or the folder stages/pretrain of another run; empty draws them fresh.",
        title="Weights",
    )


class EmbeddingRecipe(Section):
    """From patch tokens to the embedding."""

    dimensions: int = setting(128, "components", "Components of the embedding.", title="Dimensions", ge=2, le=4096)
    attention_dim: int = setting(
        64,
        "channels",
        "Hidden channels of the attentive statistics pooling.",
        title="Attention channels",
        ge=1,
        le=4096,
    )
    layers: Literal["last", "all", "patches"] = setting(
        "last",
        "",
        "Blocks of the encoder whose tokens are pooled: the last, or all, joined by a small network; patches leaves the blocks out.",
        title="Layers",
    )
    pooling: Literal["statistics", "quantiles"] = setting(
        "statistics",
        "",
        "How patches become one vector: attentive statistics (paper, section 2.2), or low quantiles over time of each row of patches, "
        "for steady machines in noise.",
        title="Pooling",
    )


class ArcFaceRecipe(Section):
    """The classification loss over machine × domain × attributes."""

    scale: float = setting(30.0, "", "Factor on the cosines before the softmax.", title="Scale", gt=0, le=128)
    margin: float = setting(0.3, "rad", "Angle added to the true class.", title="Margin", ge=0, lt=1.5)
    subcentres: int = setting(
        1, "centres", "Centres of each class; a clip belongs to the nearest.", title="Sub-centres", ge=1, le=64
    )


class AugmentRecipe(Section):
    """What is done to a log-mel each time it is trained on."""

    mixup_probability: float = setting(
        0.5, "", "Share of clips that are mixed with another, labels alike.", title="Mixup", ge=0, le=1
    )
    gain_db: float = setting(6.0, "dB", "Largest random gain of a whole clip, up or down.", title="Gain", ge=0, le=60)
    roll: bool = setting(True, "", "Rotate each clip in time by a random offset.", title="Roll")
    mask_probability: float = setting(
        0.5, "", "Share of clips that get a time mask and a mel mask.", title="Masking", ge=0, le=1
    )
    mask_frames: int = setting(80, "frames", "Longest time mask (10 ms a frame).", title="Time mask", ge=0, le=998)
    mask_bins: int = setting(80, "mel bins", "Widest mel mask.", title="Mel mask", ge=0, le=128)
    noise_probability: float = setting(
        0.0,
        "",
        "Share of clips that get noise: a noise-only clip of the data set, of any machine; where there is none, a recording of "
        "another machine.",
        title="Noise",
        ge=0,
        le=1,
    )
    noise_snr_db: Span = setting((5.0, 20.0), "dB", "Clip over its noise.", title="Ratio")


class FinetuneRecipe(Section):
    """Fine-tuning of the encoder by classification of machine × domain × attributes (paper, sections 2.2 and 2.4)."""

    epochs: int = setting(30, "epochs", "Passes over the training clips.", title="Epochs", ge=1, le=100_000)
    batch_clips: int = setting(32, "clips", "Clips of a step, over all devices.", title="Batch", ge=2, le=65_536)
    kept_patches: float = setting(
        1.0,
        "",
        "Part of a clip's patches that is encoded while training, drawn anew each time; 1 encodes all.",
        title="Kept patches",
        gt=0,
        le=1,
    )
    separated: bool = setting(
        True,
        "",
        "Learn from separated clips beside the original ones, where the run separates.",
        title="Separated clips",
    )
    arcface: ArcFaceRecipe = setting(ArcFaceRecipe(), "", "The loss.", title="ArcFace")
    augment: AugmentRecipe = setting(AugmentRecipe(), "", "Augmentation.", title="Augmentation")
    optimiser: OptimiserRecipe = setting(OptimiserRecipe(), "", "Optimiser and schedule.", title="Optimiser")


class Recipe(Section):
    """A whole run."""

    description: str = setting("", "", "What the recipe is for, in a sentence.", title="Description")
    seed: int = setting(0, "", "Every random choice of the run follows from it.", title="Seed", ge=0, lt=2**32)
    years: tuple[int, ...] = setting(
        (),
        "",
        "Years of the data sets that separation, synthesis and fine-tuning take clips from, empty for all; a clip whose folder does not "
        "say its year is always taken.",
        title="Years",
    )
    encoder: EncoderRecipe = setting(EncoderRecipe(), "", "The encoder.", title="Encoder")
    embedding: EmbeddingRecipe = setting(EmbeddingRecipe(), "", "The embedding.", title="Embedding")
    separate: SeparateRecipe = setting(SeparateRecipe(), "", "The separation stage.", title="Separation")
    synthesize: SynthesizeRecipe = setting(SynthesizeRecipe(), "", "The synthesis stage.", title="Synthesis")
    pretrain: PretrainRecipe = setting(PretrainRecipe(), "", "The pre-training stage.", title="Pre-training")
    distil: DistilRecipe = setting(DistilRecipe(), "", "The distillation stage.", title="Distillation")
    finetune: FinetuneRecipe = setting(FinetuneRecipe(), "", "The fine-tuning stage.", title="Fine-tuning")

    def to_yaml(self) -> str:
        """Every key with its value, in the order of the sections above."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("asd_trainer") / "recipes"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by its name, or a file by its path, with `key.sub=value` overrides in YAML's notation of values.

    Raises:
        SettingsError: no such recipe, no YAML, or a key or value that is not allowed; names the file, the key and the value.
    """
    if name_or_path in shipped_recipes():
        origin = f"recipe {name_or_path}"
        text = (resources.files("asd_trainer") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(name_or_path)
        origin = str(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            known = ", ".join(shipped_recipes())
            raise SettingsError(
                f"{origin}: neither a recipe that comes with asd-train ({known}) nor a readable file"
            ) from e
    data = _parse(text, origin)
    for override in overrides:
        origin = _apply(data, override, origin)
    return _validate(data, origin)


def claim_run(run: Path, recipe: Recipe) -> None:
    """Make a run folder this recipe's: write recipe.yaml, or find there that it already is.

    Raises:
        StageError: the folder was made with another recipe (names the keys that differ), or can't be written.
    """
    path = run / RUN_RECIPE
    if path.exists():
        check_claim(run, recipe)
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        write_whole(path, recipe.to_yaml())
    except OSError as e:
        raise StageError(f"{run}: the run folder can't be written: {e.strerror}") from e


def check_claim(run: Path, recipe: Recipe) -> None:
    """Refuse a run folder of another recipe; one that does not exist yet is anyone's. Nothing is written.

    Raises:
        StageError: the folder was made with another recipe; names the keys that differ.
    """
    if not (run / RUN_RECIPE).exists():
        return
    differing = list(_differences(read_run_recipe(run).model_dump(mode="json"), recipe.model_dump(mode="json")))
    if differing:
        raise StageError(
            f"{run}: was made with another recipe: {'; '.join(differing)}. Give another --out, or the same recipe"
        )


def read_run_recipe(run: Path) -> Recipe:
    """The recipe that a run folder was made with.

    Raises:
        StageError: there is no recipe.yaml.
        SettingsError: recipe.yaml is not a recipe of this version.
    """
    path = run / RUN_RECIPE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise StageError(
            f"{run}: is not a run folder ({RUN_RECIPE} can't be read: {e.strerror}); make one with: asd-train run"
        ) from e
    return _validate(_parse(text, str(path)), str(path))


def _parse(text: str, origin: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise SettingsError(f"{origin}: is not YAML: {' '.join(str(e).split())}") from e
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SettingsError(f"{origin}: must hold keys and values, holds {type(data).__name__}")
    return data


def _apply(data: dict[str, Any], override: str, origin: str) -> str:
    """Set one `key.sub=value` in the data; gives the origin with the override named."""
    keys, equals, text = override.partition("=")
    if not equals or not all(keys.split(".")):
        raise SettingsError(f"--set {override}: must look like key.sub=value, for example --set finetune.epochs=10")
    *parents, last = keys.strip().split(".")
    section = data
    for parent in parents:
        below = section.setdefault(parent, {})
        if not isinstance(below, dict):
            raise SettingsError(f"--set {override}: {parent} is a value, it has no keys below it")
        section = below
    try:
        section[last] = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise SettingsError(f"--set {override}: {text!r} is not a YAML value") from e
    return origin if "--set" in origin else f"{origin} with --set"


def _validate(data: Mapping[str, Any], origin: str) -> Recipe:
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as e:
        raise SettingsError("; ".join(f"{origin}: {_complaint(error)}" for error in e.errors())) from e
    if recipe.synthesize.clips and not recipe.separate.enabled:
        raise SettingsError(
            f"{origin}: synthesize.clips: {recipe.synthesize.clips} synthetic clips are made of separated ones; "
            "set separate.enabled to true, or synthesize.clips to 0"
        )
    kept = {
        "finetune": recipe.finetune.kept_patches,
        "distil": recipe.distil.kept_patches if recipe.distil.teacher else 1,
    }
    for stage, part in kept.items():
        if recipe.embedding.pooling == "quantiles" and part < 1:
            raise SettingsError(
                f"{origin}: {stage}.kept_patches: {part} of the patches have no quantiles over time; set it to 1, or "
                "embedding.pooling to statistics"
            )
    return recipe


def _complaint(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_beside(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"{key}: no such key; " + (f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}")
    return f"{key}: {error['input']!r} is not allowed: {error['msg'][0].lower()}{error['msg'][1:]}"


def _keys_beside(location: Sequence[int | str]) -> list[str]:
    section: Any = Recipe
    for part in location[:-1]:
        field = section.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
            return []
        section = field.annotation
    return list(section.model_fields)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key} is {before!r} there, {after!r} here"
