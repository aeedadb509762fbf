"""Several views of a window → one score, and the choice of views for a machine from its normal sound alone.

Owns fitted views (metric, references, density), their fusion, each view scaled by what held-out normal windows score, and the choice by
pseudo-anomalies: normal windows changed as failing machines change, scored by views that have not seen them (after "Pseudo AUC",
FIELD: model selection without anomalies). A view is any vector of a window; where it comes from is not known here. NumPy only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError
from asd_daemon.judge.density import TINY, Density, Normalisation
from asd_daemon.judge.spectral import F32, Whitening, euclidean
from asd_daemon.waveform import SAMPLE_RATE_HZ

I64 = NDArray[np.int64]
FOLDS = 8
PICKS = 6
DECIMALS = 3  # of a pseudo-AUC: less is chance


@dataclass(frozen=True)
class Candidate:
    """A view and how its distances are taken: whitened with this shrinkage, or (None) cosine; then normalised."""

    view: str
    shrinkage: float | None = 0.5
    normalisation: Normalisation = "plain"
    parts: bool = True
    """Whether pieces of windows count in the whitening, where the view has any."""


@dataclass(frozen=True)
class FittedView:
    """A view that knows a machine's normal windows."""

    view: str
    whitening: Whitening | None  # None: rows of unit length, so that distance is monotone in cosine distance
    bank: F32  # (N, D), as the metric wants it
    density: Density
    centre: float  # median score of held-out normal windows
    unit: float  # median plain distance of held-out normal windows

    @classmethod
    def fit(cls, candidate: Candidate, vectors: F32, domains: I64) -> FittedView:
        """Fit a candidate to normal windows (N, 1 + P, D), the whole window first, N ≥ 4; domains (N,).

        Raises:
            ValueError: fewer than four windows, or what `Whitening.fit` and `Density.fit` refuse.
        """
        n = vectors.shape[0]
        if n < 4 or vectors.ndim != 3 or domains.shape != (n,):
            raise ValueError(
                f"a view needs four windows (N, 1 + P, D) and their domains, got {vectors.shape}, {domains.shape}"
            )
        scores, distances = np.empty(n, np.float32), np.empty(n, np.float32)
        for fold in range(min(FOLDS, n // 2)):
            out = np.arange(n) % min(FOLDS, n // 2) == fold
            fitted = cls._fit(candidate, vectors[~out], domains[~out])
            scores[out] = fitted._raw(vectors[out, 0])
            distances[out] = fitted._distances(vectors[out, 0]).min(axis=1)
        whole = cls._fit(candidate, vectors, domains)
        return cls(
            whole.view,
            whole.whitening,
            whole.bank,
            whole.density,
            float(np.median(scores)),
            max(float(np.median(distances)), TINY),
        )

    @classmethod
    def _fit(cls, candidate: Candidate, vectors: F32, domains: I64) -> FittedView:
        whole = vectors[:, 0]
        whitening = None
        if candidate.shrinkage is not None:
            parts = vectors[:, 1:] if candidate.parts and vectors.shape[1] > 2 else None
            whitening = Whitening.fit(whole, parts, candidate.shrinkage)
        bank = _metric(whitening, whole)
        density = Density.fit(candidate.normalisation, euclidean(bank, bank), domains)
        return cls(candidate.view, whitening, bank, density, 0.0, 1.0)

    def _distances(self, vectors: F32) -> F32:
        return euclidean(_metric(self.whitening, vectors), self.bank)

    def _raw(self, vectors: F32) -> F32:
        return self.density.score(self._distances(vectors))

    def score(self, vectors: F32) -> F32:
        """(Q, D) → (Q,): 1 where a window is as far as normal windows are in the median."""
        return np.asarray(1 + (self._raw(vectors) - self.centre) / self.unit, np.float32)


@dataclass(frozen=True)
class Fusion:
    """A weighted mean of fitted views: what a machine is judged by."""

    views: tuple[FittedView, ...]
    weights: tuple[float, ...]

    @classmethod
    def fit(cls, chosen: Mapping[Candidate, float], vectors: Mapping[str, F32], domains: I64) -> Fusion:
        """Fit chosen candidates with their weights to normal windows, view → (N, 1 + P, D).

        Raises:
            ValueError: nothing chosen, a weight that is not positive, a view without vectors, or too few windows.
        """
        if not chosen or min(chosen.values()) <= 0:
            raise ValueError("a fusion needs at least one view, and positive weights")
        missing = sorted({c.view for c in chosen} - set(vectors))
        if missing:
            raise ValueError(f"no vectors of view {', '.join(missing)}")
        total = sum(chosen.values())
        views = tuple(FittedView.fit(c, vectors[c.view], domains) for c in chosen)
        return cls(views, tuple(w / total for w in chosen.values()))

    def score(self, vectors: Mapping[str, F32]) -> F32:
        """Scores (Q,) ≥ 0 of windows, view → (Q, D); about 1 is normal, higher is more abnormal."""
        scores = [w * view.score(vectors[view.view]) for view, w in zip(self.views, self.weights, strict=True)]
        return np.asarray(np.maximum(np.sum(scores, axis=0), 0), np.float32)

    def arrays(self) -> dict[str, NDArray[np.floating]]:
        """Everything but names, as plain arrays: <position>/<name>."""
        flat: dict[str, NDArray[np.floating]] = {}
        for n, (view, weight) in enumerate(zip(self.views, self.weights, strict=True)):
            parts: dict[str, NDArray[np.floating]] = {"bank": view.bank, **view.density.arrays()}
            parts["constants"] = np.array([view.centre, view.unit, weight])
            if view.whitening is not None:
                parts |= {f"whitening.{k}": a for k, a in view.whitening.arrays().items()}
            flat |= {f"{n}/{k}": a for k, a in parts.items()}
        return flat

    def names(self) -> tuple[str, ...]:
        """The views in the order of `arrays`; stored beside it as JSON."""
        return tuple(view.view for view in self.views)

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, NDArray[np.floating]]) -> Fusion:
        """The inverse of `names` and `arrays`.

        Raises:
            BundleError: an array is missing, or shapes do not fit.
        """
        views, weights = [], []
        for n, name in enumerate(names):
            own = {k.split("/", 1)[1]: a for k, a in arrays.items() if k.startswith(f"{n}/")}
            density = Density.from_arrays(own)
            inner = {k.split(".", 1)[1]: a for k, a in own.items() if k.startswith("whitening.")}
            whitening = Whitening.from_arrays(inner) if inner else None
            bank, constants = own.get("bank"), own.get("constants")
            if bank is None or constants is None or bank.ndim != 2 or constants.shape != (3,):
                raise BundleError(f"view {name}: bank or constants are missing or misshapen; make the bundle again")
            if bank.shape[0] != density.offset.shape[0] or (whitening and whitening.mean.shape[0] != bank.shape[1]):
                raise BundleError(f"view {name}: a bank {bank.shape} does not fit its density or whitening")
            centre, unit, weight = (float(c) for c in constants)
            views.append(FittedView(name, whitening, np.asarray(bank, np.float32), density, centre, unit))
            weights.append(weight)
        if not views:
            raise BundleError("a fusion without views; make the bundle again")
        return cls(tuple(views), tuple(weights))


def _metric(whitening: Whitening | None, vectors: F32) -> F32:
    if whitening is not None:
        return whitening.apply(vectors)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY), np.float32)


