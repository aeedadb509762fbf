"""How far a quantised embedder or separator is from its fp32 file: speed, scores, and the separated sound.

The error that counts is the score's: both models hear the same normal clips and score them leave-one-out, each against its own bank. A
separator must also keep its sound: mixtures are made anew from what fp32 separated, so that their truth is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import ExportError
from asd_daemon.judge.bundle.bundle import ModelEntry
from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession
from asd_daemon.judge.distances.nearest_neighbours import leave_one_out
from asd_export.quantize import Budget, Candidate

F32 = NDArray[np.float32]
TIMED_RUNS = 7
RANKING_CLIPS = 6
TINY = 1e-12


class EmbedderAccuracy:
    """Measures embedders."""

    def __init__(self, fp32: Path, features: F32, dim: int, budget: Budget, bands: int = 1) -> None:
        """Measure by normal clips.

        Args:
            fp32: the unquantised file.
            features: float32 (N, 1024, 128) or (N, 160 000), N ≥ 4 normal clips.
            dim: size of the embedding.
            budget: what must hold.
            bands: of the embedding, that look for neighbours each by itself.
        """
        self._features, self._dim, self._budget, self._bands = features, dim, budget, bands
        self._fp32 = self._embed(self.open(fp32), features)
        self._scores = leave_one_out(self._fp32, bands)
        self._scale = float(np.percentile(self._scores, 95))

    @property
    def inputs(self) -> Sequence[F32]:
        """One clip each, with its batch axis."""
        return [one[None] for one in self._features]

    def open(self, file: Path) -> EmbedderSession:
        """A session as the edge opens it."""
        return EmbedderSession(file, ModelEntry(file=file.name, precision="fp32", dim=self._dim))

    def measure(self, way: str, file: Path) -> Candidate:
        """See `AccuracyMeasure.measure`."""
        session = self.open(file)
        embeddings = self._embed(session, self._features)
        if not np.isfinite(embeddings).all():
            raise ExportError(f"{file.name}: gives embeddings that are not finite")
        error = float(np.abs(leave_one_out(embeddings, self._bands) - self._scores).max())
        ms = fastest_ms(lambda: session.embed(self._features[:1]))
        return Candidate(way, file.stat().st_size, ms, error, error / self._scale)

    def error(self, file: Path) -> float:
        """The largest 1 - cosine between a clip's embedding and fp32's."""
        some = slice(None, None, max(1, len(self._features) // RANKING_CLIPS))
        found = self._embed(self.open(file), self._features[some])
        return float((1 - (found * self._fp32[some]).sum(axis=1)).max())

    def objection(self, candidate: Candidate) -> str | None:
        """See `AccuracyMeasure.objection`."""
        return score_objection(candidate, self._budget)

    @staticmethod
    def _embed(session: EmbedderSession, features: F32) -> F32:
        return np.concatenate([session.embed(f[None]) for f in features])  # (N, D)


class SeparatorAccuracy:
    """Measures separators, by the sound that comes out and by what an embedder makes of it."""

    def __init__(
        self, fp32: Path, windows: Sequence[F32], embed: Callable[[F32], F32], budget: Budget, bands: int = 1
    ) -> None:
        """Measure by normal windows.

        Args:
            fp32: the unquantised file.
            windows: normal windows (160 000,), two at least.
            embed: a window's embedding (D,), by the embedder that listens.
            budget: what must hold.
            bands: of the embedding, that look for neighbours each by itself.
        """
        self._windows, self._embed, self._budget, self._bands = windows, embed, budget, bands
        session = SeparatorSession(fp32)
        self._machines = [session.separate(window) for window in windows]
        self._session = session

    @property
    def inputs(self) -> Sequence[F32]:
        """(1, 160 000) each."""
        return [window[None] for window in self._windows]

    def measure(self, way: str, file: Path) -> Candidate:
        """See `AccuracyMeasure.measure`."""
        session = SeparatorSession(file)
        machines = [session.separate(window) for window in self._windows]
        if not all(np.isfinite(machine).all() for machine in machines):
            raise ExportError(f"{file.name}: gives sound that is not finite")
        error = float(np.abs(self._leave_one_out(machines) - self._scores).max())
        scale = float(np.percentile(self._scores, 95))
        ms = fastest_ms(lambda: session.separate(self._windows[0]))
        loss_db = float(np.mean(self._losses_db(session, len(self._mixtures))))
        return Candidate(way, file.stat().st_size, ms, error, error / scale, round(loss_db, 4))

    def error(self, file: Path) -> float:
        """DB of SI-SDR lost on a few mixtures."""
        return float(np.mean(self._losses_db(SeparatorSession(file), RANKING_CLIPS)))

    def objection(self, candidate: Candidate) -> str | None:
        """See `AccuracyMeasure.objection`."""
        if candidate.loss_db is not None and not candidate.loss_db <= self._budget.loss_db:
            return f"loses {candidate.loss_db:.2f} dB SI-SDR, allowed {self._budget.loss_db:g}"
        return score_objection(candidate, self._budget)

    @cached_property
    def _scores(self) -> F32:
        return self._leave_one_out(self._machines)

    @cached_property
    def _mixtures(self) -> list[tuple[F32, F32, float]]:
        """The machine of each window mixed with the noise of the next: mixture, truth, and fp32's SI-SDR."""
        mixtures = []
        for n, machine in enumerate(self._machines):
            other = (n + 1) % len(self._windows)
            mixture = np.asarray(machine + (self._windows[other] - self._machines[other]), np.float32)
            mixtures.append((mixture, machine, si_sdr_db(self._session.separate(mixture), machine)))
        return mixtures

    def _losses_db(self, session: SeparatorSession, count: int) -> list[float]:
        return [fp32 - si_sdr_db(session.separate(mix), truth) for mix, truth, fp32 in self._mixtures[:count]]

    def _leave_one_out(self, machines: Sequence[F32]) -> F32:
        return leave_one_out(np.stack([self._embed(machine) for machine in machines]), self._bands)


def score_objection(candidate: Candidate, budget: Budget) -> str | None:
    """What of a candidate's scores misses the budget."""
    if candidate.score_error_share <= budget.score_error:
        return None
    return (
        f"score error {candidate.score_error_share:.1%} of the 95th percentile score, allowed {budget.score_error:.1%}"
    )


def si_sdr_db(estimate: F32, truth: F32) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., ICASSP 2019); (N,) both."""
    estimate64, truth64 = estimate.astype(np.float64), truth.astype(np.float64)
    target = truth64 * (estimate64 @ truth64) / max(float(truth64 @ truth64), TINY)
    error = estimate64 - target
    return float(10 * np.log10((target @ target + TINY) / (error @ error + TINY)))


def fastest_ms(work: Callable[[], object]) -> float:
    """Milliseconds of this thread's processor time: the fastest of a few runs."""
    times = []
    for _ in range(TIMED_RUNS):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times) * 1000
