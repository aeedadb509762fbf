"""A window of sound → its anomaly score, by the nearest normal neighbour or by the views that a machine was found to need.

Score = the paper's distance (nearest_neighbour.py), or a machine's fusion of views (fusion.py), of which the embeddings may be two. It
knows no microphone and keeps no history; whether a score is an alarm is `alarm`'s business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.bundle.onnx_sessions import (
    EmbedderModel,
    EmbedderSession,
    SeparatorModel,
    SeparatorSession,
    check_window,
    embedder_input,
    open_embedder,
    open_separator,
    window_features,
)
from asd_daemon.judge.distances.taught_references import likeness, with_references
from asd_daemon.judge.features.log_mel import eat_input, log_mel
from asd_daemon.judge.features.views import ALL_VIEW_NAMES, view_sizes, view_vectors
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED, NearestNeighbour, check_scoring
from asd_daemon.judge.scoring.operating_states import RunningStates, is_off
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.judge.scoring.two_microphones import HallListening
from asd_daemon.judge.scoring.verdict import OFF, RUNNING, HeardHall, Likeness
from asd_daemon.judge.thresholds.calibration import provisional_exceedance
from asd_daemon.judge.thresholds.threshold import EnrolledThreshold
from asd_daemon.waveform import WINDOW_S

__all__ = ["HEARD", "SEPARATED", "EmbedderSession", "Scorer", "WindowScore", "open_embedder", "window_features"]

F32 = NDArray[np.float32]

# The alarm that a threshold is made for where no configuration says otherwise
DEFAULT_EXCEEDANCE = provisional_exceedance(false_alarms_per_week=1, open_after=2, of=3, hop_s=WINDOW_S)


@dataclass(frozen=True)
class WindowScore:
    """What a window scored."""

    score: float
    """0 and up, higher is more abnormal: the sum of the distances, or about 1 for a normal window where views are fused."""
    threshold: float
    """Above it the window counts as anomalous: the provisional one."""
    anomalous: bool
    heard: float | None
    """1 - cosine of the heard sound's embedding and its nearest normal neighbour, 0 to 2; None where the machine does without."""
    separated: float | None = None
    """The same for the separated machine sound; None where the machine does without."""
    views: tuple[tuple[str, float], ...] = ()
    """Where views are fused: each with its own score, 1 where it is as far off as normal windows are in the median."""
    enrolled: EnrolledThreshold | None = None
    """What the threshold is learned from while the machine is listened to."""
    operating_state: str | None = None
    """In which of the states that were learned the machine is; None where none were."""
    is_off: bool = False
    """Whether it stands still; its score is 0 then."""
    vectors: Mapping[str, F32] = field(default_factory=dict, repr=False, compare=False)
    """view → (1, D), what it was scored by."""
    like: Likeness | None = None
    """The named example that it resembles; None where there is none."""
    hall: HeardHall | None = None
    """What the far microphone says; None for a machine that was learned with one."""


class FeatureExtractor:
    """Turns windows into vectors: embeddings by the bundle's models, and views that need none."""

    def __init__(self, embedder: EmbedderModel | None, separator: SeparatorModel | None = None) -> None:
        self._embedder, self._separator = embedder, separator

    @classmethod
    def of(cls, bundle: Bundle, views: Collection[str]) -> FeatureExtractor:
        """What a bundle hears with, its models open where one of these views needs them.

        Raises:
            BundleError: a model that is wanted and not there, or can't be opened.
        """
        embedder = open_embedder(bundle) if HEARD in views or SEPARATED in views else None
        return cls(embedder, open_separator(bundle) if SEPARATED in views else None)

    def vectors(self, waveform: F32, views: Collection[str], *, parts: bool = False) -> dict[str, F32]:
        """Vectors of a window float32 (160 000,): view → (1, D), or with `parts` (1 + P, D) where a view has any.

        Raises:
            RecordingError: no finite window.
            BundleError: a view that needs a model which is not there, or a model that gives numbers which are not finite.
        """
        check_window(waveform)
        vectors_of_views: dict[str, F32] = {}
        mel = None
        if HEARD in views and self._opened.hears_waveforms:
            vectors_of_views[HEARD] = self._embed(waveform[None])
        elif HEARD in views:
            vectors_of_views[HEARD] = self._embed(eat_input(mel := log_mel(waveform))[None])
        if SEPARATED in views:
            if self._separator is None:
                raise BundleError("the bundle has no separator, but a machine is scored with its separated sound")
            vectors_of_views[SEPARATED] = self._embed(embedder_input(self._opened, self._separator.separate(waveform)))
        spectral = [view for view in ALL_VIEW_NAMES if view in views]
        if spectral:
            vectors_of_views |= view_vectors(waveform, mel, views=spectral, parts=parts)
        return vectors_of_views

    @property
    def _opened(self) -> EmbedderModel:
        if self._embedder is None:
            raise BundleError("no embedder is open, but a machine is scored with embeddings")
        return self._embedder

    def _embed(self, sound: F32) -> F32:
        embedding = self._opened.embed(sound)  # (1, D)
        if not np.isfinite(embedding).all():
            raise BundleError("the embedder gave numbers that are not finite; verify the bundle")
        return embedding


