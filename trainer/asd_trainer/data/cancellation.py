"""A data set of two microphones → the same data set of one, without what the machine's microphone hears of the hall.

Names and folders stay as they are, so that whatever reads a data set reads this one: training, evaluation, the challenge's submission. How
the far microphone hears each machine is learned from its normal training clips alone. Owns the cache: what is done is not done again, and
what was made otherwise is not mixed with it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, RecordingError
from asd_daemon.judge.hall.cancelling import without_hall
from asd_daemon.judge.hall.crosstalk import Crosstalk, learn_crosstalk
from asd_daemon.waveform import SAMPLE_RATE_HZ, read_both
from asd_trainer.data.clip import Clip, MachineSection, Problem
from asd_trainer.data.dataset import ClipTable, read_dataset
from asd_trainer.data.listing import year_of
from asd_trainer.data.shard_index import holds_shards
from asd_trainer.training.whole_file import write_whole

F32 = NDArray[np.float32]
Progress = Callable[[int, int], None]
NOTE = "cancellation.json"
METHOD = 1  # another number where what is written would be another sound


@dataclass(frozen=True)
class Cancellation:
    """What was written."""

    root: Path
    written: int
    kept: int
    """Clips that were there from an earlier call."""
    crosstalk_db: Mapping[str, float]
    """Machine and section → how much softer the far microphone hears the machine; negative."""
    shares: Mapping[str, float]
    """Of the clips that were written now, the hall's median share in their power."""
    problems: tuple[Problem, ...] = field(default=())


def cancel_hall(
    root: Path, out: Path, *, near: int = 0, far: int = 1, progress: Progress = lambda *_: None
) -> Cancellation:
    """Write a data set without the hall; broken off, the same call goes on.

    Args:
        root: the data set, in any layout that is read.
        out: where the other one goes, with the same names below it; float of 16 kHz in 24 bit.
        near: channel of the microphone at the machine, counted from 0.
        far: of the one far from it.
        progress: called with how many clips of how many are done.

    Raises:
        DataSetError: nothing can be read, a machine lacks one of the channels or training clips, or `out` holds something else, does not
            say the year, or can't be written.
    """
    if near == far:
        raise DataSetError(f"channels {near},{far}: the far microphone must be another channel than the near one")
    if out.resolve().is_relative_to(root.resolve()):
        raise DataSetError(f"{out}: lies in {root}, where it would be read as a part of it; give another folder")
    if holds_shards(root):
        raise DataSetError(f"{root}: holds shards; take the hall out of the recordings, then write shards of them")
    table = read_dataset([root])
    units = _units(table, near, far)
    for year in sorted({unit.year for unit in units if unit.year} - {year_of(out / "raw")}):
        raise DataSetError(f"{out}: its name must say the year as that of the data does: {out / f'dcase{year}t2'}")
    _claim(out, root, near, far)
    try:
        return _written(table, units, root, out, (near, far), progress)
    except OSError as e:
        raise DataSetError(f"{out}: can't be written: {e}; choose a folder with room that you may write to") from e


def _units(table: ClipTable, near: int, far: int) -> dict[MachineSection, Crosstalk]:
    """How the far microphone hears each machine, from normal training clips."""
    found: dict[MachineSection, Crosstalk] = {}
    reasons: list[str] = []
    for unit in sorted({clip.unit for clip in table.clips}):
        train = [
            clip
            for clip in table.clips
            if clip.unit == unit and clip.split == "train" and clip.label != "anomaly" and clip.supplement is None
        ]
        try:
            found[unit] = learn_crosstalk([partial(_both, clip, near, far) for clip in train])
        except (DataSetError, RecordingError) as e:
            reasons.append(f"{unit.machine} {unit.section}: {e}")
    if reasons:
        raise DataSetError(f"not every machine can be heard with two microphones: {'; '.join(reasons[:3])}")
    return found


def _both(clip: Clip, near: int, far: int) -> F32:
    return np.concatenate(list(read_both(clip.path, near, far)))


def _claim(out: Path, root: Path, near: int, far: int) -> None:
    """Refuse a folder that holds what was made otherwise."""
    wanted = {"method": METHOD, "source": str(root.resolve()), "near": near, "far": far}
    note = out / NOTE
    try:
        if note.exists():
            if json.loads(note.read_text(encoding="utf-8"))["made"] != wanted:
                raise DataSetError(
                    f"{note}: was made of other recordings, channels or by another version; give another folder"
                )
        elif out.exists() and any(out.iterdir()):
            raise DataSetError(f"{out}: is not empty and holds no {NOTE}; give another folder")
        else:
            out.mkdir(parents=True, exist_ok=True)
            write_whole(note, json.dumps({"made": wanted}, indent=1))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise DataSetError(f"{note}: can't be read or written: {e}; give another folder") from e


def _written(
    table: ClipTable,
    units: Mapping[MachineSection, Crosstalk],
    root: Path,
    out: Path,
    channels: tuple[int, int],
    progress: Progress,
) -> Cancellation:
    shares: dict[MachineSection, list[float]] = {unit: [] for unit in units}
    problems, kept = list(table.problems), 0
    for number, clip in enumerate(table.clips):
        progress(number, len(table.clips))
        target = out / clip.path.relative_to(root)
        if target.exists():
            kept += 1
            continue
        try:
            both = _both(clip, *channels)
        except RecordingError as e:
            problems.append(Problem(clip.path, str(e)))
            continue
        near, far = (np.ascontiguousarray(both[:, column]) for column in (0, 1))
        found = without_hall(near, far, units[clip.unit])
        shares[clip.unit].append(found.share)
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_sound(target, found.sound)
    progress(len(table.clips), len(table.clips))
    for table_of_attributes in root.rglob("attributes_*.csv"):
        target = out / table_of_attributes.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(table_of_attributes, target)
    names = {unit: f"{unit.machine} {unit.section}".strip() for unit in units}
    done = Cancellation(
        out,
        len(table.clips) - kept - (len(problems) - len(table.problems)),
        kept,
        {names[unit]: round(crosstalk.level_db, 2) for unit, crosstalk in units.items()},
        {names[unit]: round(float(np.median(own)), 4) for unit, own in shares.items() if own},
        tuple(problems),
    )
    note = json.loads((out / NOTE).read_text(encoding="utf-8"))
    facts = {key: value for key, value in asdict(done).items() if key in ("crosstalk_db", "shares")}
    earlier = note.get("shares", {})
    facts["shares"] = {**earlier, **facts["shares"]}
    write_whole(out / NOTE, json.dumps({**note, **facts}, indent=1))
    return done


def _write_sound(target: Path, sound: F32) -> None:
    """Write a clip, in the form that its name says or as WAV; it is whole or not there."""
    beside = target.with_name(f".{target.name}.part")
    form = "FLAC" if target.suffix.lower() == ".flac" else "WAV"
    try:
        soundfile.write(str(beside), np.clip(sound, -1, 1), SAMPLE_RATE_HZ, format=form, subtype="PCM_24")
        beside.replace(target)
    except soundfile.LibsndfileError as e:
        raise OSError(0, str(e)) from e
    finally:
        beside.unlink(missing_ok=True)


def parse_channels(words: str) -> tuple[int, int]:
    """`0,1` → near and far.

    Raises:
        DataSetError: not two different channels counted from 0.
    """
    parts: Sequence[str] = [part.strip() for part in words.split(",")]
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and int(part) < 64 for part in parts):
        raise DataSetError(f"--channels {words!r} must be NEAR,FAR: two channels counted from 0, like 0,1")
    return int(parts[0]), int(parts[1])
