"""Vectors of a data set's machines, kept between runs, and the simple methods that every benchmark of views is measured against.

Owns what is described and how a simple method scores; it picks nothing and prints only how far it is.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from asd_daemon.judge.distances.whitening import euclidean
from asd_daemon.judge.features.earlier_views import RHYTHM_BANDS, RHYTHM_EDGES_HZ
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.moving_views import FRAMES_PER_SECOND, MOVING_VIEWS
from asd_daemon.judge.features.views import F32, PARTS, VIEW_NAMES, view_vectors
from asd_daemon.learn.reference_sounds import make_reference_vectors
from asd_trainer.data.dataset import Clip, load_clip, read_dataset

SIMPLE = {
    "loudness, 1-NN": "simple-loudness",
    "moments, 1-NN": "simple-moments",
    "5th percentile, 1-NN": "simple-p5",
    "1st+10th, whitened, 1-NN": "simple-quiet",
}
"""Simple methods: their view, by the name of their line."""
EARLIER = ("rhythm", "loud")
MODULATION = "modulation"
KINDS = {"droneSquare": "drone", "droneEight": "drone"}
"""Of machines whose kind is not their name."""
SIMULATION = "simulation.json"


@dataclass(frozen=True)
class DescribedMachine:
    """One machine's vectors."""

    data_set: str
    name: str
    is_simulated: bool
    test: tuple[Clip, ...]
    train: dict[str, F32]  # view → (N, 1 + P, D)
    heard: dict[str, F32]  # view → (Q, D)
    domains: np.ndarray  # (N,), 1 where the clip is of the target domain

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from every other machine."""
        return self.data_set, self.name

    @property
    def kind(self) -> str:
        """What kind of machine it is; a simulated fan is a fan."""
        return KINDS.get(self.name, self.name)


def described_set(root: Path, cache: Path | None) -> list[DescribedMachine]:
    """Every machine of a data set that has test clips; vectors are taken from `cache` where they lie there, and put there."""
    clips = read_dataset([root])
    machines = []
    for name in sorted({c.machine for c in clips.clips if c.split == "test"}):
        machines.append(_described(root, name, clips.select(machine=name), cache))
        own = machines[-1]
        print(f"{root.name} {name}: {len(own.domains)} training, {len(own.test)} test clips", file=sys.stderr)
    return machines


def simple_scores(machine: DescribedMachine, view: str) -> F32:
    """What a simple method makes of the test clips, (Q,)."""
    train, heard = machine.train[view][:, 0].astype(np.float64), machine.heard[view].astype(np.float64)
    centre = train.mean(axis=0)
    if view == "simple-quiet":
        covariance = np.cov(train.T, bias=True)
        dims = covariance.shape[0]
        values, axes = np.linalg.eigh(0.7 * covariance + 0.3 * np.trace(covariance) / dims * np.eye(dims))
        basis = axes / np.sqrt(values)
    else:
        basis = np.diag(1 / (train.std(axis=0) + 1e-9))
    whitened = [np.asarray((rows - centre) @ basis, np.float32) for rows in (heard, train)]
    return np.asarray(euclidean(*whitened).min(axis=1), np.float32)


def reference_of_moving_views(cache: Path | None) -> dict[str, F32]:
    """Simulated machines' sounds in every moving view, (K, D): what the gate's evidence could be taken in."""
    file = cache / "reference.npz" if cache else None
    if file and file.exists():
        return _load(file)
    vectors = {view: own.astype(np.float32) for view, own in make_reference_vectors(tuple(MOVING_VIEWS)).items()}
    _save(file, vectors)
    return vectors


def _described(root: Path, name: str, clips: tuple[Clip, ...], cache: Path | None) -> DescribedMachine:
    train = tuple(c for c in clips if c.split == "train" and c.label != "anomaly")
    test = tuple(c for c in clips if c.split == "test")
    file = cache / f"{root.name}_{name}_{len(train)}_{len(test)}.npz" if cache else None
    if file and file.exists():
        arrays = _load(file)
    else:
        own = _stacked([_vectors(load_clip(clip), parts=True) for clip in train])
        heard = _stacked([_vectors(load_clip(clip), parts=False) for clip in test])
        arrays = {f"train/{v}": x for v, x in own.items()} | {f"heard/{v}": x[:, 0] for v, x in heard.items()}
        _save(file, arrays)
    groups: dict[str, dict[str, F32]] = {"train": {}, "heard": {}}
    for key, array in arrays.items():
        group, view = key.split("/", 1)
        groups[group][view] = array
    domains = np.array([c.domain == "target" for c in train], np.int64)
    is_simulated = (root / SIMULATION).exists()
    return DescribedMachine(root.name, name, is_simulated, test, groups["train"], groups["heard"], domains)


def _vectors(waveform: F32, *, parts: bool) -> dict[str, F32]:
    """Views of a window: the product's, two of its earlier ones, those of the simple methods."""
    mel = log_mel(waveform)
    third = mel.shape[0] // PARTS
    pieces = [mel, *(mel[n * third : (n + 1) * third] for n in range(PARTS if parts else 0))]
    return {
        **view_vectors(waveform, mel, views=(*VIEW_NAMES, *EARLIER), parts=parts),
        MODULATION: np.stack([_modulation(piece) for piece in pieces]),
        **_simple_vectors(waveform, mel),
    }


def _modulation(mel: F32) -> F32:
    """Spectrum of the ups and downs of each of 16 bands' amplitude over its mean, in steps of equal ratio, as logarithm of power."""
    frames = mel.shape[0]
    bands = np.sqrt(np.exp(mel).reshape(frames, RHYTHM_BANDS, -1).mean(axis=2))
    moving = (bands / bands.mean(axis=0) - 1) * np.hanning(frames)[:, None]
    power = np.abs(np.fft.rfft(moving, axis=0)) ** 2 / frames
    hz = np.arange(power.shape[0]) * (FRAMES_PER_SECOND / frames)
    starts = np.minimum(np.searchsorted(hz, RHYTHM_EDGES_HZ), hz.shape[0] - 1)
    steps = [power[start : max(end, start + 1)].mean(axis=0) for start, end in pairwise(starts)]
    return np.asarray(np.log(np.stack(steps) + 1e-6), np.float32).ravel()


def _simple_vectors(waveform: F32, mel: F32) -> dict[str, F32]:
    """Vectors of the simple methods, each (1, D)."""
    p1, p5, p10 = np.percentile(mel, (1, 5, 10), axis=0).astype(np.float32)
    quiet = np.concatenate([p1, p10])
    vectors = {
        "simple-loudness": np.array(
            [10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)) + 1e-12)], np.float32
        ),
        "simple-moments": np.concatenate([mel.mean(axis=0) - mel.mean(), mel.std(axis=0)]),
        "simple-p5": p5 - p5.mean(),
        "simple-quiet": quiet - quiet.mean(),
    }
    return {name: vector[None] for name, vector in vectors.items()}


def _stacked(described: list[dict[str, F32]]) -> dict[str, F32]:
    return {view: np.stack([one[view] for one in described]) for view in described[0]}


def _load(file: Path) -> dict[str, F32]:
    with np.load(file, allow_pickle=False) as saved:
        return {key: saved[key] for key in saved.files}


def _save(file: Path | None, arrays: dict[str, F32]) -> None:
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)  # type: ignore[arg-type]
