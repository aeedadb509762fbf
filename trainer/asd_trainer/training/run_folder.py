"""A run folder belongs to one recipe: written into it once, read back from it, compared before anything else is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asd_daemon.errors import StageError
from asd_trainer.recipe.recipe import Recipe, parse_recipe
from asd_trainer.training.whole_file import write_whole

RUN_RECIPE = "recipe.yaml"
HOW_ALONE = frozenset({"memory", "recompute", "micro_clips"})
"""Keys that say how a run is done and not what comes of it: it may go on with others, on another device."""


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
    return parse_recipe(text, str(path))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in (key for key in {**old, **new} if key not in HOW_ALONE):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key} is {before!r} there, {after!r} here"
