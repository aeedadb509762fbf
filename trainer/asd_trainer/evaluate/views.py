"""Judging a run's machines by fused views, weighed by their normal clips alone, as the bundle and the box do.

Owns what is heard of normal clips and of their changed copies, and the scores of test clips. Learning is asd_daemon.learn.learning, fusion
asd_daemon.judge.distances.fusion: nothing of either is done here anew. No test clip has a say in a choice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, RecordingError
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED, FeatureExtractor
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, learn
from asd_daemon.learn.normal_sound import NormalSound, normal_window_vectors
from asd_trainer.data.clip import MachineSection, unit_words
from asd_trainer.data.dataset import Clip, ClipTable, load_clip
from asd_trainer.evaluate.run_models import run_extractor
from asd_trainer.training.progress import Advance, counted_steps

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]
MOST_CHANGED = 160  # clips of a machine whose changed copies are heard: more cost time and decide nothing


@dataclass(frozen=True)
class ViewScores:
    """What fused views make of one unit's clips."""

    test: F32
    """(Q,), about 1 where a clip is as far off as normal clips are in the median; higher is more abnormal."""
    training: F32
    """(N,), the normal clips by views that were fitted without them."""
    learned: LearnedMachine


def normal_sound(
    hearing: FeatureExtractor,
    clips: Sequence[Clip],
    views: Sequence[str],
    *,
    changes: bool,
    most_changed: int | None = None,
    unread: list[str] | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> NormalSound:
    """Vectors of normal clips and, where something is to be decided by them, of changed copies of at most MOST_CHANGED of them.

    Args:
        hearing: the models that listen.
        clips: of one machine.
        views: what is taken of each.
        changes: whether changed copies are wanted.
        most_changed: of how many clips at most; None: MOST_CHANGED.
        unread: clips that can't be read are added here; None: the first ends it.
        progress: told how many clips are done.

    Raises:
        RecordingError: a clip can't be read, with `unread` None.
        DataSetError: not one of the clips could be read.
    """
    every = max(1, -(-len(clips) // (most_changed or MOST_CHANGED)))
    own: list[Mapping[str, F32]] = []
    changed: list[Mapping[str, F32]] = []
    domains, has_changed = [], []
    for n, clip in enumerate(clips):
        progress(n)
        try:
            waveform = load_clip(clip)
        except RecordingError as e:
            if unread is None:
                raise
            unread.append(str(e))
            continue
        if changes and n % every == 0:
            vectors, after = normal_window_vectors(hearing, waveform, views, np.random.default_rng(n))
            changed.append(after)
        else:
            vectors = hearing.vectors(waveform, views, parts=True)
        own.append(vectors)
        has_changed.append(changes and n % every == 0)
        domains.append(clip.domain == "target")
    if not own:
        raise DataSetError(f"none of {len(clips)} clips could be read" + (f"; last: {unread[-1]}" if unread else ""))
    return NormalSound(
        {view: np.stack([one[view] for one in own]) for view in views},
        {view: np.stack([one[view] for one in changed], axis=1) for view in views} if changed else {},
        np.array(domains, np.int64),
        np.flatnonzero(has_changed),
    )


def run_views(
    run: Path,
    train: Sequence[Clip],
    test: Sequence[Clip],
    views: Sequence[str] = VIEW_NAMES,
    *,
    own: bool = True,
) -> dict[MachineSection, ViewScores]:
    """Scores of test clips by views fused for each machine, year and section.

    Args:
        run: its embedder, and its separator where it has one, make the views that are learned.
        train: normal clips that each unit is learned from.
        test: clips to score; a unit without normal clips of its own is judged by those of the machine's others in that year.
        views: those without training that are offered.
        own: whether the run's own are offered beside them: its embeddings of the clips as heard and, where it separates, of the machine.

    Raises:
        DataSetError: a unit has fewer than LEAST_WINDOWS normal clips.
        StageError, RecordingError: the run's models can't be opened; a clip can't be read.
    """
    units = sorted({clip.unit for clip in test})
    scored = {}
    for unit in units:
        words = " ".join(unit_words(unit, units))
        normal, tested = _normal_of(unit, train), [clip for clip in test if clip.unit == unit]
        if len(normal) < LEAST_WINDOWS:
            raise DataSetError(
                f"{words}: {len(normal)} normal clips are too few to learn views from, at least {LEAST_WINDOWS} are needed; "
                "use --score nearest"
            )
        with counted_steps(f"views of {words} (clips)", len(normal) + len(tested)) as advance:
            scored[unit] = _unit_scores(run, unit.machine, normal, tested, views, own, advance)
        log.info("%s is judged by %s", words, _spoken(scored[unit].learned))
    return scored


def _unit_scores(
    run: Path,
    machine: str,
    normal: Sequence[Clip],
    test: Sequence[Clip],
    views: Sequence[str],
    own: bool,
    advance: Advance,
) -> ViewScores:
    hearing, separates = run_extractor(run, machine)
    offered = (*((HEARD,) if own else ()), *((SEPARATED,) if own and separates else ()), *views)
    sound = normal_sound(hearing, normal, offered, changes=False, progress=lambda done: advance(done, {}))
    learned = learn(sound)
    needed = learned.fusion.names()
    scores = np.empty(len(test), np.float32)
    for n, clip in enumerate(test, start=1):
        scores[n - 1] = learned.fusion.score(hearing.vectors(load_clip(clip), needed))[0]
        advance(len(normal) + n, {})
    return ViewScores(scores, learned.held_out, learned)


def _normal_of(unit: MachineSection, train: Sequence[Clip]) -> list[Clip]:
    own = [clip for clip in train if clip.unit == unit]
    return own or [clip for clip in train if (clip.machine, clip.year or 0) == (unit.machine, unit.year)]


def _spoken(learned: LearnedMachine) -> str:
    return ", ".join(f"{view} {weight:.0%}" for view, weight in learned.weights)


def view_table(table: ClipTable, scored: Mapping[MachineSection, ViewScores]) -> dict[str, dict[str, float]]:
    """The weights of each unit's views, by the unit's words; for people and JSON."""
    units = {clip.unit for clip in table.clips}
    return {" ".join(unit_words(unit, units)): dict(one.learned.weights) for unit, one in scored.items()}
