"""How well the separator hears a machine in noise, beside classical methods, on the same held-out mixtures.

    python benchmarks/separation.py square    --to RUN [--steps 2000]     # realbench droneSquare at −10 dB
    python benchmarks/separation.py simulated --to RUN [--steps 2000]     # the seven simulated machines at −5 dB
    python benchmarks/separation.py simulated --machine fan --to RUN      # one network for one machine

Trains the edge size (going on where an earlier call stopped), then prints one row a method: SI-SDR improvement in dB by kind of
noise. `--baselines-only` trains nothing; `--of FOLDER` trains nothing either and measures the separator of a run or, int8, of a bundle.
Machine and noise recordings of the table are never those of the training; the recordings of everyday noise are held out clip by clip, the
simulated ones by seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asd_daemon.hear.simulator import MACHINES, NOISES, SimulatedMachine, render_noise
from asd_daemon.judge.bundle.bundle import load_bundle
from asd_daemon.judge.scoring.scorer import open_separator
from asd_daemon.waveform import WINDOW_S, WINDOW_SAMPLES, read_waveform
from asd_trainer.evaluate.bundle_scores import is_bundle
from asd_trainer.networks.separator import SIZES, Separator
from asd_trainer.recipe.keys import OptimiserRecipe
from asd_trainer.separate.losses import separate
from asd_trainer.separate.mixtures import Material, MixtureRule, mix
from asd_trainer.separate.training import SeparationTask, SeparatorTraining, load_separator, save_separator
from asd_trainer.training.loop import train

F32 = NDArray[np.float32]
Method = Callable[[F32], F32]

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
TRAINING_SEED, TEST_SEED = 1, 2  # simulated runs of the two never share a draw
LEVEL_DBFS = -26.0


@dataclass(frozen=True)
class Trial:
    """A mixture whose truth is known."""

    machine: str
    noise: str
    sources: F32  # (2, samples)

    @property
    def mixture(self) -> F32:
        return np.asarray(self.sources.sum(axis=0), dtype=np.float32)


@dataclass(frozen=True)
class Bench:
    materials: Mapping[str, Material]
    trials: tuple[Trial, ...]
    snr_db: float


def square() -> Bench:
    """Nine clean clips of droneSquare to learn from, three to test on; noises held out clip by clip."""
    raw = SHARED / "realbench" / "dev_data" / "raw"
    if not raw.is_dir():
        sys.exit(f"{raw}: the realbench recordings are not here")
    clean = _read(sorted((raw / "droneSquare" / "supplemental").glob("*machine*")))
    factory = sorted(raw.glob("droneEight/supplemental/*")) + sorted(raw.glob("lathe/supplemental/*"))
    everyday = sorted((SHARED / "audio" / "general").glob("*.ogg"))
    factory_test, everyday_test = factory[::4], everyday[::8]
    learned = _read([p for p in factory if p not in factory_test]) * 16 + _read(
        [p for p in everyday if p not in everyday_test]
    )
    chosen = np.random.default_rng(TEST_SEED).permutation(len(everyday_test))[:8]
    heard = [("realbench", sound) for sound in _read(factory_test)]
    heard += [("everyday", np.tile(sound, 2)[:WINDOW_SAMPLES]) for sound in _read([everyday_test[i] for i in chosen])]
    trials = [Trial("droneSquare", kind, mix(m, n, -10.0, LEVEL_DBFS)) for m in clean[9:] for kind, n in heard]
    return Bench({"droneSquare": Material(clean[:9], learned)}, tuple(trials), -10.0)


def simulated(serial: int, clips: int = 30) -> Bench:
    """One unit of each machine; runs and noises of the test come from other seeds, and its units from `serial`."""
    rng = np.random.default_rng(TRAINING_SEED)
    noises = tuple(render_noise(family, WINDOW_S, rng) for family in NOISES for _ in range(clips))
    materials = {name: Material(tuple(_run(name, rng) for _ in range(clips)), noises) for name in MACHINES}
    rng = np.random.default_rng(TEST_SEED)
    trials = [
        Trial(name, family, mix(_run(name, rng, serial), render_noise(family, WINDOW_S, rng), -5.0, LEVEL_DBFS))
        for name in MACHINES
        for family in NOISES
    ]
    return Bench(materials, tuple(trials), -5.0)


def _run(machine: str, rng: np.random.Generator, serial: int = 0) -> F32:
    unit = SimulatedMachine(machine, serial)
    return unit.render(WINDOW_S, rng, {name: str(rng.choice(values)) for name, values in unit.attributes.items()})


def _read(paths: Sequence[Path]) -> tuple[F32, ...]:
    return tuple(read_waveform(path) for path in paths)


def si_sdr_db(estimate: F32, target: F32) -> float:
    heard, truth = (sound.astype(np.float64) - np.mean(sound, dtype=np.float64) for sound in (estimate, target))
    wanted = (heard @ truth) / (truth @ truth) * truth
    return float(10 * np.log10((wanted @ wanted) / ((heard - wanted) @ (heard - wanted))))


class Spectra:
    """Short-time Fourier transform with square-root Hann windows, half a frame apart."""

    def __init__(self, frame: int) -> None:
        self.frame, self.hop = frame, frame // 2
        self.window = np.sin(np.pi * np.arange(frame) / frame)

    def of(self, sound: F32) -> NDArray[np.complex128]:
        padded = np.pad(sound.astype(np.float64), (self.hop, self.frame))
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.frame)[:: self.hop]
        return np.fft.rfft(frames * self.window)

    def back(self, spectrum: NDArray[np.complex128], samples: int) -> F32:
        frames = np.fft.irfft(spectrum, self.frame) * self.window
        sound = np.zeros((len(frames) + 1) * self.hop)
        sound[: -self.hop] += frames[:, : self.hop].ravel()
        sound[self.hop :] += frames[:, self.hop :].ravel()
        return sound[self.hop : self.hop + samples].astype(np.float32)


def wiener(material: Material, snr_db: float, spectra: Spectra) -> Method:
    """Mean power of clean and noise clips, at the ratio of the test: a gain per frequency."""
    machine, noise = (_mean_power(sounds, spectra) for sounds in (material.machines, material.noises))
    wanted = machine / machine.sum() * 10 ** (snr_db / 10)
    gain = wanted / (wanted + noise / noise.sum())
    return lambda sound: spectra.back(spectra.of(sound) * gain, len(sound))


def subtraction(material: Material, snr_db: float, spectra: Spectra) -> Method:
    """Power spectral subtraction of the mean noise, brought to the noise's share of the mixture; floor at −20 dB."""
    noise = _mean_power(material.noises, spectra)
    shape = noise / noise.sum() / (1 + 10 ** (snr_db / 10))

    def method(sound: F32) -> F32:
        spectrum = spectra.of(sound)
        power = np.abs(spectrum) ** 2
        expected = shape * power.mean(axis=0).sum()
        return spectra.back(spectrum * np.sqrt(np.maximum(1 - expected / (power + 1e-20), 0.01)), len(sound))

    return method


