"""Does a small network that has learned from simulated machines earn a place beside the views? Each line with its two controls.

usage: python benchmarks/learned_embedder.py --units DIR [--noise DIR] [--data DIR ...] [--cache DIR] [--seeds N] [--epochs N]

The network hears what the views hear: log-mels of a window and of its steady part at one level (two channels). It learns to tell units of
simulated machines apart (`units`, made by `asd-train simulate`), or that two pieces of a clip are one (contrastive), under foreign noise,
rooms and rolls. Its embedding is then a view like any other: whitened, nearest normal window, log distance in spreads of held-out ones.

Controls: the same network untrained, and the views without any network (the rule as shipped). How much it counts beside the views (its
share) is picked on the other kinds of machine. Two seeds at least; intervals are paired bootstrap over test clips.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402
import torch  # noqa: E402
from described_machines import DescribedMachine, described_set  # noqa: E402
from generalisation import REAL_SETS, figures, scored_clips  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from asd_daemon.judge.distances.fusion import Candidate, FittedView, Fusion  # noqa: E402
from asd_daemon.judge.features.steady_part import LevelledLogMels  # noqa: E402
from asd_daemon.judge.features.views import F32, VIEW_NAMES  # noqa: E402
from asd_daemon.learn.reference_sounds import reference_vectors  # noqa: E402
from asd_daemon.learn.view_families import movement_contrast, view_families  # noqa: E402
from asd_daemon.waveform import WINDOW_SAMPLES, read_waveform  # noqa: E402
from asd_trainer.data.dataset import Clip, load_clip, read_dataset  # noqa: E402
from asd_trainer.evaluate.bootstrap import interval, resampled_scores  # noqa: E402

SHARES = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7)
"""Of the network's family in the soft union; the views share the rest as shipped."""
OBJECTIVES = ("units", "contrastive", "untrained")
FRAMES = 499
DIMENSIONS, BATCH, SCALE, MARGIN, TEMPERATURE = 128, 32, 16.0, 0.2, 0.1
Embedded = dict[str, tuple[F32, F32]]
"""Machine → embeddings of its training clips (N, D) and of its test clips (Q, D)."""


