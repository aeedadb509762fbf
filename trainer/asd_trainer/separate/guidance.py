"""What a data set offers to teach the separator each machine by (DCASE 2025: clean machine, noise only, or nothing).

Owns the choice, machine by machine, and the reading of the sounds chosen. It looks at the training and supplemental clips
alone, never at a test clip.

    clean    clips of the machine alone: mixed with every noise of the data set, the truth is known
    noise    clips of its noise alone: its training recordings get more of that noise (see Material.noisy)
    none     neither: nothing says what in its recordings is machine and what is noise, so it is not separated
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, load_clip
from asd_trainer.separate.mixtures import Material

Kind = Literal["clean", "noise", "none"]


@dataclass(frozen=True)
class Guidance:
    """What teaches one machine."""

    machine: str
    kind: Kind
    machines: tuple[Clip, ...]
    """Clean clips of the machine, or its training recordings where only the noise is known."""
    noises: tuple[Clip, ...]


def choose(table: ClipTable) -> dict[str, Guidance]:
    """The guidance of every machine of a data set, sorted by name.

    A machine with clean clips meets the noise-only clips of all machines; where a data set has none, it meets the
    training recordings of the other machines, as in a hall.
    """
    own = {machine: _of_machine(table, machine) for machine in table.machines}
    noises = tuple(clip for guidance in own.values() for clip in guidance.noises)
    return {machine: _completed(guidance, noises, table) for machine, guidance in own.items()}


def materials(
    guidances: Iterable[Guidance], load: Callable[[Clip], NDArray[np.float32]] = load_clip
) -> dict[str, Material]:
    """Read the sounds of every machine that has any guidance; a clip that several machines use is read once.

    Raises:
        DataSetError: no machine has guidance, or what a machine has is silent.
        RecordingError: a clip can't be read.
    """
    guided = [guidance for guidance in guidances if guidance.kind != "none"]
    if not guided:
        raise DataSetError(
            "no machine has clean or noise-only clips (supplemental/), so there is nothing to train a separator with;"
            " train without it: --set separate.enabled=false"
        )
    sounds: dict[Clip, NDArray[np.float32]] = {}
    for clip in (clip for guidance in guided for clip in (*guidance.machines, *guidance.noises)):
        if clip not in sounds:
            sounds[clip] = load(clip)
    return {guidance.machine: _material(guidance, sounds) for guidance in guided}


def _material(guidance: Guidance, sounds: dict[Clip, NDArray[np.float32]]) -> Material:
    try:
        return Material(
            machines=tuple(sounds[clip] for clip in guidance.machines),
            noises=tuple(sounds[clip] for clip in guidance.noises),
            noisy=guidance.kind == "noise",
        )
    except DataSetError as e:
        raise DataSetError(f"{guidance.machine}: {e}") from e


def _of_machine(table: ClipTable, machine: str) -> Guidance:
    clean = table.select(split="supplemental", machine=machine, supplement="machine")
    noises = table.select(split="supplemental", machine=machine, supplement="noise")
    if clean:
        return Guidance(machine, "clean", clean, noises)
    recordings = table.select(split="train", machine=machine)
    return Guidance(machine, "noise" if noises and recordings else "none", recordings, noises)


def _completed(guidance: Guidance, noises: Sequence[Clip], table: ClipTable) -> Guidance:
    if guidance.kind == "noise":
        return guidance
    if guidance.kind == "none":
        return Guidance(guidance.machine, "none", (), ())
    others = tuple(clip for clip in table.select(split="train") if clip.machine != guidance.machine)
    chosen = tuple(noises) or others
    return Guidance(guidance.machine, "clean" if chosen else "none", guidance.machines if chosen else (), chosen)
