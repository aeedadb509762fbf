"""Normal clips of the table's machines → their folders in the bundle.

Owns which clips become what: vectors by the very models that listen on the edge, so that a bank and a window differ by nothing but the
sound, and the switch between one distance, two, and fused views. Learning itself is asd_daemon.learn.learning, as on the box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, ExportError, RecordingError
from asd_daemon.judge.bundle.bundle import MachineEntry
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import DEFAULT_EXCEEDANCE, HEARD, SEPARATED, FeatureExtractor
from asd_daemon.learn.embedding_share import EmbeddingEvidence, embedding_evidence
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, families_of, learn
from asd_daemon.learn.machine_files import Bank, write_machine
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.separation_gain import separation_improves
from asd_trainer.data.dataset import Clip, ClipTable, load_clip
from asd_trainer.evaluate.views import normal_sound

F32 = NDArray[np.float32]
Progress = Callable[[str, int, int], None]
"""Called with the step's name, how much of it is done, and how much there is."""
WEIGHED_CLIPS = 48  # clips of a machine by whose changed copies the embedder is weighed beside the views
Scoring = Literal["nearest", "views"]


@dataclass(frozen=True)
class KnownMachine:
    """What was written of a machine."""

    entry: MachineEntry
    threshold: float
    """For one false alarm a week, two of three windows."""
    weights: tuple[tuple[str, float], ...] = ()
    """Views that it is scored with; none where the nearest neighbour is its score."""
    evidence: EmbeddingEvidence | None = None
    """What its normal clips say of the embedder beside the views; None where nothing was asked."""


def write_machines(
    hearing: FeatureExtractor,
    table: ClipTable,
    strangers: F32,
    folder: Path,
    *,
    scoring: Scoring,
    embeds: bool = True,
    separates: bool,
    least_graph: int,
    bands: int,
    unread: list[str],
    progress: Progress,
) -> dict[str, KnownMachine]:
    """Write every machine of the table into the bundle's folder.

    Args:
        hearing: the models that listen.
        table: its normal training clips are what a machine is known by; on its test clips the search must find the exact neighbour.
        strangers: embeddings (S, D) of sounds that are no machine's: the search must find their exact neighbour too.
        folder: the bundle's.
        scoring: the nearest neighbour, or views of its steady sound and movement, beside which the embedder has the share that it earns.
        embeds: whether there is an embedder; views do without.
        separates: whether there is a separator; whether a machine is scored with it is found by its normal clips alone.
        least_graph: from how many vectors on a bank has a graph.
        bands: of an embedding, that look for neighbours each by itself; with several there is no graph.
        unread: clips that can't be read are added here.
        progress: told of each clip.

    Raises:
        ExportError: a machine of which no clip can be read, or too few for views.
        DataSetError: clips that are copies of one another.
    """
    sounds = {}
    for machine in table.machines:
        clips = table.select(split="train", machine=machine, label="normal")
        sounds[machine] = _heard(hearing, machine, clips, _views(scoring, embeds, separates), scoring, unread, progress)
    has_graph = embeds and bands == 1 and max(sound.windows for sound in sounds.values()) >= least_graph
    queries = _queries(hearing, table, sounds, strangers, unread, progress) if has_graph else None
    known = {}
    for machine, sound in sounds.items():
        learned: LearnedMachine | None = None
        evidence: EmbeddingEvidence | None = None
        if scoring == "views":
            refuse_too_few(machine, sound.windows)
            evidence = _evidence(machine, sounds, strangers) if embeds else None
            learned = learn(sound, embedding_share=evidence.share if evidence else 0.0)
        bank = None
        if embeds:
            separated = _separated_bank(sound, separates, always=scoring == "views", bands=bands)
            heard = sound.vectors[HEARD][:, 0]
            bank = Bank(heard, separated, queries, least_graph, bands=bands, in_half=scoring == "views")
        relative = f"machines/{machine}"
        entry, calibration = write_machine(folder / relative, relative, bank, learned=learned, packed=embeds)
        threshold = round(calibration.threshold(DEFAULT_EXCEEDANCE), 6)
        known[machine] = KnownMachine(entry, threshold, learned.weights if learned else (), evidence)
    return known


def refuse_too_few(machine: str, clips: int) -> None:
    """Raises ExportError where views can't be learned from so few."""
    if clips < LEAST_WINDOWS:
        raise ExportError(
            f"machine {machine}: {clips} clips are too few to learn views from, at least {LEAST_WINDOWS}"
            " are needed; export with --score nearest"
        )


def _views(scoring: Scoring, embeds: bool, separates: bool) -> tuple[str, ...]:
    """What is taken of each clip."""
    wanted = {HEARD: embeds, SEPARATED: separates, **dict.fromkeys(VIEW_NAMES, scoring == "views")}
    return tuple(view for view, is_wanted in wanted.items() if is_wanted)


def _heard(
    hearing: FeatureExtractor,
    machine: str,
    clips: Sequence[Clip],
    views: Sequence[str],
    scoring: Scoring,
    unread: list[str],
    progress: Progress,
) -> NormalSound:
    """Vectors of a machine's clips, and of changed copies where something is decided by them."""
    try:
        return normal_sound(
            hearing,
            clips,
            views,
            changes=SEPARATED in views or (HEARD in views and scoring == "views"),
            most_changed=WEIGHED_CLIPS if scoring == "views" else None,
            unread=unread,
            progress=lambda done: progress(machine, done, len(clips)),
        )
    except DataSetError as e:
        raise ExportError(f"machine {machine}: {e}") from e


def _evidence(machine: str, sounds: Mapping[str, NormalSound], strangers: F32) -> EmbeddingEvidence:
    """What a machine's normal clips say of the embedder, beside those of the others."""
    sound = sounds[machine]
    sound = sound.subset(sound.distinct_windows()[0])
    others = [other.vectors[HEARD][:, 0] for name, other in sounds.items() if name != machine]
    return embedding_evidence(sound, families_of(sound)[0], np.concatenate([*others, strangers]))


def _separated_bank(sound: NormalSound, separates: bool, *, always: bool, bands: int) -> F32 | None:
    """The bank of the separated sound: always, as the paper has it, or where the machine is better told with it."""
    if not separates:
        return None
    bank = sound.vectors[SEPARATED][:, 0]
    if always:
        return bank
    some = sound.with_changed
    helps = separation_improves(
        sound.vectors[HEARD][some, 0], bank[some], sound.changed[HEARD], sound.changed[SEPARATED], bands
    )
    return bank if helps else None


def _queries(
    hearing: FeatureExtractor,
    table: ClipTable,
    sounds: Mapping[str, NormalSound],
    strangers: F32,
    unread: list[str],
    progress: Progress,
) -> F32:
    """Embeddings (Q, D) on which the search is held to exactness: every clip at hand, of other machines too.

    A failing machine sounds like none of its bank, so far queries count.
    """
    queries = [*(sound.vectors[HEARD][:, 0] for sound in sounds.values()), strangers]
    for machine in sounds:
        clips = table.select(split="test", machine=machine)
        for n, clip in enumerate(clips):
            progress(f"{machine} (test)", n, len(clips))
            try:
                queries.append(hearing.vectors(load_clip(clip), (HEARD,))[HEARD])
            except RecordingError as e:
                unread.append(str(e))
    return np.concatenate(queries)
