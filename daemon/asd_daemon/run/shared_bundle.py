"""The bundle that all machines of a process share: loaded once, its models opened once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from asd_daemon.errors import AsdError
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.keys import AlarmSettings
from asd_daemon.settings.plan import Plan
from asd_daemon.waveform import WINDOW_S

if TYPE_CHECKING:
    from asd_daemon.judge.bundle.bundle import Bundle
    from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession
    from asd_daemon.judge.scoring.scorer import Scorer
    from asd_daemon.judge.scoring.self_test import Extent


_LOG = logging.getLogger(__name__)


class SharedBundle:
    """The bundle, loaded and verified once, and its embedder, shared by all machines; asked from several threads."""

    def __init__(
        self,
        path: Path,
        key: Path | None = None,
        *,
        keeps_sound: bool = True,
        uses_models: bool = False,
        listened: Collection[str] | None = None,
        trusts_own: bool = False,
    ) -> None:
        """Load nothing yet.

        Args:
            path: the bundle's folder.
            key: the public key that must have signed it.
            keeps_sound: whether machines that are learned anew keep their windows as sound.
            uses_models: whether models are needed that the bundle itself judges no machine by: they are tried at once, not when they are.
            listened: names in the bundle of the machines that are listened to: models that only others need are tried when they are needed.
                None: all of them.
            trusts_own: whether the program's own bundle needs no signature.
        """
        self._listened = listened
        self._uses_models, self._trusts_own = uses_models, trusts_own
        self._path, self._key, self._keeps_sound = path, key, keeps_sound
        self._lock = threading.Lock()
        self._one_learns = threading.Lock()
        self._is_over = threading.Event()
        self._kept: object = None
        self._bundle: Bundle | None = None
        self._embedder: EmbedderSession | None = None
        self._separator: SeparatorSession | None = None
        # Machines that are judged by the same learned state and threshold share it; it goes with the last of them
        self._scorers: WeakValueDictionary[tuple[Path, float, Scoring], Scorer] = WeakValueDictionary()

    def bundle(self) -> Bundle:
        """The verified and tested bundle; where the installed one can't be used, the one before it.

        Raises:
            BundleError: it can't be used.
        """
        from asd_daemon.judge.scoring.installed_bundles import load_or_roll_back

        with self._lock:
            if self._bundle is None:
                found, reason = load_or_roll_back(
                    self._path,
                    self._key,
                    self._is_over.is_set,
                    extent="models" if self._uses_models else "judged",
                    listened=self._listened,
                    trusts_own=self._trusts_own,
                )
                self._bundle = replace(found, path=found.path.resolve())  # `current` may lead elsewhere tomorrow
                if reason is not None:
                    _LOG.error("the installed bundle can't be used, back to the one before it: %s", reason)
            return self._bundle

    def exchange(self, path: Path, opens: Callable[[], object]) -> None:
        """Judge with another bundle from now on; it is loaded, tested and its models opened in the caller's thread.

        Args:
            path: its folder.
            opens: opens with it what must be openable; its scorers are asked for anew afterwards, and are these.

        Raises:
            AsdError: it can't be used; the bundle before is used on.
        """
        from asd_daemon.judge.bundle.bundle import default_bundle, load_bundle
        from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test

        is_own = self._trusts_own and path == default_bundle()
        fresh = load_bundle(path.resolve(), None if is_own else self._key)
        extent: Extent = "models" if self._uses_models else "judged"
        bounded_self_test(fresh, extent=extent, listened=self._listened, is_over=self._is_over.is_set)
        with self._lock:
            before = (self._bundle, self._embedder, self._separator, self._scorers)
            self._bundle, self._embedder, self._separator = fresh, None, None
            self._scorers = WeakValueDictionary()
        try:
            self._kept = opens()  # as long as nobody else holds them
        except AsdError:
            with self._lock:
                self._bundle, self._embedder, self._separator, self._scorers = before
            raise

    @property
    def folder(self) -> Path | None:
        """Where the bundle lies, links resolved; None until it is loaded. From any thread, without waiting."""
        return None if self._bundle is None else self._bundle.path

    @property
    def words(self) -> str | None:
        """Name and version of the bundle; None until it is loaded. From any thread, without waiting."""
        return None if self._bundle is None else f"{self._bundle.name} {self._bundle.version}"

    def abandon(self) -> None:
        """Nobody waits for the bundle any more; from any thread."""
        self._is_over.set()

    def scorer(self, model: str, alarm: AlarmSettings, hop_s: float = WINDOW_S, scoring: Scoring = "auto") -> Scorer:
        """A machine's scorer with the threshold that its alarm needs.

        Raises:
            BundleError: it can't be used.
            UnknownMachineError: it does not know the machine.
            SettingsError: the machine can't be judged by that.
        """
        from asd_daemon.judge.scoring.nearest_neighbour import check_scoring
        from asd_daemon.judge.scoring.scorer import Scorer
        from asd_daemon.judge.scoring.self_test import is_judged_by_models
        from asd_daemon.judge.thresholds.calibration import provisional_exceedance, window_exceedance
        from asd_daemon.learn.enrolled_machines import with_enrolled_machine

        exceedance_of = provisional_exceedance if alarm.threshold_learning else window_exceedance
        exceedance = exceedance_of(
            false_alarms_per_week=alarm.false_alarms_per_week, open_after=alarm.open_after, of=alarm.of, hop_s=hop_s
        )
        base = self.bundle()
        bundle = with_enrolled_machine(base, enrolled_folder(), model, scoring)
        check_scoring(bundle, model, scoring)
        is_tried = model not in bundle.enrolled and (self._listened is None or model in self._listened)
        if scoring == "paper" or (not is_tried and is_judged_by_models(bundle.machine(model))):
            self._try_models()
        with self._lock:
            if base is not self._bundle:  # exchanged a moment ago; whoever judges by it is told to open anew
                return Scorer(bundle, model, exceedance=exceedance, scoring=scoring)
            key = (bundle.folder(model), exceedance, scoring)
            known = self._scorers.get(key)
            if known is not None:
                return known
            scorer = Scorer(
                bundle,
                model,
                exceedance=exceedance,
                session=self._embedder,
                separator=self._separator,
                scoring=scoring,
            )
            self._embedder, self._separator = scorer.models
            self._scorers[key] = scorer
        return scorer

    def _try_models(self) -> None:
        """Have the models tried that the bundle judges no machine by, once.

        Raises:
            BundleError: they can't be used.
        """
        from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test

        bundle = self.bundle()
        with self._lock:
            if not self._uses_models:
                bounded_self_test(bundle, extent="models", is_over=self._is_over.is_set)
                self._uses_models = True

    def relearn(self, model: str, on_progress: Callable[[str], None], scoring: Scoring = "auto") -> None:
        """Learn a machine anew from what was kept of its enrolment; one machine at a time.

        Raises:
            AsdError: it can't be done.
        """
        from asd_daemon.learn.embedding_kept import embed_kept
        from asd_daemon.learn.relearning import relearn_from_kept

        on_progress("waits for its turn")
        if scoring == "paper":
            with self._one_learns:
                self._try_models()
                record = embed_kept(self.bundle(), enrolled_folder(), model, on_progress)
            vectors = record.nearest.vectors if record.nearest else 0
            _LOG.info("%s: its bank is made of %d kept windows", model, vectors)
            return
        with self._one_learns:
            keeps = self._keeps_sound
            record = relearn_from_kept(self.bundle(), enrolled_folder(), model, on_progress, keeps_sound=keeps)
        _LOG.info("%s: learned anew from %d kept windows: %s", model, record.windows, record.relearned)


def enrolled_folder() -> Path:
    """Where the machines lie that were learned on this box."""
    return state_folder() / "enrolled"


def listened_models(plan: Plan) -> frozenset[str]:
    """Names in the bundle of the machines that a plan listens to."""
    return frozenset(plan.model_of(name) for name in plan.machines)


def needs_models(plan: Plan) -> bool:
    """Whether a machine is judged by models whatever the bundle itself judges it by."""
    return any(plan.scoring_of(name) == "paper" for name in plan.machines)
