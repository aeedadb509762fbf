"""Learning a machine while it is listened to, because somebody asked for it at the page or by MQTT.

A `LearningJudge` scores one machine by what is known, hands the same windows to `enrolment` in a thread of its own, and goes over to the
new state when that has passed. It publishes nothing; the machine's monitor does.
"""

from __future__ import annotations

import logging
import math
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import AsdError, EnrolmentError, SourceError, UnknownMachineError
from asd_daemon.hear.source import Block, SourceEvent, SourceHealth
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.judge.scoring.verdict import Judge, Verdict
from asd_daemon.learn.collected_windows import COLLECTING
from asd_daemon.learn.collecting import EnrolmentProgress
from asd_daemon.learn.enrolment import EnrolmentRequest, EnrolmentResult, enrol
from asd_daemon.learn.enrolment_record import read_enrolment
from asd_daemon.learn.unfinished_collection import unfinished_collection
from asd_daemon.tell.commands import Command
from asd_daemon.tell.learning_report import LearningReport
from asd_daemon.waveform import WINDOW_S, WINDOW_SAMPLES
from asd_daemon.wording import counted, score_text

_LOG = logging.getLogger(__name__)
F32 = NDArray[np.float32]
_CLOSE_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class EnrolmentTarget:
    """What is learned, and where it is kept."""

    model: str
    """The machine's name among those that are learned."""
    source: str
    """What is listened to, in words."""
    root: Path
    """Where learned machines lie."""
    hop_samples: int = WINDOW_SAMPLES
    keeps_sound: bool = False
    """Whether the windows may be kept as sound."""
    off_below_dbfs: float | None = None
    """Up to which level the machine is off, where the settings say so."""
    scoring: Scoring = "auto"
    """How the machine is judged."""


class ForwardedWindows:
    """A source of windows that somebody else has heard; ended, it leaves what was collected for the next enrolment."""

    live = True

    def __init__(self, source_health: SourceHealth) -> None:
        self.source_health = source_health
        self._windows: queue.SimpleQueue[F32 | None] = queue.SimpleQueue()
        self._closed = False

    def forward(self, samples: F32) -> None:
        """Pass on a window, float32 (160 000,), or (160 000, 2) of two microphones; nobody needs it where enough were heard."""
        if not self._closed:
            self._windows.put(samples)

    def events(self) -> Iterator[SourceEvent]:
        """Each window that is forwarded.

        Raises:
            SourceError: `close` was called.
        """
        while (samples := self._windows.get()) is not None:
            yield Block(samples) if samples.ndim == 1 else Block(samples[:, 0], far=samples[:, 1])
        raise SourceError("learning was stopped; what was collected stays")

    def close(self) -> None:
        """End `events` soon."""
        self._closed = True
        self._windows.put(None)


