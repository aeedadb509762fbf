"""From scores of normal clips to yes or no, and how often that is right.

Owns the gamma fit that evaluation and submission share (challenge: a gamma distribution is fitted to the scores of the training clips, its
90th percentile decides; Harada et al., EUSIPCO 2023), and precision, recall and F1 as the challenge counts them. It computes no score.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_daemon.judge.thresholds.calibration import DECISION_EXCEEDANCE, GammaFit
from asd_trainer.data.clip import MachineSection, unit_words

if TYPE_CHECKING:
    from asd_trainer.evaluate.backend import ScoredClip

F64 = NDArray[np.float64]

FEWEST_SCORES = 2
FLOOR_RATIO = 1e-3  # of the median: a clip that is in the data twice scores 0, whose logarithm no fit can take


@dataclass(frozen=True)
class DecisionQuality:
    """Precision, recall and F1 of decisions, each in [0, 1]; 0 where there is nothing to divide by."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class SectionDecisions:
    """One section of one machine, decided."""

    machine: str
    year: int | None
    section: str
    title: str
    """The machine, with year and section where it has several."""
    threshold: float
    training: tuple[float, ...]
    """The scores that the threshold was fitted to."""
    scored: tuple[ScoredClip, ...]
    """Its test clips, by file name."""
    anomalous: tuple[bool, ...]
    """What was decided on each of them."""
    quality: Mapping[str, DecisionQuality]
    """By domain, where clips have labels; under "all" where the data set knows no domains."""


def decide_sections(scored: Sequence[ScoredClip], normal: Sequence[ScoredClip]) -> tuple[SectionDecisions, ...]:
    """Decide on every test clip by its section's threshold: score > threshold is anomalous.

    Args:
        scored: test clips.
        normal: training clips with their leave-one-out scores; a section without any takes those of its machine's
            other sections of the year.

    Raises:
        DataSetError: a machine has no training scores, or they allow no threshold; names it.
    """
    by_unit: defaultdict[MachineSection, list[ScoredClip]] = defaultdict(list)
    for one in scored:
        by_unit[one.clip.unit].append(one)
    decided = []
    for unit, clips in sorted(by_unit.items()):
        of_machine = [one for one in normal if one.clip.machine == unit.machine and one.clip.unit.year == unit.year]
        training = tuple(one.score for one in of_machine if one.clip.unit == unit)
        training = training or tuple(one.score for one in of_machine)
        title = " ".join(unit_words(unit, by_unit))
        try:
            threshold = decision_threshold(np.array(training))
        except DataSetError as e:
            raise DataSetError(f"{title}: {e}") from e
        ordered = tuple(sorted(clips, key=lambda one: one.clip.path.name))
        verdicts = tuple(one.score > threshold for one in ordered)
        quality = _quality(ordered, verdicts)
        decided.append(
            SectionDecisions(
                unit.machine, unit.year or None, unit.section, title, threshold, training, ordered, verdicts, quality
            )
        )
    return tuple(decided)


def _quality(scored: Sequence[ScoredClip], verdicts: Sequence[bool]) -> dict[str, DecisionQuality]:
    by_domain: defaultdict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for one, verdict in zip(scored, verdicts, strict=True):
        if one.clip.label is not None:
            by_domain[one.clip.domain or "all"].append((one.clip.label == "anomaly", verdict))
    return {domain: decision_quality(*np.array(pairs, bool).T) for domain, pairs in sorted(by_domain.items())}


def fit_gamma(scores: NDArray[np.floating]) -> GammaFit:
    """Fit a gamma distribution to scores of normal clips by maximum likelihood, its location too, as the challenge's baseline does.

    Where the fitted shape is not above one the likelihood grows without bound as the location nears the least score, and what a search
    finds depends on where it began. The location is then 0 for scores that are not negative, as distances are, and just below the
    least score otherwise.

    Args:
        scores: shape (N,), N ≥ 2, leave-one-out where the clips are their own reference.

    Raises:
        DataSetError: fewer than two scores, scores that are not finite, or scores that are all the same.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or values.shape[0] < FEWEST_SCORES:
        raise DataSetError(f"a threshold needs the scores of at least {FEWEST_SCORES} normal clips, got {values.size}")
    if not np.isfinite(values).all():
        raise DataSetError(f"score {int(np.flatnonzero(~np.isfinite(values))[0])} of the normal clips is not finite")
    if np.ptp(values) == 0:
        raise DataSetError(
            f"all {values.shape[0]} normal clips score {values[0]:g}; are they copies of one another? No threshold can be fitted"
        )
    placed = _fit_placed(values)
    free = _fit_free(values)
    if free is None or free.shape <= 1 or _log_likelihood(free, values) < _log_likelihood(placed, values):
        return placed
    return free


def _fit_placed(values: F64) -> GammaFit:
    """The fit with its location at 0, or at the least score where that is negative."""
    from scipy.stats import gamma

    location = 0.0 if values.min() >= 0 else float(values.min())
    above = values - location
    floored = np.maximum(above, FLOOR_RATIO * np.median(above[above > 0]))
    shape, _, scale = gamma.fit(floored, floc=0)
    return GammaFit(shape=float(shape), location=location, scale=float(scale))


def _fit_free(values: F64) -> GammaFit | None:
    """The fit of shape, location and scale; None where the search fails.

    The search stops at steps of a ten-thousandth, whatever the scores' size: it is given scores of about one.
    """
    from scipy.stats import FitError, gamma

    size = float(np.abs(values).mean())
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            found = np.array(gamma.fit(values / size))
    except (FitError, ValueError, OverflowError):
        return None
    shape, location, scale = (float(number) for number in found * (1.0, size, size))
    if not (np.isfinite(found).all() and shape > 0 and scale > 0):
        return None
    return GammaFit(shape=shape, location=location, scale=scale)


def _log_likelihood(fit: GammaFit, values: F64) -> float:
    from scipy.stats import gamma

    return float(gamma.logpdf(values, fit.shape, loc=fit.location, scale=fit.scale).sum())


def decision_threshold(scores: NDArray[np.floating], exceedance: float = DECISION_EXCEEDANCE) -> float:
    """The score that normal clips exceed with this probability, by the gamma distribution fitted to them.

    Raises:
        DataSetError: as `fit_gamma`.
    """
    from scipy.stats import gamma

    fit = fit_gamma(scores)
    return float(gamma.isf(exceedance, fit.shape, loc=fit.location, scale=fit.scale))


def decision_quality(anomalous: NDArray[np.bool_], decided: NDArray[np.bool_]) -> DecisionQuality:
    """How right decisions are; for a domain, give its own normal and anomalous clips only (as the challenge's baseline does).

    Args:
        anomalous: shape (N,), the truth.
        decided: shape (N,), what was decided.
    """
    hits = int(np.sum(anomalous & decided))
    precision = hits / max(int(np.sum(decided)), 1)
    recall = hits / max(int(np.sum(anomalous)), 1)
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return DecisionQuality(precision, recall, f1)