def choose(
    candidates: Sequence[Candidate],
    normal: Mapping[str, F32],
    changed: Mapping[str, F32],
    domains: I64,
) -> tuple[dict[Candidate, float], float]:
    """Choose views and weights from normal windows alone.

    Candidates are added one after another, with repetition, while the mean AUC over the kinds of change grows (ensemble selection:
    Caruana et al., ICML 2004). A window and its changed copies are scored by views fitted without it.

    Args:
        candidates: what there is to choose from.
        normal: view → (N, 1 + P, D), normal windows.
        changed: view → (F, N, D), the same windows after each of F changes.
        domains: (N,).

    Returns:
        candidate → weight (sum 1), and the mean pseudo-AUC of the choice.

    Raises:
        ValueError: no candidates, or what `FittedView.fit` refuses.
    """
    if not candidates:
        raise ValueError("there are no views to choose from")
    held_out = [_held_out(c, normal[c.view], changed[c.view], domains) for c in candidates]
    picked: list[int] = []
    best, total = 0.0, np.zeros_like(held_out[0])
    for _ in range(PICKS):
        values = [round(_pseudo_auc(total + scores), DECIMALS) for scores in held_out]
        if max(values) <= best:
            break
        best = max(values)
        picked.append(values.index(best))
        total = total + held_out[picked[-1]]
    counts = Counter(picked)
    return {candidates[n]: count / len(picked) for n, count in counts.items()}, best


