"""What a data set offers to teach the separator each machine by (DCASE 2025: clean machine, noise only, or nothing).

Owns the choice, machine by machine, and the reading of the sounds chosen. It looks at the training and supplemental clips
alone, never at a test clip.

    clean    clips of the machine alone: mixed with every noise of the data set, the truth is known
    noise    clips of its noise alone: its training recordings get more of that noise (see Material.noisy)
    far      recordings of two microphones: where asked for, what the far one hears besides the machine is noise of its own, beside the
             noise-only clips; a machine with nothing else is of the kind `noise`
    none     neither: nothing says what in its recordings is machine and what is noise, so it is not separated
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, load_clip
from asd_trainer.separate.far_noise import chosen_clips, far_sounds
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
    far: tuple[Clip, ...] = ()
    """Clips whose far microphone is noise as well."""


def choose(table: ClipTable, *, far: bool = False) -> dict[str, Guidance]:
    """The guidance of every machine of a data set, sorted by name.

    A machine with clean clips meets the noise-only clips of all machines; where a data set has none, it meets the
    training recordings of the other machines, as in a hall. With `far` the far microphone of training clips is noise too, to a machine with
    clean clips that of all machines.
    """
    clips: defaultdict[str, list[Clip]] = defaultdict(list)
    for clip in table.clips:
        clips[clip.machine].append(clip)
    own = {machine: _of_machine(ClipTable(tuple(clips[machine])), machine, far=far) for machine in table.machines}
    noises = tuple(clip for guidance in own.values() for clip in guidance.noises)
    halls = tuple(clip for guidance in own.values() for clip in guidance.far)
    return {machine: _completed(guidance, noises, halls, table) for machine, guidance in own.items()}


def materials(
    guidances: Iterable[Guidance],
    load: Callable[[Clip], NDArray[np.float32]] = load_clip,
    *,
    far_channel: int = 1,
) -> dict[str, Material]:
    """Read the sounds of every machine that has any guidance; a clip that several machines use is read once.

    Raises:
        DataSetError: no machine has guidance, or what a machine has is silent, or a clip lacks its far microphone (as `far_sounds`).
        RecordingError: a clip can't be read.
    """
    guided = [guidance for guidance in guidances if guidance.kind != "none"]
    if not guided:
        raise DataSetError(
            "no machine has clean or noise-only clips (supplemental/), so there is nothing to train a separator with; recordings of two "
            "microphones can teach it (--set separate.noise=far); train without it: --set separate.enabled=false"
        )
    halls = far_sounds(list(dict.fromkeys(clip for guidance in guided for clip in guidance.far)), far_channel)
    sounds: dict[Clip, NDArray[np.float32]] = {}
    for clip in (clip for guidance in guided for clip in (*guidance.machines, *guidance.noises)):
        if clip not in sounds:
            sounds[clip] = load(clip)
    return {guidance.machine: _material(guidance, sounds, halls) for guidance in guided}


def _material(
    guidance: Guidance, sounds: dict[Clip, NDArray[np.float32]], halls: Mapping[Clip, NDArray[np.float32]]
) -> Material:
    try:
        return Material(
            machines=tuple(sounds[clip] for clip in guidance.machines),
            noises=(*(sounds[clip] for clip in guidance.noises), *(halls[clip] for clip in guidance.far)),
            noisy=guidance.kind == "noise",
        )
    except DataSetError as e:
        raise DataSetError(f"{guidance.machine}: {e}") from e


def _of_machine(table: ClipTable, machine: str, *, far: bool) -> Guidance:
    clean = table.select(split="supplemental", machine=machine, supplement="machine")
    noises = table.select(split="supplemental", machine=machine, supplement="noise")
    recordings = table.select(split="train", machine=machine)
    hall = chosen_clips(recordings) if far else ()
    if clean:
        return Guidance(machine, "clean", clean, noises, hall)
    return Guidance(machine, "noise" if (noises or hall) and recordings else "none", recordings, noises, hall)


def _completed(guidance: Guidance, noises: Sequence[Clip], halls: tuple[Clip, ...], table: ClipTable) -> Guidance:
    if guidance.kind == "noise":
        return guidance
    if guidance.kind == "none":
        return Guidance(guidance.machine, "none", (), ())
    chosen = tuple(noises)
    if not chosen and not halls:
        chosen = tuple(clip for clip in table.select(split="train") if clip.machine != guidance.machine)
    kind: Kind = "clean" if chosen or halls else "none"
    return Guidance(guidance.machine, kind, guidance.machines if kind == "clean" else (), chosen, halls)
