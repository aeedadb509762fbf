"""The reference sounds of a bundle, and the scores that they get where it is made: its self-test on every other box.

Owns which sounds these are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.bundle.bundle import Bundle, ReferenceEntry
from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S, read_waveform

REFERENCE_TOLERANCE = 5e-3  # processors sum int8 products in another order; a wrong model is off by 0.1 and more
COARSE_LEVELS = 2**9  # FLAC leaves out bits that are never used
REFERENCE_SOUNDS = (("fan", None), ("valve", "leak"))


def write_reference_sounds(folder: Path) -> list[Path]:
    """Simulated sounds that every machine scores: they hold nobody's recording and test the whole path on another box."""
    (folder / "reference").mkdir()
    files = []
    for number, (name, failure) in enumerate(REFERENCE_SOUNDS):
        rng = np.random.default_rng(number)
        stream = SceneStream(SimulatedMachine(name), draw_scene(DOMAINS[name]["source"], rng), rng, WINDOW_S)
        if failure is not None:
            stream.fail(failure)
        files.append(folder / "reference" / f"{name}_{failure or 'healthy'}.flac")
        coarse = np.round(next(stream) * COARSE_LEVELS) / COARSE_LEVELS
        soundfile.write(str(files[-1]), coarse, SAMPLE_RATE_HZ, subtype="PCM_16")
    return files


def reference_scores(
    sounds: Sequence[Path], bundle: Bundle, session: EmbedderSession | None, separator: SeparatorSession | None
) -> tuple[ReferenceEntry, ...]:
    """The score of each sound for each machine, by the files that were just written."""
    scorers = {m: Scorer(bundle, m, session=session, separator=separator) for m in bundle.machines}
    nearest = {
        m: Scorer(bundle, m, session=session, separator=separator, scoring="paper")
        for m in bundle.machines
        if bundle.machine(m).nearest is not None
    }
    heard = {file: read_waveform(file) for file in sounds}
    return tuple(
        ReferenceEntry(
            file=file.relative_to(bundle.path).as_posix(),
            scores={machine: round(scorer.score(sound).score, 6) for machine, scorer in scorers.items()},
            nearest={machine: round(scorer.score(sound).score, 6) for machine, scorer in nearest.items()},
            tolerance=REFERENCE_TOLERANCE,
        )
        for file, sound in heard.items()
    )
