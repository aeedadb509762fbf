"""How high a normal window scores: the tail of a machine's normal scores, and the provisional threshold for a budget of false alarms.

The tail is made of scores that normal clips got without themselves; what is stored is its table of quantiles, and listening reads no
more than that. A hundred windows can't say what one in a thousand does: what is heard later does (learned_threshold.py); until then
fused views lean on how later windows of other machines have scored (later_windows.py). Pure arithmetic; no file, no sound.
"""

from __future__ import annotations

import hashlib
from math import comb

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from asd_daemon.errors import DataSetError
from asd_daemon.judge.thresholds.gamma_distribution import fit_gamma, tail_score
from asd_daemon.judge.thresholds.generalised_pareto import excess_quantile
from asd_daemon.judge.thresholds.later_windows import OTHER_MACHINES, LaterWindows

WEEK_S = 7 * 24 * 3600.0
# From likely to once in years of 10 s windows
TAIL = (0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01, 5e-3, 3e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4, 1e-5, 1e-6)
DECISION_EXCEEDANCE = 0.1  # the challenge's decision: the 90th percentile of normal scores
LEAST_TAIL_SCORES = 4  # fewer have no tail of their own
HEAVY_SHARE = 0.25  # how far the tail goes from the gamma distribution's to the highest scores' own
TAIL_SHARE, MOST_TAIL_SHARE, TAIL_SCORES = 0.2, 0.5, 15  # the tail are the highest fifth, or so many where that is more
PROVISIONAL_BUDGETS = (
    7.0  # a provisional threshold may spend a week's budget in a day: it learns from false alarms, and not from silence
)


class Quantile(BaseModel):
    """One point of the tail: normal windows score above `score` with probability `exceedance`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    exceedance: float = Field(gt=0, lt=1)
    score: float = Field(ge=0, allow_inf_nan=False)


class GammaFit(BaseModel):
    """The fitted distribution, for readers; the table of quantiles is what is used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: float = Field(gt=0, allow_inf_nan=False)
    location: float = Field(allow_inf_nan=False)
    scale: float = Field(gt=0, allow_inf_nan=False)


class Calibration(BaseModel):
    """A machine's normal scores: how many were seen, the fit, and the tail from likely to rare."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clips: int = Field(ge=2, description="normal clips whose leave-one-out scores were fitted")
    gamma: GammaFit
    tail: tuple[Quantile, ...] = Field(min_length=2, description="quantiles, exceedance falling, score not falling")

    @model_validator(mode="after")
    def _tail_is_ordered(self) -> Calibration:
        for before, after in zip(self.tail, self.tail[1:], strict=False):
            if not (after.exceedance < before.exceedance and after.score >= before.score):
                raise ValueError(
                    f"tail: exceedance {after.exceedance} with score {after.score} does not follow"
                    f" {before.exceedance} with {before.score}: exceedance must fall and score must not"
                )
        return self

    def threshold(self, exceedance: float) -> float:
        """The score that normal windows exceed with this probability, between stored quantiles linear in log probability.

        Outside the table its nearest end is used: nothing is extrapolated beyond what was fitted.
        """
        log_p = np.log([q.exceedance for q in reversed(self.tail)])
        scores = [q.score for q in reversed(self.tail)]
        return float(np.interp(np.log(exceedance), log_p, scores))

    @property
    def centre(self) -> float:
        """The score that half of the normal windows exceed."""
        return self.threshold(0.5)

    @property
    def fingerprint(self) -> str:
        """Tells the scores of one enrolment from those of another."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def calibrate(scores: NDArray[np.floating]) -> Calibration:
    """Fit scores of normal clips and tabulate their tail.

    The gamma distribution by maximum likelihood with location 0, as the challenge's baseline fits its scores (Harada et al., EUSIPCO
    2023). It is what distances of like windows follow, and is exceeded too often where hours and days differ; the predictive Pareto
    quantile of a hundred windows is out of the reach of most failures. Among the highest scores the tail goes a quarter of the way
    from the first to the second.

    Args:
        scores: (N,), N ≥ 2, not negative; each clip's was got without it among the normal ones.

    Raises:
        DataSetError: fewer than two scores, or all of them zero (the clips are copies of one another).
    """
    ordered, gamma = _fitted(scores)
    light = np.array([tail_score(p, gamma.shape, gamma.scale) for p in TAIL])
    return _tabulated(scores, gamma, light + HEAVY_SHARE * (_heavy_tail(ordered, light) - light))