def factorisation(material: Material, spectra: Spectra, parts: int, *, noise_known: bool) -> Method:
    """Supervised (bases of machine and noise) or semi-supervised NMF (noise bases from the mixture itself), KL divergence."""
    from sklearn.decomposition import NMF

    def bases(sounds: Sequence[F32]) -> NDArray[np.float64]:
        magnitudes = np.concatenate([np.abs(spectra.of(sound))[::3] for sound in sounds])[:6000]
        model = NMF(
            parts, solver="mu", beta_loss="kullback-leibler", init="random", random_state=0, max_iter=100, tol=1e-3
        )
        model.fit(magnitudes)
        return np.asarray(model.components_)

    rng = np.random.default_rng(0)
    machine = bases(material.machines)
    order = rng.permutation(len(material.noises))[:40]
    noise = bases([material.noises[i] for i in order]) if noise_known else None

    def method(sound: F32) -> F32:
        spectrum = spectra.of(sound)
        magnitude = np.abs(spectrum) + 1e-12
        free = rng.random((parts, magnitude.shape[1])) * machine.mean() if noise is None else noise
        basis = np.concatenate([machine, free])
        weight = rng.random((len(magnitude), 2 * parts)) * magnitude.mean()
        for _ in range(100):
            ratio = magnitude / (weight @ basis + 1e-12)
            weight *= ratio @ basis.T / (basis.sum(axis=1) + 1e-12)
            if noise is None:
                ratio = magnitude / (weight @ basis + 1e-12)
                basis[parts:] *= (weight[:, parts:].T @ ratio) / (weight[:, parts:].sum(axis=0)[:, None] + 1e-12)
        own = weight[:, :parts] @ basis[:parts]
        return spectra.back(spectrum * own / (weight @ basis + 1e-12), len(sound))

    return method


def _mean_power(sounds: Sequence[F32], spectra: Spectra) -> NDArray[np.float64]:
    """Mean power by frequency, every sound at the same level."""
    powers = [np.mean(np.abs(spectra.of(s)) ** 2, axis=0) / (np.mean(s**2, dtype=np.float64) + 1e-12) for s in sounds]
    return np.asarray(np.mean(powers, axis=0), dtype=np.float64)


def ideal(trial: Trial, spectra: Spectra) -> F32:
    """The ideal ratio mask, which knows the answer: what a real mask could reach."""
    machine, noise = (np.abs(spectra.of(source)) ** 2 for source in trial.sources)
    mixture = trial.mixture
    return spectra.back(spectra.of(mixture) * np.sqrt(machine / (machine + noise + 1e-20)), len(mixture))


def gains(trials: Sequence[Trial], separate_one: Callable[[Trial], F32]) -> list[float]:
    return [
        si_sdr_db(separate_one(trial), trial.sources[0]) - si_sdr_db(trial.mixture, trial.sources[0])
        for trial in trials
    ]


