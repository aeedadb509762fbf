"""Learning a machine with two microphones: how the far one hears it, and whether the hall is taken out of its sound or not.

All from normal sound alone: where the hall makes little of most windows, the machine is judged by the near microphone as it is, and the far
one only tells how loud the hall is; else by the near one without the hall, and by what was learned of the near one alone where the far one
is lost. Owns that choice. It needs the windows as sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, EnrolmentError
from asd_daemon.judge.bundle.manifest import HALL, HallEntry
from asd_daemon.judge.hall.cancelling import WithoutHall, without_hall
from asd_daemon.judge.hall.crosstalk import Crosstalk, ReadWindow, learn_crosstalk
from asd_daemon.judge.hall.usual_hall import UsualHall
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.learn.heard_machine import HeardMachine
from asd_daemon.learn.kept_sound import read_both_microphones
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, learn
from asd_daemon.learn.machine_files import write_machine
from asd_daemon.learn.normal_sound import NormalSound

F32 = NDArray[np.float32]
LEAST_SHARE = 0.01
"""Where the hall makes less than that of most windows, taking it away changes nothing for the better."""
NEAR_FOLDER = "near"


@dataclass(frozen=True)
class LearnedHall:
    """What was learned of a machine's second microphone."""

    crosstalk: Crosstalk
    usual: UsualHall
    way: Literal["near", "cancelled"]
    near: LearnedMachine | None = None
    """What the machine is judged by without the far microphone; None where its way is near."""

    @property
    def words(self) -> str:
        """In a line."""
        share = f"the hall makes {self.usual.share:.0%} of most windows"
        if self.way == "near":
            return f"two microphones: {share}; judged by the near one, the far one tells how loud the hall is"
        return f"two microphones: {share} and is taken away; the far one hears the machine {-self.crosstalk.level_db:.0f} dB softer"

    def write(self, folder: Path) -> HallEntry:
        """Write its files into a machine's folder."""
        self.crosstalk.save(folder / HALL)
        near = None
        if self.near is not None:
            near, _ = write_machine(folder / NEAR_FOLDER, f"{folder.name}/{NEAR_FOLDER}", learned=self.near)
        return HallEntry(
            file=f"{folder.name}/{HALL}",
            way=self.way,
            near=near,
            hall_dbfs=self.usual.hall_dbfs,
            machine_dbfs=self.usual.machine_dbfs,
            share=self.usual.share,
        )


def with_second_microphone(
    heard: HeardMachine, tell: Callable[[str], None], *, known: Crosstalk | None = None, anew: bool = False
) -> tuple[HeardMachine, LearnedHall | None]:
    """Windows of a machine at work as they will be judged, and what was learned of its second microphone.

    Windows that are not kept as sound of both microphones are left out, where enough are. Without enough of them the machine is learned
    with one microphone.

    Args:
        heard: windows, described as the near microphone heard them.
        tell: called with what there is to say.
        known: how the far microphone hears the machine, where that was learned before.
        anew: whether the windows must be described anew, since some are described without the hall.

    Raises:
        EnrolmentError: a window that can't be read.
    """
    files = {row for row, file in heard.sounds.items() if read_both_microphones(file) is not None}
    if len(files) < LEAST_WINDOWS:
        return heard, None
    both = heard.subset(np.array(sorted(files)))
    readers = [partial(_both, both.sounds[row]) for row in range(both.sound.windows)]
    try:
        crosstalk = known or learn_crosstalk(readers)
    except DataSetError as e:
        tell(f"learned with one microphone: {e}")
        return heard, None
    tell(f"learning from {len(readers)} windows of two microphones: taking the hall away")
    cleaned, usual = _cleaned(readers, crosstalk, both.sound)
    if anew:
        both = replace(both, sound=_described([partial(_near, read) for read in readers], both.sound))
    if usual.share < LEAST_SHARE:
        return (both if anew else heard), LearnedHall(crosstalk, usual, "near")
    return replace(both, sound=cleaned), LearnedHall(crosstalk, usual, "cancelled", learn(both.sound))


def _cleaned(readers: Sequence[ReadWindow], crosstalk: Crosstalk, like: NormalSound) -> tuple[NormalSound, UsualHall]:
    """Windows described without the hall, and how loud that was."""
    found: list[WithoutHall] = []
    nothing = np.zeros(0, np.float32)

    def without(read: ReadWindow) -> F32:
        window = read()
        one = without_hall(np.ascontiguousarray(window[:, 0]), np.ascontiguousarray(window[:, 1]), crosstalk)
        found.append(replace(one, hall=nothing, sound=one.sound[::16].copy()))  # its level is all that is needed
        return one.sound

    sound = _described([partial(without, read) for read in readers], like)
    return sound, UsualHall.of(found)


def _described(sounds: Sequence[ReadWindow], like: NormalSound) -> NormalSound:
    """Windows (160 000,) described by the views of others, of the same domains."""
    extractor, views = FeatureExtractor(None), [view for view in like.vectors if view not in (HEARD, SEPARATED)]
    described = NormalSound.from_windows(
        [(extractor.vectors(read(), views, parts=True), {}) for read in sounds], like.domains
    )
    # embeddings are of the near microphone as it is, whatever becomes of the hall
    return replace(described, vectors={**like.vectors, **described.vectors})


def _near(read: ReadWindow) -> F32:
    return np.ascontiguousarray(read()[:, 0])


def _both(file: Path) -> F32:
    window = read_both_microphones(file)
    if window is None:
        raise EnrolmentError(f"{file}: holds one microphone only; learn the machine anew with --relearn")
    return window
