"""Usable windows of a machine that is being learned, as vectors on the disk, so that collecting goes on where it was interrupted.

Owns the folder of the collection. Vectors are kept, sound is not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from asd_daemon.errors import BundleError
from asd_daemon.judge.scoring.scorer import FeatureExtractor
from asd_daemon.learn.enrolled_machines import read_vectors, write_vectors
from asd_daemon.learn.normal_sound import NormalSound

COLLECTING = "collecting"
MODELS_FILE = "note.json"
FAILURE_FILE = "tried.json"


class CollectedWindows:
    """Vectors of usable windows of one machine, on the disk, so that collecting goes on where it was interrupted."""

    def __init__(self, folder: Path, models: str) -> None:
        """Open the collection that is begun, or begin one; one that other models heard is begun anew.

        Raises:
            BundleError: the folder can't be written.
        """
        self.folder = folder
        models_file = folder / MODELS_FILE
        expected = json.dumps({"models": models})
        try:
            if not models_file.is_file() or models_file.read_text(encoding="utf-8", errors="replace") != expected:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                models_file.write_text(expected, encoding="utf-8")
        except OSError as e:
            raise BundleError(f"{folder}: can't be written: {e}; set ASD_STATE_DIR or give this user the right") from e
        self._files = sorted(folder.glob("window-*.npz"))

    def __len__(self) -> int:
        return len(self._files)

    @property
    def windows_at_last_failure(self) -> int:
        """How many windows there were when nothing could be learned from them; 0 where that never was."""
        try:
            return min(int((self.folder / FAILURE_FILE).read_text(encoding="ascii")), len(self))
        except (OSError, ValueError):
            return 0

    def mark_failed(self) -> None:
        """Nothing can be learned from what there is: the next call listens on.

        Raises:
            BundleError: the disk refuses.
        """
        try:
            (self.folder / FAILURE_FILE).write_text(str(len(self)), encoding="ascii")
        except OSError as e:
            raise BundleError(f"{self.folder}: can't be written: {e}") from e

    def add(self, extractor: FeatureExtractor, views: tuple[str, ...], samples: np.ndarray) -> None:
        """Describe a window and keep its vectors and its level.

        Raises:
            BundleError: the disk refuses.
        """
        number = len(self._files)
        own = extractor.vectors(samples, views, parts=True)
        level = 10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-20)
        file = self.folder / f"window-{number:06d}.npz"
        try:
            write_vectors(file, own | {"level_dbfs": np.array([[level]], np.float32)}, {})
        except OSError as e:
            raise BundleError(f"{file}: can't be written: {e.strerror}; what was collected stays") from e
        self._files.append(file)

    def read(self) -> tuple[NormalSound, list[float]]:
        """All windows, and their levels."""
        windows, levels = [], []
        for file in self._files:
            own, changed = read_vectors(file)
            levels.append(float(own.pop("level_dbfs")[0, 0]))
            windows.append((own, changed))
        return NormalSound.from_windows(windows), levels
