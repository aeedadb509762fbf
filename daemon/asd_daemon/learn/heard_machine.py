"""All that a machine is learned from: windows of the machine at work, the state of each where that is known, and where it is off.

Owns how what is heard now joins what was known before, and which windows are of a machine that stands still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.manifest import OffLevel
from asd_daemon.judge.scoring.operating_states import RunningStates
from asd_daemon.judge.scoring.verdict import OFF, RUNNING
from asd_daemon.learn.enrolment_record import EnrolmentRecord
from asd_daemon.learn.kept_vectors import KeptEnrolment, join_sound
from asd_daemon.learn.learned_states import nearest_states
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.states import OFF_GAP_DB, off_level, off_up_to

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class HeardMachine:
    """Windows of a machine, N of them."""

    sound: NormalSound
    levels_dbfs: F64 | None
    """(N,); None where those of some are not known any more."""
    sounds: Mapping[int, Path] = field(default_factory=dict)
    """Those that are kept as sound, by position."""
    level_range: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """10th, 50th and 90th percentile of the levels heard now, in dBFS."""
    names: tuple[str, ...] = ()
    """State of each; empty: states are looked for."""
    off: OffLevel | None = None

    @classmethod
    def without_off(
        cls, sound: NormalSound, levels_dbfs: F64, sounds: Mapping[int, Path], below_dbfs: float | None = None
    ) -> HeardMachine:
        """Windows (N,) less those in which the machine is off, where there is such a thing.

        Args:
            sound: of all windows.
            levels_dbfs: (N,).
            sounds: those that are kept, by position.
            below_dbfs: where off ends, if somebody has said so.
        """
        off = off_level(levels_dbfs) if below_dbfs is None else off_up_to(below_dbfs, levels_dbfs)
        heard = cls(sound, levels_dbfs, sounds, _range(levels_dbfs), off=off)
        if heard.off is None:
            return heard
        return heard.subset(np.flatnonzero(levels_dbfs > heard.off.below_dbfs))

    def subset(self, rows: NDArray[np.int64]) -> HeardMachine:
        """The windows at these positions, which rise."""
        place = {int(row): n for n, row in enumerate(rows)}
        levels = None if self.levels_dbfs is None else self.levels_dbfs[rows]
        return replace(
            self,
            sound=self.sound.subset(rows),
            levels_dbfs=levels,
            sounds={place[row]: file for row, file in self.sounds.items() if row in place},
            level_range=self.level_range if levels is None else _range(levels),
            names=tuple(self.names[int(row)] for row in rows) if self.names else (),
        )

    def named(self, state: str | None) -> HeardMachine:
        """The same, all of one state that somebody has named."""
        return self if state is None else replace(self, names=(state,) * self.sound.windows)

    def joined_to(
        self, before: EnrolmentRecord, known: KeptEnrolment, state: str | None, states: RunningStates | None
    ) -> HeardMachine:
        """What was known before, and this behind it.

        Args:
            before: the record of what was known.
            known: what of it is kept.
            state: the state that somebody says this is of; None: it is not new.
            states: those that are known.

        Raises:
            DataSetError: the machine shall be off, and is not quieter than at work.
        """
        off = self.off or (before.states.off if before.states else None)
        if state == OFF:
            return HeardMachine(
                known.sound, None, known.sounds, before.level_dbfs, known.names, self._off_beside(before)
            )
        names: tuple[str, ...] = ()
        if state is not None or known.names:
            one = before.states.running[0].name if before.states and before.states.running else RUNNING
            earlier = known.names or (one,) * known.sound.windows
            own = [state or one] * self.sound.windows
            if state is None and states is not None:
                own = nearest_states(states, self.sound)
            names = (*earlier, *own)
        sounds = {**known.sounds, **{known.sound.windows + row: file for row, file in self.sounds.items()}}
        views = set(known.sound.vectors) & set(self.sound.vectors)  # embeddings may be of one of the two alone
        joined = join_sound(known.sound.only(views), self.sound.only(views))
        return HeardMachine(joined, None, sounds, self.level_range, names, off)

    def _off_beside(self, before: EnrolmentRecord) -> OffLevel:
        """How quiet the machine is now that it is off, beside what it was at work."""
        _, middle, high = self.level_range
        if before.level_dbfs[0] - high < OFF_GAP_DB:
            raise DataSetError(
                f"{before.machine}: switched off it is {before.level_dbfs[1] - middle:.0f} dB quieter than at work, which is too little to"
                " tell the two by their level; give this state another name, and it is known by its sound"
            )
        return OffLevel(below_dbfs=round((before.level_dbfs[0] + high) / 2, 2), usual_dbfs=round(middle, 2), share=0.0)


def _range(levels_dbfs: F64) -> tuple[float, float, float]:
    low, middle, high = (float(level) for level in np.percentile(levels_dbfs, (10, 50, 90)))
    return low, middle, high
