"""New training clips: the separated machine of one recording in the noise of another (paper, section 2.1).

Owns the plan of a synthetic set, which follows from the recordings, a number and a seed, and the rendering of one clip of
it. The set can be written, file by file, or rendered as it is needed. What is new is the meeting of machine and noise:
machine, domain and attributes are those of the recording that the machine was taken from, the noise comes from a recording
of the same class (of the same domain where the class has no other), and ratio and level from a recording of the same
domain, so that the synthetic set is distributed as the data set is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError, StageError
from asd_daemon.waveform import WINDOW_SAMPLES
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import load_clip
from asd_trainer.separate.mixtures import SILENT_DBFS, mix
from asd_trainer.separate.separated_clips import SeparatedClip, write_sound

F32 = NDArray[np.float32]
Load = Callable[[Clip], F32]

SOURCE_PARTS, TARGET_PARTS = 4, 1  # paper, section 2.1


@dataclass(frozen=True)
class SyntheticClip:
    """One clip that does not exist yet, or is written at clip.path."""

    clip: Clip
    machine: SeparatedClip
    """Whose machine is heard."""
    noise: SeparatedClip
    """Whose noise is heard: the recording less its machine."""
    snr_db: float
    level_dbfs: float
    noise_shift_samples: int
    """The noise goes round, so that two clips of the same pair differ; a machine's cycle is never cut."""


def plan(separated: Sequence[SeparatedClip], clips: int, seed: int, folder: Path) -> tuple[SyntheticClip, ...]:
    """Plan a synthetic set of `clips` clips from separated training recordings, evenly over their machines.

    Of each machine's clips exactly four fifths are of the source domain and one fifth of the target domain. The n-th clip
    of a machine follows from the seed, the machine's name and n alone.

    Raises:
        DataSetError: the number can't be split 4:1, or a machine lacks one of the domains; names them.
    """
    machines = sorted({one.clip.machine for one in separated})
    if not machines:
        raise DataSetError("no recording was separated, so nothing can be synthesised")
    parts = SOURCE_PARTS + TARGET_PARTS
    if clips < parts * len(machines) or clips % parts:
        raise DataSetError(
            f"{clips} synthetic clips of {len(machines)} machine(s) can't be {SOURCE_PARTS}:{TARGET_PARTS} source to target:"
            f" give a multiple of {parts}, at least {parts * len(machines)}"
        )
    shares = [clips // parts // len(machines) + (i < clips // parts % len(machines)) for i in range(len(machines))]
    planned: list[SyntheticClip] = []
    for machine, share in zip(machines, shares, strict=True):
        own = [one for one in separated if one.clip.machine == machine]
        planned += _of_machine(own, share, (seed, *machine.encode()), folder)
    return tuple(planned)


def render(synthetic: SyntheticClip, load: Load = load_clip) -> F32:
    """Make the sound of a planned clip, float32 (160 000,).

    Raises:
        RecordingError: a recording that it is made from can't be read.
    """
    machine = load(synthetic.machine.machine)
    noise = np.roll(load(synthetic.noise.clip) - load(synthetic.noise.machine), synthetic.noise_shift_samples)
    sources = mix(machine, noise, synthetic.snr_db, synthetic.level_dbfs)
    return np.asarray(sources.sum(axis=0), dtype=np.float32)


def write(
    planned: Sequence[SyntheticClip], load: Load = load_clip, progress: Callable[[int], None] | None = None
) -> int:
    """Write the clips that are not there yet; gives their number. `progress` is called with the clips done after each.

    Raises:
        RecordingError: a recording can't be read.
        StageError: a file can't be written.
    """
    written = 0
    for done, synthetic in enumerate(planned, start=1):
        if not synthetic.clip.path.exists():
            try:
                write_sound(synthetic.clip.path, render(synthetic, load))
            except OSError as e:
                raise StageError(
                    f"{synthetic.clip.path}: can't be written: {e.strerror}; make room and call again"
                ) from e
            written += 1
        if progress is not None:
            progress(done)
    return written


def _of_machine(own: Sequence[SeparatedClip], share: int, seed: Sequence[int], folder: Path) -> list[SyntheticClip]:
    heard = [one for one in own if min(one.machine_dbfs, one.noise_dbfs) > SILENT_DBFS]
    domains: Mapping[str, list[SeparatedClip]] = {
        domain: [one for one in heard if one.clip.domain == domain] for domain in ("source", "target")
    }
    for domain, recordings in domains.items():
        if not recordings:
            raise DataSetError(
                f"{own[0].clip.machine}: has no training clip of the {domain} domain with both machine and noise in it"
                f" ({len(own)} clips, {len(heard)} with both); leave the machine out of the synthesis"
            )
    numbers = {"source": share * SOURCE_PARTS, "target": share * TARGET_PARTS}
    kinds = [domain for domain, number in numbers.items() for _ in range(number)]
    return [_one(domains[domain], n, np.random.default_rng((*seed, n)), folder) for n, domain in enumerate(kinds)]


def _one(recordings: Sequence[SeparatedClip], number: int, rng: np.random.Generator, folder: Path) -> SyntheticClip:
    machine = _pick(recordings, rng)
    others = [one for one in recordings if one is not machine] or [machine]
    alike = [one for one in others if _class(one) == _class(machine)] or others
    noise, model = _pick(alike, rng), _pick(recordings, rng)
    clip = machine.clip
    words = "".join(f"_{name}_{value}" for name, value in clip.attributes) or "_noAttribute"
    name = f"section_{clip.section}_{clip.domain}_train_normal_{number:06d}{words}.flac"
    level_dbfs = 10.0 * np.log10(10.0 ** (model.machine_dbfs / 10.0) + 10.0 ** (model.noise_dbfs / 10.0))
    return SyntheticClip(
        clip=clip.at(folder / clip.machine / "train" / name),
        machine=machine,
        noise=noise,
        snr_db=model.snr_db,
        level_dbfs=float(level_dbfs),
        noise_shift_samples=int(rng.integers(WINDOW_SAMPLES)),
    )


def _class(one: SeparatedClip) -> tuple[object, ...]:
    return one.clip.section, one.clip.domain, one.clip.attributes


def _pick(recordings: Sequence[SeparatedClip], rng: np.random.Generator) -> SeparatedClip:
    return recordings[int(rng.integers(len(recordings)))]
