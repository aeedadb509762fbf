"""What a bundle makes of clips: each judged as the daemon judges the first 10 s of a recording.

Owns nothing but the loop: the scores are asd_daemon.judge's, machine by machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.bundle import MANIFEST, Bundle
from asd_daemon.judge.scoring.scorer import Scorer, WindowScore
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, load_clip
from asd_trainer.evaluate.backend import RunScores, ScoredClip

F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]


def is_bundle(path: Path) -> bool:
    """Whether a folder is a bundle rather than a run."""
    return (path / MANIFEST).is_file()


def bundle_verdicts(
    bundle: Bundle, clips: Sequence[Clip], progress: Progress = lambda _done, _total: None
) -> Iterator[tuple[int, F32, WindowScore | None]]:
    """Position of each clip, its sound float32 (160 000,), and what the bundle says of it: None where it does not know the machine.

    Machine by machine, so that one is open at a time.

    Raises:
        RecordingError: a clip can't be read.
        BundleError: a machine's models or files can't be used.
    """
    done = 0
    progress(done, len(clips))
    for machine in sorted({clip.machine for clip in clips}):
        scorer = Scorer(bundle, machine) if machine in bundle.machines else None
        for position, clip in enumerate(clips):
            if clip.machine == machine:
                sound = load_clip(clip)
                yield position, sound, None if scorer is None else scorer.score(sound)
                done += 1
                progress(done, len(clips))


def score_bundle(bundle: Bundle, table: ClipTable, progress: Progress = lambda _done, _total: None) -> RunScores:
    """Score every test clip by what the bundle has learned of its machine; the data's training clips are not heard.

    Clips that a daemon would call unusable are scored all the same, as by a run: figures need every clip.

    Raises:
        DataSetError: there are no test clips.
        UnknownMachineError: the bundle does not know one of the machines.
        RecordingError, BundleError: as `bundle_verdicts`.
    """
    test = table.select(split="test")
    if not test:
        raise DataSetError("the data has no test clips, so there is nothing to evaluate")
    for machine in sorted({clip.machine for clip in test}):
        bundle.machine(machine)  # refuse it before anything is heard
    scores = np.zeros(len(test))
    for position, _, verdict in bundle_verdicts(bundle, test, progress):
        scores[position] = 0.0 if verdict is None else verdict.score
    return RunScores(tuple(ScoredClip(c, float(s)) for c, s in zip(test, scores, strict=True)), (), {})