def show(name: str, trials: Sequence[Trial], improved: Sequence[float]) -> None:
    def means(key: Callable[[Trial], str]) -> str:
        groups: dict[str, list[float]] = {}
        for trial, value in zip(trials, improved, strict=True):
            groups.setdefault(key(trial), []).append(value)
        return "  ".join(f"{group} {np.mean(values):.1f}" for group, values in groups.items())

    machines = means(lambda trial: trial.machine) + "  |  " if len({trial.machine for trial in trials}) > 1 else ""
    print(f"{name:34} {np.mean(improved):6.2f} dB   {machines}{means(lambda trial: trial.noise)}", flush=True)


def classical(snr_db: float) -> dict[str, Callable[[Material], Method]]:
    """The baselines: from what may be learned to the method that separates a sound."""
    methods: dict[str, Callable[[Material], Method]] = {}
    for frame in (512, 1024):
        spectra = Spectra(frame)
        methods[f"Wiener, mean spectra, {frame}"] = partial(wiener, snr_db=snr_db, spectra=spectra)
        methods[f"spectral subtraction, {frame}"] = partial(subtraction, snr_db=snr_db, spectra=spectra)
        methods[f"NMF supervised 32+32, {frame}"] = partial(factorisation, spectra=spectra, parts=32, noise_known=True)
        methods[f"NMF semi-supervised 32+32, {frame}"] = partial(
            factorisation, spectra=spectra, parts=32, noise_known=False
        )
    return methods


def _by_machine(methods: Mapping[str, Method], trial: Trial) -> F32:
    return methods[trial.machine](trial.mixture)


def show_baselines(bench: Bench) -> None:
    for name, learn in classical(bench.snr_db).items():
        learned = {machine: learn(material) for machine, material in bench.materials.items()}
        show(name, bench.trials, gains(bench.trials, partial(_by_machine, learned)))
    show("ideal ratio mask, 512 (knows truth)", bench.trials, gains(bench.trials, partial(ideal, spectra=Spectra(512))))


def trained(bench: Bench, arguments: argparse.Namespace) -> Separator:
    size = replace(SIZES["edge"], **json.loads(arguments.size))
    rule = MixtureRule(
        crop_samples=48_000,
        snr_db=(bench.snr_db - 7.0, bench.snr_db + 13.0),
        level_dbfs=(-45.0, -15.0),
        noise_speed=(0.8, 1.25),
    )
    torch.manual_seed(arguments.seed)
    network = Separator(size)
    lesson = SeparatorTraining(
        tuple(bench.materials.values()), rule, batch_mixtures=8, steps=arguments.steps, seed=arguments.seed
    )
    settings = OptimiserRecipe(
        learning_rate=2e-3, clip_norm=5.0, weight_decay=0.01, betas=(0.9, 0.98), warmup_ratio=0.05
    )
    arguments.to.mkdir(parents=True, exist_ok=True)
    train(SeparationTask(network, lesson), settings, arguments.to)
    save_separator(network, arguments.to)
    return network.eval()


def separator_of(folder: Path) -> Callable[[Trial], F32]:
    if is_bundle(folder):
        session = open_separator(load_bundle(folder))
        return lambda trial: session.separate(trial.mixture)
    network = load_separator(folder / "stages" / "separate")
    return lambda trial: separate(network, trial.mixture)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", choices=("square", "simulated"))
    parser.add_argument("--to", type=Path, help="folder of checkpoints, weights and history")
    parser.add_argument("--serial", type=int, default=0, help="simulated: unit that is tested on; 0 is learned from")
    parser.add_argument("--machine", help="keep one machine of the bench")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="{}", help="changes to the edge size, as JSON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--baselines-only", action="store_true")
    parser.add_argument(
        "--of", type=Path, action="append", default=[], help="run or bundle whose separator is measured"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    bench = square() if arguments.bench == "square" else simulated(arguments.serial)
    if arguments.machine:
        kept = tuple(trial for trial in bench.trials if trial.machine == arguments.machine)
        bench = Bench({arguments.machine: bench.materials[arguments.machine]}, kept, bench.snr_db)
    print(f"{len(bench.trials)} mixtures at {bench.snr_db} dB; SI-SDR improvement")
    if arguments.baselines_only:
        show_baselines(bench)
        return
    for folder in arguments.of:
        show(str(folder), bench.trials, gains(bench.trials, separator_of(folder)))
    if arguments.of:
        return
    if arguments.to is None:
        parser.error("--to is missing: say where the trained network goes")
    started = time.monotonic()
    network = trained(bench, arguments)
    took = f"{arguments.steps} steps, {time.monotonic() - started:.0f} s"
    show(
        f"separator ({took})",
        bench.trials,
        gains(bench.trials, lambda trial: separate(network, trial.mixture)[0]),
    )


if __name__ == "__main__":
    main()