class LearningJudge:
    """The judge of a machine that can be learned anew; all but `close` is called from the machine's judging thread."""

    def __init__(
        self,
        target: EnrolmentTarget,
        open_judge: Callable[[], Judge],
        bundle: Callable[[], Bundle],
        source_health: Callable[[], SourceHealth] = SourceHealth,
    ) -> None:
        """Know nothing yet.

        Args:
            target: what is learned.
            open_judge: opens what is known of the machine; asked again when it has been learned.
            bundle: with which it will be judged.
            source_health: of the machine's source; its microphone is noted with what is learned.
        """
        self._target, self._open_judge, self._bundle, self._source_health = target, open_judge, bundle, source_health
        self._every = math.ceil(WINDOW_SAMPLES / target.hop_samples)  # windows that overlap are one
        self._judge: Judge | None = None
        self._windows: ForwardedWindows | None = None
        self._thread: threading.Thread | None = None
        self._heard = 0
        self._progress = ""
        self._stopped = False
        self.report = LearningReport()
        """For who looks, from any thread."""
        self._outcomes: queue.SimpleQueue[EnrolmentResult | Exception] = queue.SimpleQueue()
        self._outcome_message: str | None = None

    def open(self) -> Judge:
        """Open what is known; a machine that is not known yet waits to be learned."""
        try:
            self._judge = self._open_judge()
        except UnknownMachineError as e:
            _LOG.warning("%s: %s", self._target.model, e)
        self._go_on()
        return self

    def reopen(self, open_judge: Callable[[], Judge]) -> None:
        """Open what is known anew; what is being learned goes on."""
        self._open_judge = open_judge
        self.open()

    @property
    def is_learning(self) -> bool:
        """Whether the machine is being learned."""
        return self._thread is not None

    def status_message(self) -> str | None:
        """How far the learning is; or, once, what came of it."""
        outcome, self._outcome_message = self._outcome_message, None
        return self._progress if self.is_learning else outcome

    def enrol(self, command: Command) -> str | None:
        """Begin to learn, or stop; why not, where that can't be."""
        if command.undo:
            return self._stop()
        if self.is_learning:
            return "the machine is being learned already"
        try:
            before = read_enrolment(self._target.root, self._target.model)
        except EnrolmentError as e:
            if command.mode != "relearn":  # which replaces it, whatever it is
                return str(e)
            before = None
        if before is not None and command.mode is None:
            return (
                f"it was learned on {before.created[:10]} from {before.windows} windows;"
                ' "mode": "add" extends that, "relearn" replaces it'
            )
        over_s = command.over_s
        wanted = math.ceil(command.learning_minutes * 60 / WINDOW_S) if over_s is None else command.windows
        add, relearn = command.mode == "add", command.mode == "relearn"
        request = EnrolmentRequest(
            self._target.model,
            self._target.source,
            wanted,
            add=add,
            relearn=relearn,
            earlier="forget" if relearn else "forget other",  # there is nobody to ask
            keeps_sound=self._target.keeps_sound,
            unattended=True,
            off_below_dbfs=self._target.off_below_dbfs,
            scoring=self._target.scoring,
            over_s=over_s,
            state=command.state,
        )
        self._begin(request)
        return None

    def _stop(self) -> str | None:
        """Stop learning, and forget what was heard for it; why not, where that can't be."""
        if self._windows is None:
            return "the machine is not being learned"
        self._stopped = True
        self._windows.close()
        return None

    def _go_on(self) -> None:
        """Go on with what a daemon has collected, where a restart came between."""
        found = unfinished_collection(self._target.root / self._target.model)
        if found is None or found[0].source != self._target.source or self.is_learning:
            return
        key, windows = found
        _LOG.info("%s: goes on learning, %s", self._target.model, counted(windows, "window"))
        request = EnrolmentRequest(
            self._target.model,
            self._target.source,
            windows,
            add=key.mode == "add",
            relearn=key.mode == "relearn",
            earlier="resume",
            keeps_sound=self._target.keeps_sound,
            unattended=True,
            off_below_dbfs=self._target.off_below_dbfs,
            scoring=self._target.scoring,
            over_s=key.over_s,
            state=key.state,
        )
        self._begin(request)

    def _begin(self, request: EnrolmentRequest) -> None:
        """Learn in a thread."""
        self._windows, self._heard, self._stopped = ForwardedWindows(self._source_health()), 0, False
        self._progress = f"0 of {request.windows} windows heard"
        self.report = LearningReport(True, wanted=request.windows or 0, over_s=request.over_s, words=self._progress)
        name = f"learn-{self._target.model}"
        self._thread = threading.Thread(target=self._learn, args=(request, self._windows), name=name, daemon=True)
        self._thread.start()

    def score(self, waveform: F32) -> Verdict:
        """Score a window by what is known, and learn from it while the machine is being learned.

        Raises:
            UnknownMachineError: nothing is known of the machine yet.
        """
        self._apply_outcome()
        if self._windows is not None:
            if self._heard % self._every == 0:
                self._windows.forward(waveform)
            self._heard += 1
        if self._judge is None:
            raise UnknownMachineError(
                self.status_message() or "not learned yet: learn it at the page, or send the command enroll"
            )
        return self._judge.score(waveform)

    def close(self) -> None:
        """Stop learning; from any thread."""
        windows, thread = self._windows, self._thread
        if windows is not None and thread is not None:
            windows.close()
            thread.join(_CLOSE_TIMEOUT_S)

    def _learn(self, request: EnrolmentRequest, windows: ForwardedWindows) -> None:
        """The learning thread."""
        try:
            self._outcomes.put(enrol(self._bundle(), self._target.root, request, windows, self._on_progress))
        except Exception as e:  # noqa: BLE001  # the top of a thread: whatever it is, it must be told
            if self._stopped:
                shutil.rmtree(self._target.root / self._target.model / COLLECTING, ignore_errors=True)
            self._outcomes.put(e)

    def _on_progress(self, progress: EnrolmentProgress) -> None:
        if progress.message is not None and progress.windows == progress.wanted:  # all are heard, and it learns
            self._progress = progress.message
        else:
            unusable = f", {progress.unusable} not usable" if progress.unusable else ""
            self._progress = f"{progress.windows} of {progress.wanted} windows heard{unusable}"
        self.report = replace(self.report, windows=progress.windows, unusable=progress.unusable, words=self._progress)

    def _apply_outcome(self) -> None:
        """Go over to what was learned, where learning has ended well."""
        try:
            outcome = self._outcomes.get_nowait()
        except queue.Empty:
            return
        self._windows = self._thread = None
        if isinstance(outcome, EnrolmentResult):
            self.open()
            states = outcome.learned.words
            self._outcome_message = f"learned from {outcome.record.windows} windows{': ' if states else ''}{states}"
            _LOG.info("%s: %s, threshold %s", self._target.model, self._outcome_message, score_text(outcome.threshold))
            self.report = LearningReport(words=self._outcome_message)
            return
        stays = "" if self._judge is None else "; what was known before stays"
        if self._stopped:
            self._outcome_message = f"learning was stopped, and what was heard for it is forgotten{stays}"
            _LOG.info("%s: %s", self._target.model, self._outcome_message)
            self.report = LearningReport(words=self._outcome_message)
            return
        self._outcome_message = f"learning failed: {outcome}{stays}"
        unforeseen = None if isinstance(outcome, AsdError) else outcome
        _LOG.error("%s: %s", self._target.model, self._outcome_message, exc_info=unforeseen)
        self.report = LearningReport(words=self._outcome_message, failed=True)
