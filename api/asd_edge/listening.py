"""What an edge box does, from Python: bundles, judging sound, learning a machine. NumPy and onnxruntime are enough.

    >>> from asd_edge import load_bundle, open_machine, simulate
    >>> fan = open_machine(load_bundle(), "fan")
    >>> [well] = fan.score(simulate("fan"))
    >>> [ill] = fan.score(simulate("fan", failure="rubbing"))
    >>> well.anomalous, ill.anomalous
    (False, True)

Owns what an array must be to be judged. All else is asd_daemon's: bundle, scorer, windows, enrolment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError, UsageError
from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.bundle.bundle import Bundle, default_bundle
from asd_daemon.judge.bundle.bundle import load_bundle as load_verified
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import FeatureExtractor, Scorer
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.learn import enrolment
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, EnrolmentResult
from asd_daemon.resampling import Resampler
from asd_daemon.run.scored_recordings import ScoredWindow, recording_windows, score_blocks, score_recording
from asd_daemon.settings.text_formats import checked_name
from asd_daemon.waveform import LEAST_RATE_HZ, SAMPLE_RATE_HZ, WINDOW_S, fit_length, read_waveform

F32 = NDArray[np.float32]
Sound = NDArray[np.floating[Any]]


def load_bundle(path: Path | str | None = None, *, key: Path | str | None = None) -> Bundle:
    """Read a bundle and verify every file of it.

    >>> bundle = load_bundle()
    >>> bundle.name, bundle.machines[:3]
    ('asd-edge-default', ('ToyCar', 'ToyTrain', 'bearing'))

    Args:
        path: its folder; None: the one that comes with the program, of simulated machines.
        key: the public key (Ed25519, PEM) that must have signed it; None: no signature is asked for.

    Raises:
        BundleError: what is wrong, in which file, and what to do.
    """
    return load_verified(default_bundle() if path is None else Path(path), None if key is None else Path(key))


def to_waveform(sound: Sound, rate_hz: float = SAMPLE_RATE_HZ) -> F32:
    """Bring an array at any rate to what is judged, with the filter that recordings go through (soxr, HQ).

    >>> to_waveform(np.zeros(48_000), 48_000).shape
    (16000,)

    Args:
        sound: floating point in [-1, 1], shape (N,); or (N, 2) of two microphones, the one at the machine first.
        rate_hz: samples per second, 14 000 or more.

    Returns:
        float32, shape (M,) or (M, 2), at 16 kHz; M is about N · 16 000 / rate_hz.

    Raises:
        RecordingError: integers, another shape, no samples, or a rate that can't hold the band that is judged.
    """
    samples = np.asarray(sound)
    if not np.issubdtype(samples.dtype, np.floating):
        raise RecordingError(
            f"sound is {samples.dtype}: give floating point in [-1, 1] (of 16 bit integers: samples / 32768)"
        )
    if samples.shape[:1] in ((), (0,)) or samples.shape[1:] not in ((), (2,)):
        raise RecordingError(
            f"sound has the shape {samples.shape}: give (N,), or (N, 2) of two microphones; choose a channel of others"
        )
    if not LEAST_RATE_HZ <= rate_hz < np.inf:
        raise RecordingError(
            f"rate_hz is {rate_hz:g}: sound of less than {LEAST_RATE_HZ} Hz lacks the band that is judged"
        )
    resample = Resampler(rate_hz, SAMPLE_RATE_HZ, samples.ndim)
    return resample(np.ascontiguousarray(samples, np.float32), last=True)


class Machine:
    """One machine, ready to judge its sound; `open_machine` makes it. One thread at a time."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer

    def __repr__(self) -> str:
        return f"<Machine {self.name}: threshold {self.threshold:.3f}, judged by {', '.join(self.views)}>"

    @property
    def name(self) -> str:
        """As the bundle calls it."""
        return self._scorer.machine

    @property
    def threshold(self) -> float:
        """Above this score a window is anomalous: made for one false alarm a week, as enrolment knows it."""
        return self._scorer.threshold

    @property
    def views(self) -> tuple[str, ...]:
        """By what of its sound it is judged."""
        return self._scorer.views

    def score(self, sound: Sound, rate_hz: float = SAMPLE_RATE_HZ, *, hop_s: float = WINDOW_S) -> list[ScoredWindow]:
        """Judge a recording in windows of 10 s, as `asd-daemon score` judges a file.

        What is left at the end is judged in a window that ends with the recording, if it is more than 2 s; a recording of 5 to 10 s is
        repeated to fill a window. What can't be judged has no score and says why:

        >>> fan = open_machine(load_bundle(), "fan")
        >>> [window] = fan.score(np.zeros(160_000, np.float32))
        >>> window.score is None, str(window.unusable)
        (True, 'silence')

        Args:
            sound: as `to_waveform`.
            rate_hz: samples per second.
            hop_s: seconds from the start of one window to that of the next.

        Returns:
            Windows in order: start_s and seconds, score, threshold and anomalous, or unusable.

        Raises:
            RecordingError: as `to_waveform`.
        """
        return list(score_blocks(self._scorer, [to_waveform(sound, rate_hz)], hop_s))

    def score_file(
        self, path: Path | str, *, channel: int = 0, hop_s: float = WINDOW_S, far: int | None = None
    ) -> Iterator[ScoredWindow]:
        """Judge a sound file likewise, in memory that does not grow with its length.

        Args:
            path: any format that libsndfile reads.
            channel: counted from 0.
            hop_s: seconds from the start of one window to that of the next.
            far: channel of a second microphone, of a machine that was learned with two; None: there is none.

        Raises:
            RecordingError: it can't be read, on the way too; names the file.
        """
        return score_recording(self._scorer, Path(path), channel, hop_s, far)


