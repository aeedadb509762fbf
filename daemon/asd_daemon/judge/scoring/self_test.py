"""Does a bundle compute on this box what it computed where it was made: every model is run, every reference score compared.

Owns what is tried and in which order. Within which bounds of memory and time is `bounded_self_test`'s business, for models come from
elsewhere and may be of any appetite.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError, RecordingError
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.bundle.manifest import MachineEntry, ModelEntry, SeparatorEntry
from asd_daemon.judge.bundle.onnx_sessions import (
    EmbedderSession,
    SeparatorSession,
    open_embedder,
    open_separator,
)
from asd_daemon.judge.scoring.nearest_neighbour import HEARD, SEPARATED
from asd_daemon.judge.scoring.scorer import FeatureExtractor, Scorer
from asd_daemon.judge.scoring.scoring_choice import Scoring
from asd_daemon.waveform import WINDOW_SAMPLES, read_waveform

F32 = NDArray[np.float32]
Extent = Literal["listened", "judged", "models", "all"]
"""What is tried: what judges the machines that are listened to; what machines are judged by where the configuration says nothing; all
models that may judge; the unquantised twin too."""
_JUDGED = ("listened", "judged")
Step = Callable[[ModelEntry | SeparatorEntry | None, str], None]
"""Told what is tried next: of which model (None: of several), and what it does, `load` or `window`."""


def self_test(
    bundle: Bundle,
    step: Step = lambda *_: None,
    *,
    extent: Extent = "all",
    listened: Collection[str] | None = None,
) -> int:
    """Open and run the bundle's models and score its reference sounds with every machine they have a score for, as this box computes it.

    Args:
        bundle: what `load_bundle` gave.
        step: told what is tried next.
        extent: what is tried.
        listened: machines that are listened to; where the extent is what machines are judged by, the models that only others need stay
            closed, and these others are left out. None: all machines. Where it is what judges these alone, all others are left out, but for
            one where none of them is the bundle's own.

    Returns:
        how many scores were compared.

    Raises:
        BundleError: a model of another shape, one that fails or gives numbers that are not finite, or a score that differs by more than
            its tolerance (times the score where that is above 1): this box computes something else than the exporter did.
    """
    manifest = bundle.manifest
    if extent == "all" and manifest.embedder_fp32 is not None:
        entry = manifest.embedder_fp32
        step(entry, "load")
        twin = EmbedderSession(bundle.path / entry.file, entry)
        step(entry, "window")
        _embedding(bundle, entry, twin, _noise())
        del twin
    session = separator = None
    tried = machines_tried(bundle, extent, listened)
    views = set().union(*(views_judged_by(manifest.machines[machine]) for machine in tried))
    if manifest.embedder is not None and (extent not in _JUDGED or views & {HEARD, SEPARATED}):
        step(manifest.embedder, "load")
        session = open_embedder(bundle)
        step(manifest.embedder, "window")
        _embedding(bundle, manifest.embedder, session, _noise())
    if manifest.separator is not None and (extent not in _JUDGED or SEPARATED in views):
        step(manifest.separator, "load")
        separator = open_separator(bundle)
        step(manifest.separator, "window")
        _separated(bundle, manifest.separator, separator)
    return _compare(bundle, session, separator, step, tried=tried, by_paper=extent not in _JUDGED)


def machines_tried(bundle: Bundle, extent: Extent, listened: Collection[str] | None) -> list[str]:
    """The bundle's own machines whose scores are compared."""
    machines = bundle.manifest.machines
    if extent not in _JUDGED or listened is None:
        return list(machines)
    if extent == "listened":
        own = [name for name in machines if name in listened]
        return own or [name for name, machine in machines.items() if not is_judged_by_models(machine)][:1]
    return [name for name, machine in machines.items() if name in listened or not is_judged_by_models(machine)]


def is_judged_by_models(machine: MachineEntry) -> bool:
    """Whether embeddings are among the views that a machine is judged by."""
    return bool(views_judged_by(machine) & {HEARD, SEPARATED})


def views_judged_by(machine: MachineEntry) -> frozenset[str]:
    """The views that a machine is judged by, where the configuration does not say otherwise."""
    if machine.views is not None:
        return frozenset(machine.views)
    return frozenset({HEARD, SEPARATED} if machine.separated else {HEARD})


def _noise() -> F32:
    return np.asarray(np.random.default_rng(0).normal(scale=0.05, size=WINDOW_SAMPLES), np.float32)


def _embedding(bundle: Bundle, entry: ModelEntry, session: EmbedderSession, waveform: F32) -> None:
    """Run an embedder once."""
    found = _run(bundle, entry, lambda: session.embed_waveforms([waveform]))
    if found.shape != (1, entry.dim) or not np.isfinite(found).all():
        raise BundleError(f"{bundle.path / entry.file}: gives {found.shape} or numbers that are not finite")


def _separated(bundle: Bundle, entry: SeparatorEntry, session: SeparatorSession) -> None:
    found = _run(bundle, entry, lambda: session.separate(_noise()))
    if found.shape != (WINDOW_SAMPLES,) or not np.isfinite(found).all():
        raise BundleError(f"{bundle.path / entry.file}: gives {found.shape} or numbers that are not finite")


def _run(bundle: Bundle, entry: ModelEntry | SeparatorEntry, work: Callable[[], F32]) -> F32:
    try:
        return work()
    except Exception as e:  # onnxruntime's errors share no base class of their own
        first = (str(e).splitlines() or [type(e).__name__])[0]
        raise BundleError(f"{bundle.path / entry.file}: this model can't be run: {first}") from e


def _compare(
    bundle: Bundle,
    session: EmbedderSession | None,
    separator: SeparatorSession | None,
    step: Step,
    *,
    tried: Collection[str],
    by_paper: bool,
) -> int:
    """Score the reference sounds, by the paper's back end too where that is wanted; how many scores were compared.

    One machine after the other, so that the normal sounds of all of them are never in memory together.
    """
    hearing = FeatureExtractor(session, separator)
    whole = Bundle(bundle.path, bundle.manifest)  # what was learned on this box has no reference scores
    references = bundle.manifest.reference
    asked: list[tuple[str, Scoring]] = [(m, "auto") for m in _named(r.scores for r in references) if m in tried]
    if by_paper:
        asked += [(machine, "paper") for machine in _named(r.nearest for r in references)]
    heard: list[dict[str, F32]] = [{} for _ in references]
    compared = 0
    for machine, scoring in asked:
        scorer = Scorer(whole, machine, session=session, separator=separator, scoring=scoring)
        for number, reference in enumerate(references):
            expected = (reference.scores if scoring == "auto" else reference.nearest).get(machine)
            if expected is None:
                continue
            file = bundle.path / reference.file
            if missing := set(scorer.views) - set(heard[number]):
                step(None, "window")
                try:
                    heard[number] |= hearing.vectors(read_waveform(file), missing)
                except RecordingError as e:
                    raise BundleError(f"{file}: is no reference sound: {e}") from e
            found = scorer.judge(heard[number]).score
            if not abs(found - expected) <= reference.tolerance * max(1.0, expected):
                raise BundleError(
                    f"{file}: scores {found:.4f} for {machine} here, but {expected:.4f} ± {reference.tolerance:g} where the"
                    " bundle was made; onnxruntime on this processor computes something else"
                )
            compared += 1
    return compared


def _named(scores: Iterable[Mapping[str, float]]) -> list[str]:
    """The machines of several tables, each once."""
    return list(dict.fromkeys(machine for table in scores for machine in table))
