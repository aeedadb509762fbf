"""Ablation of the back ends that need no training: one line a method, Ω with a bootstrap interval, then each machine.

usage: python benchmarks/backends.py [--data DIR ...] [--cache DIR] [--seed N] [--draws N]

Without --data: the realbench recordings beside the checkout. A folder that is not there is skipped with a word. A simulated set is made by
`asd-train simulate`. Views and weights are chosen from training clips alone; test clips are only scored.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
from asd_daemon.learn.view_selection import select_views  # noqa: E402

from asd_daemon.judge.distances.fusion import Candidate, Fusion  # noqa: E402
from asd_daemon.judge.distances.local_density import NORMALISATIONS  # noqa: E402
from asd_daemon.judge.features.log_mel import log_mel  # noqa: E402
from asd_daemon.judge.features.views import F32, VIEW_NAMES, euclidean, view_vectors  # noqa: E402
from asd_daemon.learn.pseudo_anomalies import pseudo_anomalies  # noqa: E402
from asd_trainer.data.dataset import Clip, load_clip, read_dataset  # noqa: E402
from asd_trainer.evaluate.backend import ScoredClip  # noqa: E402
from asd_trainer.evaluate.evaluation import machine_results, omega  # noqa: E402

REALBENCH = Path(__file__).resolve().parents[1].parent / "shared" / "realbench"
FLOORS = ("floor-short", "floor-long", "floor-fine")
SIMPLE = {
    "moments, 1-NN": "simple-moments",
    "5th percentile, 1-NN": "simple-p5",
    "1st+10th, whitened, 1-NN": "simple-quiet",
}


@dataclass(frozen=True)
class Machine:
    """One machine's vectors."""

    name: str
    test: tuple[Clip, ...]
    train: dict[str, F32]  # view → (N, 1 + P, D)
    heard: dict[str, F32]  # view → (Q, D)
    changed: dict[str, F32]  # view → (F, N, D)
    domains: np.ndarray


def simple_views(waveform: F32) -> dict[str, F32]:
    """Vectors of the simple methods, each (1, D)."""
    mel = log_mel(waveform)
    p1, p5, p10 = np.percentile(mel, (1, 5, 10), axis=0).astype(np.float32)
    quiet = np.concatenate([p1, p10])
    moments = np.concatenate([mel.mean(axis=0) - mel.mean(), mel.std(axis=0)])
    vectors = {"simple-moments": moments, "simple-p5": p5 - p5.mean(), "simple-quiet": quiet - quiet.mean()}
    return {name: vector[None] for name, vector in vectors.items()}


def stacked(described: list[dict[str, F32]]) -> dict[str, F32]:
    """A list of windows' vectors → one array a view."""
    return {view: np.stack([one[view] for one in described]) for view in described[0]}


def measure(root: Path, name: str, clips: tuple[Clip, ...], seed: int, cache: Path | None) -> Machine:
    """Describe all clips of a machine, and its training clips after every change."""
    train = tuple(c for c in clips if c.split == "train" and c.label != "anomaly")
    test = tuple(c for c in clips if c.split == "test")
    file = cache / f"{root.name}_{name}_{len(train)}_{len(test)}_{seed}.npz" if cache else None
    if file and file.exists():
        with np.load(file, allow_pickle=False) as saved:
            parts = {key: saved[key] for key in saved.files}
    else:
        rng = np.random.default_rng(seed)
        normal, changed = [], []
        for clip in train:
            waveform = load_clip(clip)
            normal.append(view_vectors(waveform) | simple_views(waveform))
            altered = pseudo_anomalies(waveform, rng).values()
            changed.append(stacked([{v: x[0] for v, x in view_vectors(a).items()} for a in altered]))
        heard = [{v: x[0] for v, x in (view_vectors(w) | simple_views(w)).items()} for w in map(load_clip, test)]
        parts = {f"train/{v}": x for v, x in stacked(normal).items()} | {
            f"heard/{v}": x for v, x in stacked(heard).items()
        }
        parts |= {f"changed/{v}": x.swapaxes(0, 1) for v, x in stacked(changed).items()}
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **parts)
    groups: dict[str, dict[str, F32]] = {"train": {}, "heard": {}, "changed": {}}
    for key, array in parts.items():
        group, view = key.split("/", 1)
        groups[group][view] = array
    domains = np.array([c.domain == "target" for c in train], np.int64)
    return Machine(name, test, groups["train"], groups["heard"], groups["changed"], domains)


def simple(view: str) -> Callable[[Machine], F32]:
    """A simple method of the table that is to be beaten."""

    def score(m: Machine) -> F32:
        train, heard = m.train[view][:, 0].astype(np.float64), m.heard[view].astype(np.float64)
        centred = train - train.mean(axis=0)
        if view == "simple-quiet":
            covariance = np.cov(train.T, bias=True)
            dims = covariance.shape[0]
            values, axes = np.linalg.eigh(0.7 * covariance + 0.3 * np.trace(covariance) / dims * np.eye(dims))
            basis = axes / np.sqrt(values)
        else:
            basis = np.diag(1 / (train.std(axis=0) + 1e-9))
        white = (heard - train.mean(axis=0)) @ basis
        return euclidean(white.astype(np.float32), (centred @ basis).astype(np.float32)).min(axis=1)

    return score


def fused(*candidates: Candidate) -> Callable[[Machine], F32]:
    """Candidates of equal weight."""
    return lambda m: Fusion.fit(dict.fromkeys(candidates, 1.0), m.train, m.domains).score(m.heard)


