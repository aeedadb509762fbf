"""The stages that separate machines from their noise and make new clips of both, and what other stages take from them.

Owns the folders `stages/separate/` and `stages/synthesize/` of a run and its separated clips. What a separator is, how it learns,
and what a synthetic clip is lie elsewhere.

    stages/separate/machines.json            machines that are separated: what guided the network, and its folder
    stages/separate/[<machine>/]separator.*  the network, or one for each machine
    stages/synthesize/clips.jsonl            the synthetic clips, below sound/
    separated/<folder>/                      separated twins of clips, <folder> named after the folder that the clips lie in
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from asd_daemon.errors import DataSetError, SettingsError, StageError
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, training_clips
from asd_trainer.networks.separator import SIZES, Separator
from asd_trainer.recipe.recipe import Recipe
from asd_trainer.recipe.separation import SeparateRecipe
from asd_trainer.separate import guidance, synthesis
from asd_trainer.separate.guidance import Guidance
from asd_trainer.separate.mixtures import SILENT_DBFS, Material, MixtureRule
from asd_trainer.separate.separated_clips import SeparatedClip, separate_clips
from asd_trainer.separate.training import SeparationTask, SeparatorTraining, load_separator, save_separator
from asd_trainer.training.loop import train
from asd_trainer.training.processes import processes
from asd_trainer.training.progress import Advance, counted_steps
from asd_trainer.training.whole_file import write_whole

log = logging.getLogger(__name__)

SCHEMA = 1
MACHINES, CLIPS, SOUND, SEPARATED = "machines.json", "clips.jsonl", "sound", "separated"


@dataclass(frozen=True)
class SeparatedMachine:
    """A machine that a run separates."""

    guidance: str
    """`clean` or `noise`: what taught the network."""
    network: str
    """Folder of the network inside the stage's folder; "." for the stage's folder itself."""


def separate(recipe: Recipe, table: ClipTable, folder: Path) -> None:
    """Train the separator, one for all machines or one for each, then separate the training clips of the machines that it knows.

    Raises:
        SettingsError: the recipe leaves the stage out.
        DataSetError: no machine has sound that could teach a separator.
        StageError: a checkpoint does not fit, training diverged, or a folder can't be written.
        RecordingError, Interrupted: a recording can't be read; asked to stop.
    """
    settings = recipe.separate
    if not settings.enabled:
        raise SettingsError("separate.enabled: false leaves the stage out; set it with --set separate.enabled=true")
    guided = guided_machines(settings, table)
    found = guidance.materials(guided.values(), far_channel=settings.far_channel)
    networks: dict[str, dict[str, Material]] = (
        {".": found} if settings.networks == "one" else {machine: {machine: own} for machine, own in found.items()}
    )
    for name, materials in networks.items():
        log.info("separate: %s, %d steps", ", ".join(materials), settings.steps)
        _train_network(recipe, tuple(materials.values()), folder / name)
    together = processes()
    if together.is_main_process:
        machines = {
            machine: asdict(SeparatedMachine(guided[machine].kind, name))
            for name, materials in networks.items()
            for machine in materials
        }
        write_whole(folder / MACHINES, json.dumps({"schema": SCHEMA, "machines": machines}, indent=1) + "\n")
    together.wait_for_everyone()
    twins = [one for one in separated_twins(folder.parents[1], training_clips(table)) if one is not None]
    for machine in found:
        ratios = [one.snr_db for one in twins if one.clip.machine == machine]
        if ratios:
            log.info("separate: %s is heard at %.1f dB (median of %d clips)", machine, median(ratios), len(ratios))


def guided_machines(settings: SeparateRecipe, table: ClipTable) -> dict[str, Guidance]:
    """What teaches the separator each machine, without the machines that the recipe or the data leave out."""
    kinds = {"clean"} if settings.guidance == "clean" else {"clean", "noise"}
    return {
        machine: one
        for machine, one in guidance.choose(table, far=settings.noise == "far").items()
        if one.kind in kinds
    }


def _train_network(recipe: Recipe, materials: tuple[Material, ...], folder: Path) -> None:
    settings = recipe.separate
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    network = Separator(SIZES[settings.size])
    train(SeparationTask(network, lesson(recipe, materials)), settings.optimiser, folder)
    if processes().is_main_process:
        save_separator(network.cpu(), folder)


def lesson(recipe: Recipe, materials: tuple[Material, ...]) -> SeparatorTraining:
    """What a step of the separator's training learns from."""
    settings = recipe.separate
    rule = MixtureRule(
        crop_samples=round(settings.crop_s * SAMPLE_RATE_HZ),
        snr_db=settings.snr_db,
        level_dbfs=settings.level_dbfs,
        second_noise=settings.second_noise,
        noise_speed=settings.noise_speed,
        noisy_snr_db=settings.noisy_snr_db,
    )
    return SeparatorTraining(materials, rule, settings.batch_mixtures, settings.steps, recipe.seed)


def synthesize(recipe: Recipe, table: ClipTable, folder: Path) -> None:
    """Write the synthetic clips: separated machines of the training clips in the noise of others.

    A machine that lacks a domain, or clips with both machine and noise in them, is left out.

    Raises:
        SettingsError: the recipe leaves the stage out.
        DataSetError: no machine is left, or the number of clips can't be shared among them.
        StageError: the stage `separate` is not done, or the folder can't be written.
        RecordingError, Interrupted: as `separate`.
    """
    count = recipe.synthesize.clips
    if not count:
        raise SettingsError(
            "synthesize.clips: 0 leaves the stage out; set it, for example with --set synthesize.clips=10000"
        )
    twins = [one for one in separated_twins(folder.parents[1], training_clips(table)) if one is not None]
    planned = synthesis.plan(_with_both_domains(twins), count, recipe.seed, folder / SOUND)
    together = processes()
    if together.is_main_process:
        with counted_steps("synthesize (clips)", len(planned)) as advance:
            synthesis.write(planned, progress=lambda done: advance(done, {}))
        write_clips(folder / CLIPS, [one.clip for one in planned], folder)
    together.wait_for_everyone()