def _held_out(candidate: Candidate, normal: F32, changed: F32, domains: I64) -> F32:
    """Scores (1 + F, N) of windows and their changed copies, by views fitted without them."""
    n = normal.shape[0]
    scores = np.empty((1 + changed.shape[0], n), np.float32)
    folds = min(4, n // 4)
    for fold in range(folds):
        out = np.arange(n) % folds == fold
        fitted = FittedView.fit(candidate, normal[~out], domains[~out])
        scores[0, out] = fitted.score(normal[out, 0])
        for kind, vectors in enumerate(changed, start=1):
            scores[kind, out] = fitted.score(vectors[out])
    return scores


def _pseudo_auc(scores: F32) -> float:
    """Mean over kinds of the chance that a changed window scores above a normal one."""
    normal = np.sort(scores[0])
    below = np.searchsorted(normal, scores[1:], "left") + np.searchsorted(normal, scores[1:], "right")
    return float(below.mean() / (2 * normal.shape[0]))


def changed_windows(waveform: F32, rng: np.random.Generator) -> dict[str, F32]:
    """A normal window after each kind of change that failing machines make: kind → (N,), the same length."""
    return {kind: change(waveform, rng) for kind, change in CHANGES.items()}


def _coloured(waveform: F32, rng: np.random.Generator) -> F32:
    """A resonance more or less: ±6 dB over half an octave, somewhere from 200 Hz to 6 kHz."""
    spectrum = np.fft.rfft(waveform)
    hz = np.fft.rfftfreq(waveform.shape[0], 1 / SAMPLE_RATE_HZ)
    octaves = np.log2(np.maximum(hz, 1) / (200 * 30 ** rng.random()))
    gain_db = 6 * rng.choice([-1, 1]) * np.exp(-0.5 * (octaves / 0.25) ** 2)
    return np.asarray(np.fft.irfft(spectrum * 10 ** (gain_db / 20), waveform.shape[0]), np.float32)


def _detuned(waveform: F32, rng: np.random.Generator) -> F32:
    """Another speed: 4 % faster or slower."""
    n = waveform.shape[0]
    at = np.arange(n) * (1 + 0.04 * rng.choice([-1, 1]))
    return np.asarray(np.interp(at % (n - 1), np.arange(n), waveform), np.float32)


def _wobbling(waveform: F32, rng: np.random.Generator) -> F32:
    """Out of balance: level up and down by half, 2 to 15 times a second."""
    seconds = np.arange(waveform.shape[0]) / SAMPLE_RATE_HZ
    turns = rng.uniform(2, 15) * seconds + rng.random()
    return np.asarray(waveform * (1 + 0.5 * np.sin(2 * np.pi * turns)), np.float32)


def _knocking(waveform: F32, rng: np.random.Generator) -> F32:
    """Short ringing blows, 1 to 6 a second, each as loud as the window's loudest tenth."""
    n = waveform.shape[0]
    seconds = np.arange(n) / SAMPLE_RATE_HZ
    phase = (seconds * rng.uniform(1, 6) + rng.random()) % 1
    blow = np.exp(-phase * 30) * np.sin(2 * np.pi * rng.uniform(500, 5000) * seconds)
    return np.asarray(waveform + np.percentile(np.abs(waveform), 90) * blow, np.float32)


def _muffled(waveform: F32, rng: np.random.Generator) -> F32:
    """Blows that fail: 20 ms pieces louder than most are brought down to 1.2 to 2 times the median piece."""
    piece = SAMPLE_RATE_HZ // 50
    loudness = np.sqrt((waveform[: waveform.shape[0] // piece * piece].reshape(-1, piece) ** 2).mean(axis=1)) + TINY
    gain = np.minimum(1, rng.uniform(1.2, 2) * np.median(loudness) / loudness)
    centres = (np.arange(gain.shape[0]) + 0.5) * piece
    return np.asarray(waveform * np.interp(np.arange(waveform.shape[0]), centres, gain), np.float32)


CHANGES: Mapping[str, Callable[[F32, np.random.Generator], F32]] = {
    "coloured": _coloured,
    "detuned": _detuned,
    "wobbling": _wobbling,
    "knocking": _knocking,
    "muffled": _muffled,
}
