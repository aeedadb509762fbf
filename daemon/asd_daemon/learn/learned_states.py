"""A machine's normal windows, some of them of states that people have named → what it is judged by, state by state.

A machine with one state is learned as ever. Owns what becomes of windows that hold a start or a stop, what states are called, and which
state a window belongs to that somebody adds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.bundle.manifest import OffLevel
from asd_daemon.judge.scoring.operating_states import RunningStates
from asd_daemon.judge.scoring.verdict import OFF, RUNNING
from asd_daemon.judge.thresholds.calibration import calibrate_fused
from asd_daemon.learn.learning import LEAST_WINDOWS, LearnedMachine, learn
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.learn.states import find_states

F32 = NDArray[np.float32]
IDLE = "idle"
CHANGING_SCORE = 3.0
"""Held out, a window that scores more than this is none of its state, but of a start, a stop or a change …"""
CHANGING_SHARE = 0.1  # … where these are few
IDLE_DB, LOUDER_DB = 10.0, 3.0
HIGHER_BANDS = 2.0  # of 128: by so much the centre of a spectrum must move to be worth a word


@dataclass(frozen=True)
class LearnedState:
    """One state in which a machine runs."""

    name: str
    learned: LearnedMachine
    level_dbfs: float | None


@dataclass(frozen=True)
class LearnedStates:
    """What a machine is judged by, with its states."""

    machine: LearnedMachine
    """All its windows together; its calibration is that of the states, where there are several."""
    sound: NormalSound
    """What it was learned from, windows of starts and stops left out."""
    rows: NDArray[np.int64]
    """Which of the windows that were given these are."""
    names: tuple[str, ...] = ()
    """State of each of them; empty where the machine has one normal."""
    running: tuple[LearnedState, ...] = ()
    off: OffLevel | None = None

    @property
    def words(self) -> str:
        """The states and how much of the time each takes; nothing where the machine has one normal and off is not known."""
        if not self.names and self.off is None:
            return ""
        off_share = self.off.share if self.off else 0.0
        counts = Counter(self.names or [RUNNING] * self.sound.windows)
        shares = {OFF: off_share} if self.off else {}
        shares |= {name: (1 - off_share) * count / counts.total() for name, count in counts.most_common()}
        listed = ", ".join(f"{name} ({share:.0%} of the time)" if share else name for name, share in shares.items())
        return f"{len(shares)} states: {listed}"

    def sounds_of(self, sounds: Mapping[int, Path]) -> dict[int, Path]:
        """Of kept sounds by position among the windows that were given, those of windows it was learned from, by position here."""
        return {place: sounds[int(row)] for place, row in enumerate(self.rows) if int(row) in sounds}


def learn_states(
    sound: NormalSound,
    *,
    names: Sequence[str] = (),
    levels_dbfs: NDArray[np.floating] | None = None,
    off: OffLevel | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> LearnedStates:
    """Learn a machine, each of its states for itself.

    Args:
        sound: windows of the machine at work, N of them.
        names: state of each; empty: states are looked for.
        levels_dbfs: (N,), where they are known; states are named after them.
        off: where it is off, for the record; windows of a machine that is switched off and on hold starts and stops.
        on_progress: called with what is at hand.

    Raises:
        DataSetError: too few windows, of the machine or of a state.
    """
    if not names and sound.windows >= 2 * LEAST_WINDOWS:
        numbers = find_states(sound)
        if numbers.any():
            names = _names_of(sound, numbers, levels_dbfs)
            on_progress(f"found {numbers.max() + 1} states: {', '.join(dict.fromkeys(names))}")
    rows = np.arange(sound.windows)
    if len(set(names)) < 2:
        whole = learn(sound, on_progress)
        if off is not None and (kept := _of_a_state(whole)) is not None:
            rows, sound = rows[kept], sound.subset(rows[kept])
            on_progress(f"{whole.held_out.shape[0] - len(kept)} windows that hold a start or a stop are left out")
            whole = learn(sound, on_progress)
        return LearnedStates(whole, sound, rows, off=off)
    running, kept_rows = [], []
    for name in dict.fromkeys(names):
        own = np.flatnonzero(np.array(names) == name)
        state, kept_own = _learned(name, sound, own, levels_dbfs, on_progress)
        running.append(state)
        kept_rows.append(kept_own)
    rows = np.sort(np.concatenate(kept_rows))
    sound = sound.subset(rows)
    whole = learn(sound, on_progress)
    calibration = calibrate_fused(np.concatenate([state.learned.held_out for state in running]))
    drift = max(state.learned.drift for state in running)
    whole = replace(whole, calibration=calibration, drift=drift)
    return LearnedStates(whole, sound, rows, tuple(names[int(row)] for row in rows), tuple(running), off)


def nearest_states(states: RunningStates, sound: NormalSound) -> list[str]:
    """In which state each window is most normal."""
    scores = states.scores({view: vectors[:, 0] for view, vectors in sound.vectors.items()})
    names = list(states.fusions)
    return [names[int(place)] for place in scores.argmin(axis=1)]


def _learned(
    name: str,
    sound: NormalSound,
    own: NDArray[np.int64],
    levels_dbfs: NDArray[np.floating] | None,
    on_progress: Callable[[str], None],
) -> tuple[LearnedState, NDArray[np.int64]]:
    """One state, and the windows it was learned from."""
    if len(own) < LEAST_WINDOWS:
        raise DataSetError(f"state {name!r}: {len(own)} windows are too few; at least {LEAST_WINDOWS} are needed")
    try:
        learned = learn(sound.subset(own), lambda words: on_progress(f"{name}: {words}"))
        kept = _of_a_state(learned)
        if kept is not None:
            own = own[kept]
            learned = learn(sound.subset(own), lambda words: on_progress(f"{name}: {words}"))
    except DataSetError as e:
        raise DataSetError(f"state {name!r}: {e}") from e
    level = None if levels_dbfs is None else round(float(np.median(np.asarray(levels_dbfs)[own])), 2)
    return LearnedState(name, learned, level), own


def _of_a_state(learned: LearnedMachine) -> NDArray[np.int64] | None:
    """Positions of the windows that hold no start or stop; None where that are all, or too many would go."""
    kept = np.flatnonzero(learned.held_out <= CHANGING_SCORE)
    left_out = learned.held_out.shape[0] - len(kept)
    if not 0 < left_out <= CHANGING_SHARE * learned.held_out.shape[0] or len(kept) < LEAST_WINDOWS:
        return None
    return kept


def _names_of(
    sound: NormalSound, numbers: NDArray[np.int64], levels_dbfs: NDArray[np.floating] | None
) -> tuple[str, ...]:
    """What states (N,) that were found are called: after how they differ from the one that lasts longest."""
    spectra = sound.vectors["steady-mean"][:, 0]
    centres = [_centre(spectra[numbers == n].mean(axis=0)) for n in range(numbers.max() + 1)]
    levels = None
    if levels_dbfs is not None:
        levels = [float(np.median(np.asarray(levels_dbfs)[numbers == n])) for n in range(numbers.max() + 1)]
    called: list[str] = []
    for n, centre in enumerate(centres):
        words = RUNNING if n == 0 else _difference_words(centre - centres[0], levels[n] - levels[0] if levels else 0.0)
        same = sum(other == words or other.startswith(f"{words} ") for other in called)
        called.append(words if not same else f"{words} {same + 1}")
    return tuple(called[n] for n in numbers)


def _difference_words(bands: float, level_db: float) -> str:
    if level_db <= -IDLE_DB:
        return IDLE
    pitch = "" if abs(bands) < HIGHER_BANDS else ", higher pitched" if bands > 0 else ", lower pitched"
    loud = "" if abs(level_db) < LOUDER_DB else ", louder" if level_db > 0 else ", softer"
    return f"{RUNNING}{loud}{pitch}"


def _centre(log_spectrum: F32) -> float:
    """Mean band of a log-mel spectrum (128,), by its amplitude."""
    amplitude = np.exp(log_spectrum.astype(np.float64) / 2)
    return float((np.arange(len(amplitude)) * amplitude).sum() / amplitude.sum())
