"""The recipe of a run: every choice that shapes a model, as YAML.

Owns the keys with their units, bounds and sentences, and the shipped recipes. It trains nothing and writes nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from asd_daemon.errors import SettingsError
from asd_trainer.recipe.distillation import DistilRecipe
from asd_trainer.recipe.embedder import EmbeddingRecipe, FinetuneRecipe
from asd_trainer.recipe.encoder import CONVOLUTIONAL, EAT, ONNX, EncoderRecipe, FrozenRecipe
from asd_trainer.recipe.evaluation import EvaluateRecipe
from asd_trainer.recipe.keys import Section, setting
from asd_trainer.recipe.pretraining import PretrainRecipe
from asd_trainer.recipe.separation import SeparateRecipe, SynthesizeRecipe

BASE = "based_on"
"""Key of a recipe's file that names another recipe."""


Features = Literal["cache", "compute"]


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
    memory: Literal["auto"] | Annotated[float, Field(gt=0)] = setting(
        "auto",
        "GB",
        "Memory of the device that a stage may take: auto for all that is free. What does not fit is done in a way that needs less and "
        "gives the same result, or refused.",
        title="Memory",
    )
    features: Features = setting(
        "cache",
        "",
        "Log-mels of clips to learn from: cache keeps them in the run, computed once, 511 kB each; compute does it whenever one is needed, "
        "with the same result, for data sets whose log-mels fit on no disk.",
        title="Features",
    )
    encoder: EncoderRecipe = setting(EncoderRecipe(), "", "The encoder.", title="Encoder")
    frozen: FrozenRecipe = setting(FrozenRecipe(), "", "The encoder as it is.", title="Frozen encoder")
    embedding: EmbeddingRecipe = setting(EmbeddingRecipe(), "", "The embedding.", title="Embedding")
    separate: SeparateRecipe = setting(SeparateRecipe(), "", "The separation stage.", title="Separation")
    synthesize: SynthesizeRecipe = setting(SynthesizeRecipe(), "", "The synthesis stage.", title="Synthesis")
    pretrain: PretrainRecipe = setting(PretrainRecipe(), "", "The pre-training stage.", title="Pre-training")
    distil: DistilRecipe = setting(DistilRecipe(), "", "The distillation stage.", title="Distillation")
    finetune: FinetuneRecipe = setting(FinetuneRecipe(), "", "The fine-tuning stage.", title="Fine-tuning")
    evaluate: EvaluateRecipe = setting(EvaluateRecipe(), "", "How runs are evaluated.", title="Evaluation")

    def to_yaml(self) -> str:
        """Every key with its value, in the order of the sections above."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("asd_trainer.recipe") / "recipes"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe by its name, or a file by its path, with `key.sub=value` overrides in YAML's notation of values.

    A recipe with `based_on: NAME` holds what differs from another, which is named like an argument; a path counts from the file's folder.

    Raises:
        SettingsError: no such recipe, no YAML, a circle of recipes, or a key or value that is not allowed; names the file, the key and
            the value.
    """
    data, origin = _layered(name_or_path, ())
    for override in overrides:
        origin = _apply(data, override, origin)
    return _validate(data, origin)


def _layered(name_or_path: str, above: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """The keys of a recipe over those of the one that it is based on, and what it is called in errors; `above` are based on it."""
    if name_or_path in shipped_recipes():
        origin, folder = f"recipe {name_or_path}", None
        text = (resources.files("asd_trainer.recipe") / "recipes" / f"{name_or_path}.yaml").read_text(encoding="utf-8")
    else:
        path = Path(name_or_path)
        origin, folder = str(path), path.parent
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            known = ", ".join(shipped_recipes())
            by = f"{above[-1]}: {BASE}: " if above else ""
            raise SettingsError(
                f"{by}{origin}: neither a recipe that comes with asd-train ({known}) nor a readable file"
            ) from e
    if origin in above:
        raise SettingsError(
            f"{origin}: {BASE}: recipes can't be based on each other in a circle: {' → '.join((*above, origin))}"
        )
    data = _read_yaml(text, origin)
    if BASE not in data:
        return data, origin
    base = data.pop(BASE)
    if not isinstance(base, str) or not base:
        raise SettingsError(
            f"{origin}: {BASE}: {base!r} is no recipe; give the name of one that comes with asd-train, or a path"
        )
    if folder is not None and base not in shipped_recipes():
        base = str(folder / base)
    return _over(_layered(base, (*above, origin))[0], data), origin


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Keys over others, section by section."""
    joined = dict(below)
    for key, value in above.items():
        known = joined.get(key)
        joined[key] = _over(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return joined


def parse_recipe(text: str, origin: str) -> Recipe:
    """A recipe from YAML; `origin` names it in errors.

    Raises:
        SettingsError: no YAML, or a key or value that is not allowed.
    """
    return _validate(_read_yaml(text, origin), origin)


def _read_yaml(text: str, origin: str) -> dict[str, Any]:
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
    _refuse_for_other_encoders(recipe, origin)
    return recipe


def _refuse_for_other_encoders(recipe: Recipe, origin: str) -> None:
    """Refuse what only EAT's own stages can do, and stages that a frozen encoder has no use for."""
    tunes = not recipe.frozen.enabled
    other = {
        "pretrain.steps": recipe.pretrain.steps > 0,
        "finetune.kept_patches": tunes and recipe.finetune.kept_patches < 1,
        "embedding.layers": tunes and recipe.embedding.layers == "patches",
        "distil.teacher": bool(recipe.distil.teacher),
    }
    asked = [key for key, wants in other.items() if wants]
    name = recipe.encoder.name
    if name != EAT and asked:
        raise SettingsError(f"{origin}: {asked[0]}: only EAT can; encoder.name is {name}")
    learning = {"distil.teacher": bool(recipe.distil.teacher), "encoder.lora.rank": recipe.encoder.lora.rank > 0}
    asked = [key for key, wants in learning.items() if wants]
    if recipe.frozen.enabled and asked:
        raise SettingsError(f"{origin}: {asked[0]}: a frozen encoder learns nothing; set frozen.enabled to false")
    if name.startswith(ONNX) and not recipe.frozen.enabled:
        raise SettingsError(f"{origin}: encoder.name: {name} can't learn; set frozen.enabled to true")
    if name in CONVOLUTIONAL and recipe.encoder.lora.rank:
        raise SettingsError(f"{origin}: encoder.lora.rank: {name} is no transformer; set it to 0 to tune all of it")
    if name in CONVOLUTIONAL and tunes and recipe.embedding.layers == "all":
        raise SettingsError(f"{origin}: embedding.layers: the layers of {name} differ in their grids; set it to last")


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
