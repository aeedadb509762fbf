"""A machine's second microphone while it is judged: what of a window is judged, and what the far microphone says of the hall.

Owns what a bundle knows of two microphones. The arithmetic is that of `judge/hall`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.bundle.manifest import HallEntry
from asd_daemon.judge.hall.cancelling import without_hall
from asd_daemon.judge.hall.crosstalk import Crosstalk
from asd_daemon.judge.hall.usual_hall import UsualHall
from asd_daemon.judge.scoring.verdict import HeardHall

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class HallListening:
    """One machine's."""

    crosstalk: Crosstalk
    usual: UsualHall
    entry: HallEntry

    @classmethod
    def open(cls, bundle: Bundle, machine: str) -> HallListening | None:
        """What is known; None of a machine that was learned with one microphone.

        Raises:
            BundleError: a file that can't be read.
        """
        entry = bundle.machine(machine).hall
        if entry is None:
            return None
        crosstalk = Crosstalk.load(bundle.folder(machine).parent / entry.file)
        return cls(crosstalk, UsualHall(entry.hall_dbfs, entry.machine_dbfs, entry.share), entry)

    def bundle_of_near(self, bundle: Bundle, machine: str) -> Bundle | None:
        """A bundle that knows the machine by its near microphone alone; None where both are judged by the same."""
        if self.entry.near is None:
            return None
        root = bundle.folder(machine).parent
        return replace(bundle, enrolled={**bundle.enrolled, machine: (root, self.entry.near)})

    def hear(self, near: F32, far: F32) -> tuple[F32, HeardHall]:
        """What is judged of a window, float32 (N,) each, and what the far microphone says of it."""
        found = without_hall(near, far, self.crosstalk)
        heard = HeardHall(found.share, self.usual.is_drowned_by(found.hall_dbfs))
        return (found.sound if self.entry.way == "cancelled" else near), heard