class Scorer:
    """Scores the windows of one machine."""

    def __init__(
        self,
        bundle: Bundle,
        machine: str,
        *,
        exceedance: float = DEFAULT_EXCEEDANCE,
        session: EmbedderSession | None = None,
        separator: SeparatorSession | None = None,
        scoring: Scoring = "auto",
    ) -> None:
        """Open what a machine needs of a verified bundle.

        Args:
            bundle: what `load_bundle` gave.
            machine: its name in the bundle.
            exceedance: the probability with which a normal window may exceed the threshold.
            session: an embedder already open for another machine of the same bundle.
            separator: likewise.
            scoring: by what was chosen for the machine, or by the nearest neighbour of the near microphone's sound alone, whatever state
                the machine is in.

        Raises:
            SettingsError: the machine can't be judged so.
            UnknownMachineError: the bundle does not know the machine.
            BundleError: a model, index, fusion or calibration that can't be used.
        """
        self.machine = machine
        check_scoring(bundle, machine, scoring)
        entry, states = bundle.machine(machine), bundle.machine(machine).states
        self._nearest = None
        if scoring == "paper" or entry.views is None:
            self._nearest = NearestNeighbour.open(bundle, machine)
        calibration = bundle.calibration(machine) if self._nearest is None else bundle.nearest(machine).calibration()
        self.threshold = calibration.threshold(exceedance)
        self.enrolled = EnrolledThreshold(calibration.fingerprint, calibration.centre, self.threshold)
        self._fusion = bundle.fusion(machine) if self._nearest is None else None
        self._off = None if states is None else states.off
        self._states = RunningStates.open(bundle, machine) if self._nearest is None else None
        if self._fusion is not None:
            self.views: tuple[str, ...] = tuple(dict.fromkeys(self._fusion.names()))
            fusions = [self._fusion, *(self._states.fusions.values() if self._states else ())]
            _check_sizes(bundle, machine, {v.view: v.dimensions for fusion in fusions for v in fusion.views})
        elif self._nearest is not None:
            self.views = self._nearest.views
        if SEPARATED in self.views:
            separator = separator or open_separator(bundle)
        if HEARD in self.views or SEPARATED in self.views:
            session = session or open_embedder(bundle)
        self._extractor = FeatureExtractor(session, separator)
        self._hall = HallListening.open(bundle, machine)
        self._near = None
        if (
            self._nearest is None
            and self._hall is not None
            and (near := self._hall.bundle_of_near(bundle, machine)) is not None
        ):
            self._near = Scorer(near, machine, exceedance=exceedance)
        self.models = (session, separator)
        """What is open, for the next machine of the same bundle."""

    def score(self, waveform: F32) -> WindowScore:
        """Score one window, float32 (160 000,); or (160 000, 2) of two microphones, the near one first.

        A machine that was learned with one microphone is judged by the near one. One that was learned with two is judged by the near one
        alone where the far one is missing, by what was learned of that; its score is then told on the scale of both.

        Raises:
            RecordingError: not a finite window of that length.
        """
        near = waveform if waveform.ndim == 1 else np.ascontiguousarray(waveform[:, 0])
        if is_off(self._off, near):
            return WindowScore(
                0.0, self.threshold, False, None, enrolled=self.enrolled, operating_state=OFF, is_off=True
            )
        if self._hall is None:
            return self._score(near)
        if waveform.ndim == 1:
            return self._score_without_far(near)
        check_window(near)
        sound, hall = self._hall.hear(near, np.ascontiguousarray(waveform[:, 1]))
        return replace(self._score(sound if self._nearest is None else near), hall=hall)

    def _score(self, waveform: F32) -> WindowScore:
        vectors = self._extractor.vectors(waveform, self.views)
        return replace(self.judge(vectors), vectors=vectors)

    def _score_without_far(self, waveform: F32) -> WindowScore:
        """By the near microphone alone: as far above its threshold as is told, whatever that threshold is."""
        lost = HeardHall(None)
        if self._near is None:
            return replace(self._score(waveform), hall=lost)
        found = self._near.score(waveform)
        scale = (self.threshold - 1) / max(found.threshold - 1, 1e-3)
        score = 1 + (found.score - 1) * scale if found.score > 1 else found.score
        return replace(found, score=score, threshold=self.threshold, enrolled=self.enrolled, vectors={}, hall=lost)

    @property
    def can_be_taught(self) -> bool:
        """Whether windows can be added to what it takes for normal: where views are fused."""
        return self._fusion is not None

    def taught(self, accepted: Sequence[Mapping[str, F32]]) -> Scorer:
        """Another one, that takes these windows for normal too, view → (K, D) for each event; the rest is shared.

        Raises:
            ValueError: it can't be taught, or by other views.
        """
        if self._fusion is None:
            raise ValueError(f"{self.machine} is scored by the nearest neighbour and can't be taught")
        fusion = self._fusion
        for vectors in accepted:
            fusion = with_references(fusion, vectors)
        other = copy(self)
        other._fusion = fusion
        if self._states is not None:
            other._states = self._states.with_references(accepted)
        return other

    def likeness(self, example: Mapping[str, F32], vectors: Mapping[str, F32]) -> float:
        """What a window, view → (1, D), would score were an example's windows, view → (K, D), the only normal ones.

        Raises:
            ValueError: as `taught`.
        """
        if self._fusion is None:
            raise ValueError(f"{self.machine} is scored by the nearest neighbour and knows no examples")
        return float(likeness(self._fusion, example, vectors)[0])

    def judge(self, vectors: Mapping[str, F32]) -> WindowScore:
        """Score the vectors (1, D) of one window, which hold at least the machine's `views`."""
        if self._states is not None:
            found = self._states.judge(vectors)
            return replace(self._scored(found.score, heard=None, views=found.views), operating_state=found.name)
        if self._fusion is not None:
            view_scores = self._fusion.view_scores(vectors)
            score = float(self._fusion.combine(view_scores)[0])
            views = tuple((name, float(s[0])) for name, s in zip(self._fusion.names(), view_scores, strict=True))
            return self._scored(score, heard=None, views=views)
        if self._nearest is None:
            raise ValueError("a machine is judged by fitted views or by its nearest neighbour")
        heard, separated = self._nearest.distances(vectors)
        return self._scored(heard + (separated or 0.0), heard=heard, separated=separated)

    def _scored(
        self,
        score: float,
        heard: float | None,
        separated: float | None = None,
        views: tuple[tuple[str, float], ...] = (),
    ) -> WindowScore:
        is_anomalous = score > self.threshold
        only = None if self._off is None else RUNNING
        return WindowScore(score, self.threshold, is_anomalous, heard, separated, views, self.enrolled, only)


def _check_sizes(bundle: Bundle, machine: str, sizes: dict[str, int]) -> None:
    """Refuse a fusion of views that this program does not have, or has in another size."""
    known: dict[str, int] = dict(view_sizes())
    if bundle.manifest.embedder is not None:
        known |= {HEARD: bundle.manifest.embedding_size, SEPARATED: bundle.manifest.embedding_size}
    for view, size in sizes.items():
        if known.get(view) != size:
            has = f"has {known[view]}" if view in known else f"knows {', '.join(known)} only"
            raise BundleError(
                f"{bundle.folder(machine)}: view {view} of {size} numbers, this asd-daemon {has}; export or enrol anew"
            )