def _with_both_domains(twins: Sequence[SeparatedClip]) -> list[SeparatedClip]:
    heard: defaultdict[str, set[str | None]] = defaultdict(set)
    for one in twins:
        if min(one.machine_dbfs, one.noise_dbfs) > SILENT_DBFS:
            heard[one.clip.machine].add(one.clip.domain)
    left_out = sorted({one.clip.machine for one in twins if not {"source", "target"} <= heard[one.clip.machine]})
    if left_out:
        log.warning("synthesize: left out for want of a domain with machine and noise: %s", ", ".join(left_out))
    kept = [one for one in twins if one.clip.machine not in left_out]
    if not kept:
        raise DataSetError(
            "no machine has separated training clips of both domains, so nothing can be synthesised; "
            "train without: --set synthesize.clips=0"
        )
    return kept


def separated_machines(run: Path) -> Mapping[str, SeparatedMachine]:
    """The machines that a run separates, by name; empty where its recipe does not separate.

    Raises:
        StageError: the stage is begun and not done, or its list of machines is broken.
    """
    folder = run / "stages" / "separate"
    if not folder.exists():
        return {}
    path = folder / MACHINES
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise StageError(f"{path}: schema is not {SCHEMA}; this program is too old or too new for the run")
        return {machine: SeparatedMachine(**found) for machine, found in content["machines"].items()}
    except FileNotFoundError as e:
        raise StageError(f"{run}: the separator is not trained yet; go on with: asd-train separate {run}") from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise StageError(f"{path}: is broken ({e}); remove {folder} and separate again") from e


def separated_twins(run: Path, clips: Sequence[Clip]) -> tuple[SeparatedClip | None, ...]:
    """The separated twin of each clip of any split, None for clips of machines that the run does not separate.

    A clip is separated once and kept as a sound file inside the run. One recording goes through the network at a time, so that what
    comes out does not depend on which others were asked for. Of several processes the first does the work.

    Raises:
        StageError: the stage `separate` is begun and not done, a network is broken, or a file can't be written.
        RecordingError: a clip can't be read.
    """
    machines = separated_machines(run)
    groups: defaultdict[tuple[str, Path], list[int]] = defaultdict(list)
    for position, clip in enumerate(clips):
        if clip.machine in machines:
            groups[clip.machine, clip.path.parent].append(position)
    total = sum(map(len, groups.values()))
    twins: list[SeparatedClip | None] = [None] * len(clips)
    together = processes()
    with (
        together.main_process_first(),
        counted_steps("separate (clips)", total, shown=together.is_main_process and total > 0) as advance,
    ):
        done = 0
        for (machine, parent), positions in groups.items():
            network = load_separator(run / "stages" / "separate" / machines[machine].network).to(together.device)
            own = [clips[position] for position in positions]
            found = separate_clips(network, own, run / SEPARATED / _folder_name(parent), partial(_add, advance, done))
            done += len(own)
            for position, one in zip(positions, found, strict=True):
                twins[position] = one
    return tuple(twins)


def _add(advance: Advance, before: int, done: int) -> None:
    advance(before + done, {})


def _folder_name(parent: Path) -> str:
    """Clips of the same name in two data sets must not share a twin."""
    return hashlib.sha256(str(parent.resolve()).encode()).hexdigest()[:12]


def finetuning_clips(recipe: Recipe, table: ClipTable, run: Path) -> tuple[Clip, ...]:
    """All that fine-tuning learns from: original, separated and synthetic clips (paper, section 2.1), in this order.

    Raises:
        DataSetError: there is no normal training clip.
        StageError: a stage that the recipe asks for is not done.
        RecordingError: a clip can't be read.
    """
    originals = training_clips(table)
    separated: list[Clip] = []
    if recipe.separate.enabled and recipe.finetune.separated:
        _expect(run, "separate")
        separated = [one.machine for one in separated_twins(run, originals) if one is not None]
    synthetic: tuple[Clip, ...] = ()
    if recipe.synthesize.clips:
        _expect(run, "synthesize")
        folder = run / "stages" / "synthesize"
        synthetic = read_clips(folder / CLIPS, folder)
    return (*originals, *separated, *synthetic)


def _expect(run: Path, stage: str) -> None:
    if not (run / "stages" / stage / "done").exists():
        raise StageError(
            f"{run}: the recipe learns from what {stage} makes, and {stage} is not done: asd-train {stage} {run}"
        )


def write_clips(path: Path, clips: Sequence[Clip], root: Path) -> None:
    """Write a list of clips, one JSON object a line, with paths below `root`.

    Raises:
        StageError: the file can't be written.
    """
    lines = [json.dumps({**asdict(clip), "path": clip.path.relative_to(root).as_posix()}) for clip in clips]
    try:
        write_whole(path, "".join(f"{line}\n" for line in lines))
    except OSError as e:
        raise StageError(f"{path}: can't be written: {e.strerror}") from e


def read_clips(path: Path, root: Path) -> tuple[Clip, ...]:
    """A list that `write_clips` wrote.

    Raises:
        StageError: it is missing or broken.
    """
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return tuple(
            Clip(
                **{
                    **row,
                    "path": root / row["path"],
                    "attributes": tuple((name, value) for name, value in row["attributes"]),
                }
            )
            for row in rows
        )
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise StageError(
            f"{path}: the list of clips can't be read ({e}); remove the stage's done mark to make it anew"
        ) from e
