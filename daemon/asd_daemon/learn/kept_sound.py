"""The windows that a machine was learned from, as FLAC, so that another version of this program can hear them again.

    window-<number>-<shift>.flac     int16 of the window times 2 to the shift, so that quiet sound keeps its bits

Owns the form of these files. Who may keep sound at all is asked elsewhere.
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import EnrolmentError, RecordingError
from asd_daemon.private_files import make_private_file
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES, read_waveform

F32 = NDArray[np.float32]
SOUND_FOLDER = "sound"
MOST_SOUNDS = 160  # ten times what is needed to learn; at most about 35 MB
_NAME = re.compile(r"^window-(\d{6})-(\d{1,2})\.flac$")
_FULL = 32_767


def write_window(folder: Path, number: int, samples: F32) -> Path:
    """Keep a window float32 (160 000,), or (160 000, 2) of two microphones, in [-1, 1].

    Raises:
        OSError: the disk refuses.
    """
    import soundfile

    peak = float(np.abs(samples).max(initial=0))
    shift = 0 if peak <= 0 else min(max(math.floor(-math.log2(peak)), 0), 15)
    file = folder / f"window-{number:06d}-{shift}.flac"
    unfinished = file.with_name(f".{file.name}.part")
    whole = (np.clip(samples * 2.0**shift, -1, 1) * _FULL).round().astype(np.int16)
    encoded = io.BytesIO()  # libsndfile does not say why a disk refuses
    soundfile.write(encoded, whole, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    make_private_file(unfinished)
    try:
        unfinished.write_bytes(encoded.getvalue())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return file


def window_files(folder: Path) -> list[Path]:
    """The windows in a folder, in the order in which they were heard."""
    return sorted(f for f in folder.glob("window-*.flac") if _NAME.match(f.name))


def read_window(file: Path) -> F32:
    """What `write_window` wrote, float32 (160 000,); of two microphones the near one.

    Raises:
        EnrolmentError: it can't be read as that.
    """
    return _read(file, 0)


def read_both_microphones(file: Path) -> F32 | None:
    """What `write_window` wrote of two microphones, float32 (160 000, 2); None where it was one.

    Raises:
        EnrolmentError: it can't be read as that.
    """
    import soundfile

    try:
        with soundfile.SoundFile(str(file)) as opened:
            channels = opened.channels
    except (OSError, soundfile.LibsndfileError) as e:
        raise EnrolmentError(f"{file}: can't be read: {e}; learn the machine anew with --relearn") from e
    return np.stack([_read(file, channel) for channel in (0, 1)], axis=1) if channels == 2 else None


def _read(file: Path, channel: int) -> F32:
    named = _NAME.match(file.name)
    try:
        samples = read_waveform(file, channel)
    except RecordingError as e:
        raise EnrolmentError(f"{e}; learn the machine anew with --relearn") from e
    if named is None or samples.shape != (WINDOW_SAMPLES,):
        raise EnrolmentError(f"{file}: is no kept window of {WINDOW_SAMPLES} samples; learn the machine anew")
    return np.asarray(samples * (32_768 / _FULL / 2.0 ** int(named[2])), np.float32)


def kept_places(windows: int) -> NDArray[np.int64]:
    """Which of so many windows are kept: all, or MOST_SOUNDS evenly chosen."""
    return np.unique(np.linspace(0, windows - 1, min(windows, MOST_SOUNDS)).round().astype(np.int64))


def carry_over(files: Sequence[Path], folder: Path) -> int:
    """Put windows, evenly chosen where there are more than MOST_SOUNDS, into a new folder under numbers of their own; how many.

    Raises:
        OSError: the disk refuses.
    """
    if not files:
        return 0
    folder.mkdir(mode=0o700)
    places = kept_places(len(files))
    for number, place in enumerate(places):
        file = files[int(place)]
        shift = file.stem.rsplit("-", 1)[1]
        target = folder / f"window-{number:06d}-{shift}.flac"
        try:
            os.link(file, target)
        except OSError:  # a file system without links
            shutil.copyfile(file, target)
    return len(places)