def calibrate_fused(scores: NDArray[np.floating], known: LaterWindows = OTHER_MACHINES) -> Calibration:
    """As `calibrate`, for scores of fused views, whose scale is the same for every machine: about 1 for a normal window.

    The centre is the median of the scores; above it stand the predictive quantiles of later windows, which lean on other machines where
    few windows are known (`LaterWindows.quantiles`).

    Args:
        scores: (N,), N ≥ 2, not negative, in the order in which the windows were heard; each was got without its window.
        known: how later windows of other machines score.

    Raises:
        DataSetError: as `calibrate`.
    """
    _, gamma = _fitted(scores)
    later = known.quantiles(np.asarray(scores, np.float64), TAIL)
    centre = float(np.median(scores))
    return _tabulated(scores, gamma, np.where(np.array(TAIL) >= 0.5, centre, np.maximum(later, centre)))


def _fitted(scores: NDArray[np.floating]) -> tuple[NDArray[np.float64], GammaFit]:
    """Rising scores (N,) and their gamma distribution."""
    if scores.shape[0] < 2:
        raise DataSetError(f"a threshold needs at least two normal clips, got {scores.shape[0]}")
    if not (scores > 0).any():
        raise DataSetError(
            "every normal clip is a copy of another: their distances are all 0, no threshold can be fitted"
        )
    # a duplicated clip scores 0, whose logarithm the fit can't take
    floor = float(np.median(scores[scores > 0])) * 1e-3
    ordered = np.sort(np.maximum(scores.astype(np.float64), floor))
    shape, scale = fit_gamma(ordered)
    return ordered, GammaFit(shape=shape, location=0.0, scale=scale)


def _tabulated(scores: NDArray[np.floating], gamma: GammaFit, quantiles: NDArray[np.float64]) -> Calibration:
    """The table of quantiles (T,), one for each exceedance of TAIL."""
    rising = np.maximum.accumulate(quantiles)
    tail = tuple(Quantile(exceedance=p, score=score) for p, score in zip(TAIL, rising, strict=True))
    return Calibration(clips=int(scores.shape[0]), gamma=gamma, tail=tail)


def _heavy_tail(ordered: NDArray[np.float64], light: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the highest of rising scores (N,) say of each exceedance of TAIL, (T,); `light` where it is none of the tail's."""
    if ordered.size < LEAST_TAIL_SCORES:
        return light
    share = min(MOST_TAIL_SHARE, max(TAIL_SHARE, TAIL_SCORES / ordered.size))
    count = max(2, round(share * ordered.size))
    base = ordered[-count - 1]
    excesses, rarities = ordered[-count:] - base, [p * ordered.size / count for p in TAIL]
    return np.array(
        [
            base + excess_quantile(excesses, rarity) if rarity < 1 else own
            for rarity, own in zip(rarities, light, strict=True)
        ]
    )


def window_exceedance(false_alarms_per_week: float, open_after: int, of: int, hop_s: float) -> float:
    """The probability with which one normal window may exceed the threshold, for a budget of alarms.

    Windows are taken as independent; an alarm opens when at least `open_after` of the last `of` windows exceed. The binomial tail is
    inverted by bisection.

    Raises:
        ValueError: a budget, rule or hop that is not positive, or open_after > of.
    """
    if false_alarms_per_week <= 0 or hop_s <= 0 or not 1 <= open_after <= of:
        raise ValueError(
            f"no threshold for {false_alarms_per_week} false alarms a week, {open_after} of {of} windows, one every {hop_s} s"
        )
    alarm_probability = min(0.5, false_alarms_per_week * hop_s / WEEK_S)
    low, high = 0.0, 1.0
    for _ in range(80):  # 2^-80 is below any float's worth of precision here
        middle = (low + high) / 2
        tail = sum(comb(of, n) * middle**n * (1 - middle) ** (of - n) for n in range(open_after, of + 1))
        low, high = (middle, high) if tail < alarm_probability else (low, middle)
    return high


def provisional_exceedance(false_alarms_per_week: float, open_after: int, of: int, hop_s: float) -> float:
    """As `window_exceedance`, for a threshold that will be learned: it may spend PROVISIONAL_BUDGETS of them until then.

    Raises:
        ValueError: as `window_exceedance`.
    """
    return window_exceedance(PROVISIONAL_BUDGETS * false_alarms_per_week, open_after, of, hop_s)