def chosen(candidates: list[Candidate], choices: dict[str, str]) -> Callable[[Machine], F32]:
    """Views and weights chosen from normal clips; what was chosen is noted in `choices`."""

    def score(m: Machine) -> F32:
        picked, value = select_views(candidates, m.train, m.changed, m.domains)
        words = ", ".join(f"{w:.2f} {c.view}({c.shrinkage}, {c.normalisation})" for c, w in picked.items())
        choices[m.name] = f"{words}; pseudo-AUC {100 * value:.1f}"
        return Fusion.fit(picked, m.train, m.domains).score(m.heard)

    return score


def methods(choices: dict[str, str]) -> dict[str, Callable[[Machine], F32]]:
    """Every line of the table."""
    table: dict[str, Callable[[Machine], F32]] = {name: simple(view) for name, view in SIMPLE.items()}
    table |= {f"view {view}": fused(Candidate(view)) for view in VIEW_NAMES}
    table |= {f"floor-short, {n}": fused(Candidate("floor-short", normalisation=n)) for n in NORMALISATIONS[1:]}
    table["floor-short, whole windows only"] = fused(Candidate("floor-short", 0.3, parts=False))
    table["floors fused"] = fused(*(Candidate(view) for view in FLOORS))
    table["floors + quiet fused"] = fused(*(Candidate(view) for view in (*FLOORS, "quiet")))
    table["all views fused"] = fused(*(Candidate(view) for view in VIEW_NAMES))
    table["chosen per machine"] = chosen([Candidate(view) for view in VIEW_NAMES], choices)
    return table


def figures(machines: list[Machine], scores: dict[str, F32]) -> tuple[float, dict[str, float]]:
    """Ω and each machine's harmonic mean, in percent."""
    scored = [ScoredClip(c, float(s)) for m in machines for c, s in zip(m.test, scores[m.name], strict=True)]
    results = machine_results(scored)
    return 100 * omega(results), {name: 100 * omega({name: result}) for name, result in results.items()}


def resampled(machines: list[Machine], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Test clips drawn with replacement inside each machine, domain and condition."""
    drawn = {}
    for m in machines:
        strata = np.array([f"{c.domain}/{c.label}" for c in m.test])
        drawn[m.name] = np.concatenate(
            [rng.choice(np.flatnonzero(strata == s), (strata == s).sum()) for s in np.unique(strata)]
        )
    return drawn


def interval(
    machines: list[Machine], scores: dict[str, F32], against: dict[str, F32], draws: int, seed: int
) -> tuple[float, float, float, float]:
    """95 % bootstrap interval of Ω, and (paired) of the gain over another method."""
    rng = np.random.default_rng(seed)
    values, gains = [], []
    for _ in range(draws):
        drawn = resampled(machines, rng)
        some = [Machine(m.name, tuple(m.test[i] for i in drawn[m.name]), {}, {}, {}, m.domains) for m in machines]
        ours, theirs = (figures(some, {n: s[drawn[n]] for n, s in x.items()})[0] for x in (scores, against))
        values.append(ours)
        gains.append(ours - theirs)
    low, high = np.percentile(values, (2.5, 97.5))
    gain_low, gain_high = np.percentile(gains, (2.5, 97.5))
    return float(low), float(high), float(gain_low), float(gain_high)


def table(root: Path, seed: int, draws: int, cache: Path | None) -> None:
    """Print the table of one data set."""
    clips = read_dataset([root])
    names = sorted({c.machine for c in clips.clips if c.split == "test"})
    machines = []
    for name in names:
        machines.append(measure(root, name, clips.select(machine=name), seed, cache))
        print(f"{name}: {len(machines[-1].domains)} training, {len(machines[-1].test)} test clips", file=sys.stderr)
    choices: dict[str, str] = {}
    print(
        f"\n{root}\n{'method':34s} {'Ω':>5s} {'95 %':>11s} {'gain 95 %':>13s}  {' '.join(f'{n[:11]:>11s}' for n in names)}"
    )
    reference: dict[str, F32] = {}
    best = dict.fromkeys(names, 0.0)
    for method, score in methods(choices).items():
        scores = {m.name: score(m) for m in machines}
        if method == list(SIMPLE)[-1]:
            reference = scores
        value, each = figures(machines, scores)
        if method in SIMPLE:
            best = {n: max(best[n], each[n]) for n in names}
        low, high, gain_low, gain_high = interval(machines, scores, reference or scores, draws, seed)
        gain = f"{gain_low:+5.1f} … {gain_high:+5.1f}" if reference else ""
        row = " ".join(f"{each[n]:11.1f}" for n in names)
        print(f"{method:34s} {value:5.1f} {low:4.1f} … {high:4.1f} {gain:>13s}  {row}", flush=True)
    print(f"{'best simple method, each':34s} {'':31s}  {' '.join(f'{best[n]:11.1f}' for n in names)}")
    for name, words in choices.items():
        print(f"  {name}: {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", help="a data set's root (repeatable)")
    parser.add_argument("--cache", type=Path, help="keep vectors here between runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=200, help="bootstrap draws")
    arguments = parser.parse_args()
    for root in arguments.data or [REALBENCH]:
        if root.is_dir():
            table(root, arguments.seed, arguments.draws, arguments.cache)
        else:
            print(f"skipped: there is no {root}", file=sys.stderr)


if __name__ == "__main__":
    main()
