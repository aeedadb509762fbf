"""The separated twin of a recording: the machine alone, as a sound file with the same name in a folder of its own.

Owns where the twins lie, and how loud machine and noise were found to be. Written file by file, each whole or not there,
so that a stage that was killed goes on.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import StageError
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import load_clip
from asd_trainer.networks.separator import Separator
from asd_trainer.separate.losses import separate

F32 = NDArray[np.float32]
LEVELS = "levels.jsonl"
_QUIETEST_DBFS = -120.0


@dataclass(frozen=True)
class SeparatedClip:
    """A recording that has been separated."""

    clip: Clip
    """The recording as it was heard."""
    machine: Clip
    """The separated machine; everything but the path is the recording's."""
    machine_dbfs: float
    noise_dbfs: float

    @property
    def snr_db(self) -> float:
        """Machine over noise in the recording, as the separator hears it."""
        return self.machine_dbfs - self.noise_dbfs


def twin(clip: Clip, folder: Path) -> Clip:
    """The clip that holds the separated machine of a recording; folder/<machine>/<split>/<name>.flac."""
    return clip.at(folder / clip.machine / clip.split / f"{clip.path.stem}.flac")


def separate_clips(
    network: Separator, clips: Sequence[Clip], folder: Path, progress: Callable[[int], None] | None = None
) -> tuple[SeparatedClip, ...]:
    """Separate recordings into a folder, leaving those done before as they are; the result in the order of the clips.

    `progress` is called with the number of clips done after each.

    Raises:
        RecordingError: a recording can't be read or separated; names the file.
        StageError: the folder can't be written, or two recordings would share a file.
    """
    twins = [twin(clip, folder) for clip in clips]
    taken: dict[Path, Clip] = {}
    for clip, own in zip(clips, twins, strict=True):
        other = taken.setdefault(own.path, clip)
        if other is not clip:
            raise StageError(
                f"{own.path}: would hold both {other.path} and {clip.path}; separate the data sets in runs of their own"
            )
    levels = _read_levels(folder / LEVELS)
    try:
        for done, (clip, own) in enumerate(zip(clips, twins, strict=True), start=1):
            key = own.path.relative_to(folder).as_posix()
            if key not in levels or not own.path.exists():
                sources = _separated(network, clip)
                write_sound(own.path, sources[0])
                levels[key] = (_dbfs(sources[0]), _dbfs(sources[1]))
                _append_level(folder / LEVELS, key, levels[key])
            if progress is not None:
                progress(done)
    except OSError as e:
        raise StageError(f"{folder}: separated clips can't be written: {e.strerror}") from e
    found = [levels[own.path.relative_to(folder).as_posix()] for own in twins]
    return tuple(
        SeparatedClip(clip, own, machine_dbfs, noise_dbfs)
        for clip, own, (machine_dbfs, noise_dbfs) in zip(clips, twins, found, strict=True)
    )


def write_sound(path: Path, sound: F32) -> None:
    """Write float32 (samples,) as 24-bit FLAC, whole or not at all; samples beyond full scale are cut off there.

    Raises:
        OSError: the file can't be written.
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(sound, -1.0, 1.0), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_24")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(buffer.getvalue())
    os.replace(partial, path)


def _separated(network: Separator, clip: Clip) -> F32:
    sound = load_clip(clip)
    # A recording without any sound has no machine in it; the window is refused when listening, not here.
    return separate(network, sound) if sound.any() else np.stack([sound, sound])


def _read_levels(path: Path) -> dict[str, tuple[float, float]]:
    """Levels by file, one line each; a last line that was written by half is dropped."""
    if not path.exists():
        return {}
    levels: dict[str, tuple[float, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            key, machine_dbfs, noise_dbfs = json.loads(line)
        except ValueError:
            continue
        levels[str(key)] = (float(machine_dbfs), float(noise_dbfs))
    return levels


def _append_level(path: Path, key: str, level: tuple[float, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps([key, *level]) + "\n")


def _dbfs(sound: F32) -> float:
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    return max(_QUIETEST_DBFS, 10.0 * float(np.log10(power + 1e-20)))
