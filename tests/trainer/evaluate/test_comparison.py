"""Several runs in one table: every number against scikit-learn on clips that are repeated by hand, and against what must hold."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip
from asd_trainer.data.naming import Domain, Label
from asd_trainer.evaluate import bootstrap as resampling
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.comparison import CSV_COLUMNS, MEAN, Comparison, compare

CELLS: tuple[tuple[Domain, Label], ...] = (
    ("source", "normal"),
    ("source", "anomaly"),
    ("target", "normal"),
    ("target", "anomaly"),
)
EACH = 6
DRAWS = 7


def clips(machine: str) -> list[Clip]:
    return [
        Clip(Path(f"{machine}_{d}_{w}_{n}.wav"), machine, "00", "test", d, w, (), None, 2025)
        for d, w in CELLS
        for n in range(EACH)
    ]


def three_runs() -> dict[str, list[ScoredClip]]:
    rng = np.random.default_rng(5)
    of_all = [*clips("fan"), *clips("valve")]
    separations = {"a": 0.5, "b": 1.2, "c": 0.0}
    return {
        name: [ScoredClip(clip, float(rng.normal() + d * (clip.label == "anomaly"))) for clip in of_all]
        for name, d in separations.items()
    }


def figures_by_hand(scored: list[ScoredClip], machine: str, weights: np.ndarray) -> list[float]:
    """AUC (source), AUC (target), pAUC of one machine's clips, each repeated as often as it was drawn."""
    own = [one for one in scored if one.clip.machine == machine]
    chosen = [one for one, times in zip(own, weights.astype(int), strict=True) for _ in range(times)]
    found = []
    for domain, limit in (("source", None), ("target", None), (None, 0.1)):
        part = [one for one in chosen if one.clip.label == "anomaly" or domain in (None, one.clip.domain)]
        truth = [one.clip.label == "anomaly" for one in part]
        found.append(float(roc_auc_score(truth, [one.score for one in part], max_fpr=limit)))
    return found


def harmonic(values: list[float]) -> float:
    return len(values) / sum(1 / max(value, np.finfo(float).eps) for value in values)


def test_paired_intervals_equal_those_of_clips_repeated_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, rng = three_runs(), np.random.default_rng(8)
    drawn: list[np.ndarray] = []

    def draw(strata: list[np.ndarray], count: int, _rng: object, resamples: int) -> np.ndarray:
        weights = np.zeros((resamples, count))
        for row in range(resamples):
            for members in strata:
                np.add.at(weights[row], rng.choice(members, members.size), 1)
        drawn.append(weights)
        return weights

    monkeypatch.setattr(resampling, "_draw", draw)
    found = compare(runs, np.random.default_rng(0), DRAWS)
    machines = dict(zip(("fan", "valve"), drawn, strict=True))  # one draw a machine, whatever the number of runs
    scores = {
        name: np.array(
            [
                harmonic([v for m, weights in machines.items() for v in figures_by_hand(scored, m, weights[row])])
                for row in range(DRAWS)
            ]
        )
        for name, scored in runs.items()
    }
    assert [run.name for run in found.runs] == ["a", "b", "c"]
    assert found.runs[0].omega.gain is None
    for run in found.runs:
        low, high = np.quantile(scores[run.name], [0.025, 0.975])
        assert (run.omega.interval.low, run.omega.interval.high) == pytest.approx((low, high), abs=1e-9)
        once = [v for m in machines for v in figures_by_hand(runs[run.name], m, np.ones(4 * EACH))]
        assert run.omega.value == pytest.approx(harmonic(once), abs=1e-9)
        if run.omega.gain is None:
            continue
        difference = scores[run.name] - scores["a"]
        low, high = np.quantile(difference, [0.025, 0.975])
        assert (run.omega.gain.interval.low, run.omega.gain.interval.high) == pytest.approx((low, high), abs=1e-9)
        assert run.omega.gain.better_share == pytest.approx(np.mean(difference > 0))
        assert run.omega.gain.value == pytest.approx(run.omega.value - found.runs[0].omega.value)
        fan = [figures_by_hand(runs[run.name], "fan", weights) for weights in machines["fan"]]
        base = [figures_by_hand(runs["a"], "fan", weights) for weights in machines["fan"]]
        gain = run.machines["fan"]["auc_target"].gain
        assert gain is not None
        low, high = np.quantile(np.array(fan)[:, 1] - np.array(base)[:, 1], [0.025, 0.975])
        assert (gain.interval.low, gain.interval.high) == pytest.approx((low, high), abs=1e-9)
        mean = run.machines["fan"][MEAN].gain
        assert mean is not None
        means = [harmonic(own) - harmonic(other) for own, other in zip(fan, base, strict=True)]
        assert mean.interval.high == pytest.approx(np.quantile(means, 0.975), abs=1e-9)


def test_a_run_whose_scores_only_have_another_scale_gains_nothing_at_all() -> None:
    first = three_runs()["a"]
    scaled = [ScoredClip(one.clip, 3 * one.score - 8) for one in first]
    gain = compare({"a": first, "scaled": scaled}, np.random.default_rng(0), 50).runs[1].omega.gain
    assert gain is not None
    assert (gain.value, gain.interval.low, gain.interval.high, gain.better_share) == (0, 0, 0, 0.5)


def test_pairing_makes_the_interval_of_like_runs_narrow() -> None:
    rng, first = np.random.default_rng(3), three_runs()["b"]
    like = [ScoredClip(one.clip, one.score + 0.01 * float(rng.normal())) for one in first]
    found = compare({"b": first, "like": like}, np.random.default_rng(0), 200)
    gain, alone = found.runs[1].omega.gain, found.runs[1].omega.interval
    assert gain is not None
    assert gain.interval.high - gain.interval.low < 0.2 * (alone.high - alone.low)


def compared() -> Comparison:
    return compare(three_runs(), np.random.default_rng(0), 40)


def test_csv_and_json_hold_the_same_numbers() -> None:
    found = compared()
    rows = list(csv.DictReader(io.StringIO(found.as_csv())))
    content = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert len(rows) == 3 * (1 + 2 * 4)  # Ω, and of two machines three figures and their mean
    assert content["baseline"] == "a"
    of_run = {run["run"]: run for run in content["runs"]}
    for row in rows:
        own = of_run[row["run"]]
        one = own["omega"] if row["machine"] == "all" else own["machines"][row["machine"]][row["figure"]]
        assert float(row["value"]) == pytest.approx(one["value"], abs=1e-6)
        assert float(row["high"]) == pytest.approx(one["interval"][1], abs=1e-6)
        assert (row["gain"] == "") == (row["run"] == "a") == ("gain" not in one)
        if row["gain"]:
            assert float(row["gain_low"]) == pytest.approx(one["gain_interval"][0], abs=1e-6)


def test_runs_on_other_clips_are_not_compared() -> None:
    runs = three_runs()
    with pytest.raises(DataSetError, match="different test clips"):
        compare({"a": runs["a"], "b": runs["b"][:-1]}, np.random.default_rng(0), 5)