def open_machine(bundle: Bundle, name: str, *, learned: Path | str | None = None, scoring: Scoring = "auto") -> Machine:
    """Open what a machine is judged by.

    Args:
        bundle: what `load_bundle` gave.
        name: of a machine that the bundle or the folder knows.
        learned: folder of machines that `enrol` has learned; they go before the bundle's own.
        scoring: `auto`, by what evidence has chosen for the machine, or `paper`, by the nearest neighbour of its embeddings alone.

    Raises:
        SettingsError: the bundle has no embedder, or no bank of the machine's embeddings, to judge it by the paper's back end.
        UnknownMachineError: nobody knows the machine; lists those that are known.
        BundleError: a model, index or file that can't be used.
        EnrolmentError: what was learned is damaged, or of another version.
    """
    known = bundle if learned is None else with_enrolled_machine(bundle, Path(learned), _machine_name(name), scoring)
    return Machine(Scorer(known, name, scoring=scoring))


def enrol(
    bundle: Bundle,
    name: str,
    sounds: Iterable[Sound | Path | str],
    learned: Path | str,
    *,
    rate_hz: float = SAMPLE_RATE_HZ,
    add: bool = False,
    relearn: bool = False,
    scoring: Scoring = "auto",
    on_message: Callable[[str], None] = lambda _: None,
) -> EnrolmentResult:
    """Learn a machine from its healthy sound, as `asd-daemon enroll` does, and keep it in a folder.

    >>> from tempfile import mkdtemp
    >>> from asd_edge import simulate
    >>> learned, bundle = mkdtemp(), load_bundle()
    >>> result = enrol(bundle, "press-3", [simulate("slider", 240, serial=7)], learned)
    >>> result.record.windows
    24
    >>> press = open_machine(bundle, "press-3", learned=learned)
    >>> [window] = press.score(simulate("slider", failure="rail_damage", serial=7, seed=1))
    >>> window.anomalous
    True

    Args:
        bundle: with which the machine will be judged.
        name: letters, digits, `-`, `_` and `.`.
        sounds: recordings in the order of time: arrays as `to_waveform` takes them, or files (their first channel). Each is heard in
            windows of 10 s; those that are unfit are left out.
        learned: the folder; `enrolled` in a daemon's state folder is where that daemon looks.
        rate_hz: of the arrays.
        add: extend what was learned before.
        relearn: replace it.
        scoring: with `paper` the bundle's models hear the machine too, so that it can be judged by their embeddings.
        on_message: told what is worth a line: a window that is not usable and why, what was found.

    Returns:
        The record, what was learned, and the threshold for one false alarm a week.

    Raises:
        UsageError: a name that can't be one, or the machine was learned already and neither `add` nor `relearn` is set.
        DataSetError: fewer than 16 usable windows, or a sound too changeable; says what was wrong with the others.
        RecordingError: an array or a file that can't be heard.
        EnrolmentError: the folder can't be written, or what was learned before can't be extended.
        SettingsError: `paper`, and the bundle has no embedder.
    """
    request = EnrolmentRequest(
        _machine_name(name),
        "sound given from Python",
        None,
        add=add,
        relearn=relearn,
        earlier="forget",
        scoring=scoring,
    )
    blocks = (Block(_heard(sound, rate_hz), last=True) for sound in sounds)
    return enrolment.enrol(
        bundle,
        Path(learned),
        request,
        ScriptedSource(blocks),
        lambda progress: on_message(progress.message) if progress.message else None,
    )


def _machine_name(name: str) -> str:
    try:
        return checked_name(name)
    except ValueError as e:
        raise UsageError(f"machine {name!r}: {e}") from e


def _heard(sound: Sound | Path | str, rate_hz: float) -> F32:
    """A whole recording (N,)."""
    if isinstance(sound, Path | str):
        return read_waveform(Path(sound))
    samples = to_waveform(sound, rate_hz)
    if samples.ndim != 1:
        raise RecordingError(
            f"sound has the shape {samples.shape}: a machine is learned here from one microphone, (N,)"
        )
    return samples


def window_vectors(
    bundle: Bundle, sound: Sound, rate_hz: float = SAMPLE_RATE_HZ, *, views: Collection[str] = VIEW_NAMES
) -> dict[str, F32]:
    """What is compared: the vectors of each window of 10 s of a recording, W of them.

    >>> from asd_edge import simulate
    >>> vectors = window_vectors(load_bundle(), simulate("fan", 20), views=["steady-quiet"])
    >>> vectors["steady-quiet"].shape
    (2, 256)

    Args:
        bundle: its models make `heard` (the embedding) and `separated`, where it has them.
        sound: as `to_waveform`, of one microphone.
        rate_hz: samples per second.
        views: which; those that need no model are the default.

    Returns:
        View → float32 (W, D); embeddings have unit length.

    Raises:
        RecordingError: as `to_waveform`, or samples that are not finite.
        BundleError: a view whose model the bundle does not have.
    """
    extractor = FeatureExtractor.of(bundle, views)
    windows = recording_windows([_heard(np.asarray(sound), rate_hz)])
    found = [extractor.vectors(fit_length(window), views) for _, window in windows]
    return {view: np.concatenate([one[view] for one in found]) for view in views}
