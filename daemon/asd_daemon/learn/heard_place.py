"""How the microphone was placed while a machine was learned, from the windows of it that were kept as sound."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from asd_daemon.hear.windows.placement import placement_findings
from asd_daemon.learn.enrolment_record import EnrolmentRecord
from asd_daemon.learn.kept_sound import SOUND_FOLDER, read_window, window_files

MOST_WINDOWS = 12


def place_of(root: Path, record: EnrolmentRecord) -> tuple[str, ...] | None:
    """What of the place disturbed in at least half of the windows (kinds of `placement_findings`); None where no sound was kept.

    Args:
        root: where learned machines lie.
        record: one of them.

    Raises:
        EnrolmentError: what was kept can't be read.
    """
    files = window_files(root / record.machine / record.entry.folder / SOUND_FOLDER)
    if not files:
        return None
    places = np.unique(np.linspace(0, len(files) - 1, MOST_WINDOWS).round().astype(int))
    counted = Counter(one.kind for place in places for one in placement_findings(read_window(files[int(place)])))
    return tuple(kind for kind, count in counted.most_common() if kind != "good" and count >= len(places) / 2)
