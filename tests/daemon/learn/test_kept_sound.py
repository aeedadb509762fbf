"""Windows that are kept as sound, and disks that refuse them."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.learn.kept_sound import window_files, write_window
from asd_daemon.waveform import WINDOW_SAMPLES
from rig.disk import fill, small_disk


def test_a_full_disk_is_called_so_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    sound = np.random.default_rng(1).normal(0, 0.1, WINDOW_SAMPLES).astype(np.float32)
    with small_disk(tmp_path / "small", 512) as disk:
        fill(disk / "filler", leave_kilobytes=64)
        with pytest.raises(OSError, match="No space left") as refused:
            write_window(disk, 1, sound)
        assert refused.value.errno == errno.ENOSPC
        assert {file.name for file in disk.iterdir()} == {"filler"}
        (disk / "filler").unlink()
        write_window(disk, 1, sound)
        assert len(window_files(disk)) == 1
