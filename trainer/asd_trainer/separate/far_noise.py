"""What a microphone far from the machine hears of the hall, as noise to teach the separator by.

Owns the choice of clips and the taking away of the machine, as the daemon learns it: how the far microphone hears each machine comes from
its normal training clips alone. It mixes nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.hall.crosstalk import learn_crosstalk
from asd_daemon.judge.hall.short_time_spectra import sound_of, spectra_of
from asd_trainer.data.clip import Clip, MachineSection
from asd_trainer.data.sound import clip_objection, load_clip

log = logging.getLogger(__name__)

F32 = NDArray[np.float32]
MOST_CLIPS = 100
"""Of each machine, section and year: 17 minutes of its hall, 64 MB."""
_SAME_SOUND = 0.99  # correlation of two channels beyond which there is one microphone


def chosen_clips(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """The normal ones, of each machine's section and year at most 100, evenly chosen."""
    units: defaultdict[MachineSection, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.label != "anomaly":
            units[clip.unit].append(clip)
    places = {
        unit: np.unique(np.linspace(0, len(own) - 1, min(len(own), MOST_CLIPS)).round().astype(int))
        for unit, own in units.items()
    }
    return tuple(own[int(place)] for unit, own in sorted(units.items()) for place in places[unit])


def far_sounds(clips: Sequence[Clip], far: int) -> Mapping[Clip, F32]:
    """What the far microphone hears besides the machine in each clip, float32 (160 000,).

    Args:
        clips: normal clips of any machines.
        far: the far microphone's channel, counted from 0; the near one is the first.

    Raises:
        DataSetError: a clip has no such channel, a unit has fewer than four clips, or both channels are one sound; names the key and the
            file or machine.
        RecordingError: a clip can't be read.
    """
    refuse_without_far(clips, far)
    units: defaultdict[MachineSection, list[Clip]] = defaultdict(list)
    for clip in clips:
        units[clip.unit].append(clip)
    found: dict[Clip, F32] = {}
    for unit, own in units.items():
        try:
            found |= _hall(unit, own, far)
        except DataSetError as e:
            raise DataSetError(f"separate.noise: far: {unit.machine} {unit.section}: {e}") from e
    return found


def refuse_without_far(clips: Sequence[Clip], far: int) -> None:
    """Look for the far channel in each clip's header.

    Raises:
        DataSetError: a clip has none; names the key and the file.
    """
    for clip in clips:
        objection = clip_objection(clip, far)
        if objection is not None:
            named = objection if str(clip.path) in objection else f"{clip.path}: {objection}"
            raise DataSetError(
                f"separate.noise: far, separate.far_channel: {far}: {named}; every training clip needs a far channel: leave out other "
                "years (years), or set separate.noise to supplemental"
            )


def _hall(unit: MachineSection, clips: Sequence[Clip], far: int) -> dict[Clip, F32]:
    crosstalk = learn_crosstalk([partial(_both, clip, far) for clip in clips])
    found, likeness = {}, []
    for clip in clips:
        both = _both(clip, far)
        near, other = (np.ascontiguousarray(both[:, column]) for column in (0, 1))
        likeness.append(_likeness(near, other))
        hall = crosstalk.far_without_machine(spectra_of(near), spectra_of(other))
        found[clip] = sound_of(hall, near.shape[0])
    if np.median(likeness) > _SAME_SOUND:
        raise DataSetError(
            "both channels hold the same sound, so that the far one would bring the machine as its own noise"
        )
    log.info(
        "separate: %s %s: the far microphone of %d clips is noise, it hears the machine %.0f dB softer",
        unit.machine,
        unit.section,
        len(found),
        -crosstalk.level_db,
    )
    return found


def _both(clip: Clip, far: int) -> F32:
    return np.stack([load_clip(clip), load_clip(clip, far)], axis=1)


def _likeness(near: F32, far: F32) -> float:
    """Correlation without sign, 0 where one is silent."""
    powers = float(np.dot(near, near)) * float(np.dot(far, far))
    return abs(float(np.dot(near, far))) / powers**0.5 if powers > 0 else 0.0