class SmallNetwork(nn.Module):
    """Four convolutions over (B, 2, 499, 128), mean and deviation over time band by band, (B, 128) of unit length."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, size, stride in ((2, 24, 7, 4), (24, 48, 3, 2), (48, 96, 3, 2), (96, 128, 3, 2)):
            layers += [nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.pooled = nn.BatchNorm1d(128 * 4 * 2)
        self.out = nn.Linear(128 * 4 * 2, DIMENSIONS)

    def forward(self, mels: Tensor) -> Tensor:
        """Embeddings of log-mels."""
        maps = self.layers((mels + 6) / 4)  # (B, 128, T, 4)
        pooled = torch.cat([maps.mean(dim=2), maps.std(dim=2)], dim=1).flatten(1)
        return functional.normalize(self.out(self.pooled(pooled)), dim=1)


def features(waveforms: list[F32]) -> np.ndarray:
    """Windows → (N, 2, 499, 128), float16."""
    rows = np.empty((len(waveforms), 2, FRAMES, 128), np.float16)
    for row, waveform in zip(rows, waveforms, strict=True):
        mels = LevelledLogMels.of(np.resize(waveform, WINDOW_SAMPLES))
        for channel, mel in zip(row, (mels.window, mels.steady), strict=True):
            channel[:] = mel[: 2 * FRAMES].reshape(FRAMES, 2, -1).mean(axis=1)
    return rows


def kept_features(cache: Path, name: str, clips: list[Clip] | list[Path]) -> np.ndarray:
    """Features of clips or files; taken from the cache where they lie there."""
    file = cache / f"mels_{name}_{len(clips)}.npy"
    if not file.exists():
        print(f"hearing {len(clips)} clips of {name}", file=sys.stderr, flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        heard = [features([load_clip(clip) if isinstance(clip, Clip) else read_waveform(clip)]) for clip in clips]
        np.save(file, np.concatenate(heard))
    return np.asarray(np.load(file, mmap_mode="r"))


def disturbed(mels: Tensor, noises: Tensor | None, generator: torch.Generator) -> Tensor:
    """A batch under foreign noise (powers add, 5 dB above to 20 dB below), in another room (a smooth curve over bands), begun elsewhere."""
    batch = mels.shape[0]
    if noises is not None:
        chosen = noises[torch.randint(len(noises), (batch,), generator=generator)].float()
        levels = mels.mean(dim=(2, 3), keepdim=True)[:, :1] - chosen.mean(dim=(2, 3), keepdim=True)[:, :1]
        below = (torch.rand(batch, 1, 1, 1, generator=generator) * 25 - 5) * np.log(10) / 10
        mels = torch.logaddexp(mels, chosen + levels - below)
    knots = torch.randn(batch, 1, 6, generator=generator) * 0.7
    curve = functional.interpolate(knots, size=128, mode="linear", align_corners=True)
    shift = int(torch.randint(FRAMES, (1,), generator=generator))
    return torch.roll(mels + curve[:, :, None], shift, dims=2)


def trained(
    objective: str, mels: np.ndarray, labels: np.ndarray, noises: Tensor | None, seed: int, epochs: int
) -> SmallNetwork:
    """A network that has learned; "untrained": one whose norms have only heard the same batches."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = SmallNetwork()
    weights = nn.Parameter(
        functional.normalize(torch.randn(int(labels.max()) + 1, DIMENSIONS, generator=generator), dim=1)
    )
    optimiser = torch.optim.AdamW([*network.parameters(), weights], lr=1e-3, weight_decay=1e-3)
    steps = epochs * (len(mels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=max(steps, 1))
    network.train()
    running = 0.0
    for step in range(steps if objective != "untrained" else min(steps, 50)):
        rows = torch.randint(len(mels), (BATCH,), generator=generator)
        batch = torch.from_numpy(mels[np.sort(rows.numpy())].astype(np.float32))
        own = torch.from_numpy(labels[np.sort(rows.numpy())])
        embedded = network(disturbed(batch, noises, generator))
        if objective == "untrained":
            continue
        if objective == "units":
            cosines = embedded @ functional.normalize(weights, dim=1).T
            loss = functional.cross_entropy(SCALE * (cosines - MARGIN * functional.one_hot(own, cosines.shape[1])), own)
        else:
            other = network(disturbed(batch, noises, generator))
            alike = embedded @ other.T / TEMPERATURE
            aims = torch.arange(BATCH)
            loss = (functional.cross_entropy(alike, aims) + functional.cross_entropy(alike.T, aims)) / 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        running = 0.98 * running + 0.02 * float(loss.detach())
        if step % 200 == 0:
            print(f"{objective}, seed {seed}: step {step} of {steps}, loss {running:.3f}", file=sys.stderr, flush=True)
    return network.eval()


def embed(network: SmallNetwork, mels: np.ndarray) -> F32:
    """Embeddings (N, D)."""
    with torch.no_grad():
        rows = [network(torch.from_numpy(mels[n : n + 16].astype(np.float32))) for n in range(0, len(mels), 16)]
    return torch.cat(rows).numpy()


def joined(machine: DescribedMachine, learned: FittedView, heard: F32, share: float) -> F32:
    """The rule as shipped with the network as a third family, believed by a share: log Σ share · exp(score)."""
    families = view_families(VIEW_NAMES, movement_contrast(machine.train, reference_vectors()))
    views = Fusion.fit(families, machine.train, machine.domains).score(machine.heard)
    if share == 0:
        return views
    own = learned.score(heard)
    return np.asarray(np.logaddexp(np.log(1 - share) + views, np.log(share) + own), np.float32)


def picked_elsewhere(
    machines: list[DescribedMachine], scores: dict[float, dict[tuple[str, str], F32]]
) -> dict[tuple[str, str], F32]:
    """Every machine by the share that has the best mean of machines' Ω over the other kinds."""
    alone = {share: {m.key: figures([m], own)[0] for m in machines} for share, own in scores.items()}
    found = {}
    for machine in machines:
        others = [m.key for m in machines if m.kind != machine.kind]
        best = max(scores, key=lambda share: float(np.mean([alone[share][key] for key in others])))
        found[machine.key] = scores[best][machine.key]
        print(f"  without {machine.kind}: share {best:g}", file=sys.stderr)
    return found


def report(machines: list[DescribedMachine], lines: dict[str, dict[tuple[str, str], F32]], draws: int) -> None:
    """One table a data set: Ω, its gain over the rule as shipped with its paired interval, and each machine."""
    for data_set in dict.fromkeys(m.data_set for m in machines):
        own = [m for m in machines if m.data_set == data_set]
        clips = [scored_clips(own, scores) for scores in lines.values()]
        drawn = 100 * resampled_scores(clips, np.random.default_rng(0), draws)
        print(f"\n{data_set}: " + " ".join(m.name for m in own))
        for number, (name, scores) in enumerate(lines.items()):
            value, each = figures(own, scores)
            gain = interval(drawn[number] - drawn[0])
            row = " ".join(f"{each[m.name]:6.1f}" for m in own)
            print(f"{name:44s} {value:5.1f}  {gain.low:+5.1f} … {gain.high:+5.1f}  {row}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=Path, required=True, help="simulated machines to learn from")
    parser.add_argument("--noise", type=Path, help="a folder of recordings that are mixed in")
    parser.add_argument("--data", type=Path, action="append", help="what is scored (repeatable)")
    parser.add_argument("--cache", type=Path, default=Path("build/learned_embedder"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--draws", type=int, default=500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    units = [clip for clip in read_dataset([arguments.units]).clips if clip.split == "train"]
    mels = kept_features(arguments.cache, arguments.units.name, units)
    names = [f"{c.machine} {c.section} {c.attributes}" for c in units]
    labels = np.unique(names, return_inverse=True)[1].astype(np.int64)
    print(f"{len(units)} clips of {labels.max() + 1} units", file=sys.stderr)
    noises = None
    if arguments.noise:
        files = sorted(p for p in arguments.noise.rglob("*") if p.suffix in {".wav", ".flac", ".ogg"})
        noises = torch.from_numpy(np.array(kept_features(arguments.cache, arguments.noise.name, files)))
    roots = [root for root in arguments.data or REAL_SETS if root.is_dir()]
    machines = [machine for root in roots for machine in described_set(root, arguments.cache)]
    heard = {m.key: _heard(m, roots, arguments.cache) for m in machines}
    lines = {"rule as shipped": {m.key: joined(m, None, m.heard[VIEW_NAMES[0]], 0.0) for m in machines}}  # type: ignore[arg-type]
    for objective in OBJECTIVES:
        for seed in range(arguments.seeds):
            network = trained(objective, mels, labels, noises, seed, arguments.epochs)
            embedded = {key: (embed(network, own), embed(network, test)) for key, (own, test) in heard.items()}
            fitted = {
                m.key: FittedView.fit(Candidate("learned"), embedded[m.key][0][:, None], m.domains) for m in machines
            }
            lines[f"{objective}, seed {seed}, alone"] = {
                key: view.score(embedded[key][1]) for key, view in fitted.items()
            }
            by_share = {s: {m.key: joined(m, fitted[m.key], embedded[m.key][1], s) for m in machines} for s in SHARES}
            print(f"{objective}, seed {seed}:", file=sys.stderr)
            lines[f"{objective}, seed {seed}, share picked on others"] = picked_elsewhere(machines, by_share)
            lines[f"{objective}, seed {seed}, share 0.1"] = by_share[0.1]
            lines[f"{objective}, seed {seed}, share 0.3"] = by_share[0.3]
    report(machines, lines, arguments.draws)


def _heard(machine: DescribedMachine, roots: list[Path], cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features of a machine's training and test clips, in the order of its vectors."""
    [root] = [root for root in roots if root.name == machine.data_set]
    clips = read_dataset([root]).select(machine=machine.name)
    train = [c for c in clips if c.split == "train" and c.label != "anomaly"]
    return (
        kept_features(cache, f"{machine.data_set}_{machine.name}_train", train),
        kept_features(cache, f"{machine.data_set}_{machine.name}_test", list(machine.test)),
    )


if __name__ == "__main__":
    main()
