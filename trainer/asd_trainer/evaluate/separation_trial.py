"""Whether a machine is better told with its separated sound: asked of its normal clips, never of a test clip.

Owns the question and the answers that a run keeps. What counts as better is asd_daemon.learn.learning.separation_improves, as for a bundle:
changed copies of normal clips must stand out more with the second distance than without.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from asd_daemon.errors import StageError
from asd_daemon.judge.scoring.scorer import HEARD, SEPARATED
from asd_daemon.learn.separation_gain import separation_improves
from asd_trainer.data.clip import Clip
from asd_trainer.data.features import clips_digest
from asd_trainer.evaluate.embeddings import FOLDER
from asd_trainer.evaluate.run_models import run_extractor
from asd_trainer.evaluate.views import normal_sound
from asd_trainer.networks.embedder import model_digest
from asd_trainer.separate.stage import separated_machines
from asd_trainer.training.progress import counted_steps
from asd_trainer.training.whole_file import write_whole

log = logging.getLogger(__name__)

Separating = Literal["auto", "always", "never"]
LEAST_CLIPS = 4
SCHEMA = 1


def helped_machines(run: Path, train: Sequence[Clip], separating: Separating, bands: int = 1) -> tuple[str, ...]:
    """The machines whose separated sound counts, sorted; of those that the run separates and that have training clips.

    Answers are kept in the run, and asked anew after its models or a machine's clips changed.

    Args:
        run: the run folder.
        train: normal clips of all machines.
        separating: ask each machine's clips, or say yes or no to all.
        bands: of an embedding, that look for neighbours each by itself.

    Raises:
        StageError: the run's models can't be opened, or it can't be written to.
        RecordingError: a clip can't be read.
    """
    machines = sorted(set(separated_machines(run)) & {clip.machine for clip in train})
    if separating == "never" or not machines:
        return ()
    if separating == "always":
        return tuple(machines)
    own = {machine: [clip for clip in train if clip.machine == machine] for machine in machines}
    return tuple(machine for machine, clips in own.items() if _helps(run, machine, clips, bands))


def _helps(run: Path, machine: str, clips: Sequence[Clip], bands: int) -> bool:
    path = run / FOLDER / f"separation-{machine}-{model_digest(run)}-{clips_digest(clips)}.json"
    kept = _kept(path)
    if kept is not None:
        return kept
    hearing, _ = run_extractor(run, machine)
    with counted_steps(f"does separation help {machine} (clips)", len(clips)) as advance:
        sound = normal_sound(hearing, clips, (HEARD, SEPARATED), changes=True, progress=lambda done: advance(done, {}))
        advance(len(clips), {})
    heard, separated = (sound.vectors[view][sound.with_changed, 0] for view in (HEARD, SEPARATED))
    helps = len(heard) >= LEAST_CLIPS and separation_improves(
        heard, separated, sound.changed[HEARD], sound.changed[SEPARATED], bands
    )
    log.info("%s: its separated sound %s by its normal clips", machine, "counts" if helps else "is left out")
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps({"schema": SCHEMA, "machine": machine, "helps": helps}) + "\n")
    except OSError as e:
        raise StageError(f"{path}: can't be written: {e.strerror}") from e
    return helps


def _kept(path: Path) -> bool | None:
    """The answer that lies there, if it is whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return bool(content["helps"]) if content["schema"] == SCHEMA else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
