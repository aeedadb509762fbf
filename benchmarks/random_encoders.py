"""What a frozen encoder whose weights were drawn at random tells, beside its front end without it: Ω by the nearest normal neighbour.

    OMP_NUM_THREADS=1 python benchmarks/random_encoders.py DATA… [--encoder ced-tiny] [--seeds 2]

Says nothing of released weights: it is the floor that these have to be above. Each clip goes through an encoder once; poolings and
standardising are tried on its tokens. The front end's log-mel is pooled as tokens of one channel are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_trainer.data.dataset import load_clip, read_dataset, training_clips
from asd_trainer.evaluate.backend import scores_of
from asd_trainer.evaluate.evaluation import machine_results, omega
from asd_trainer.networks.encoders.patch_transformer import PatchTransformer
from asd_trainer.networks.encoders.registry import NAMED, build_encoder
from asd_trainer.networks.frozen import FrozenPooling, pool_over_time

F32 = NDArray[np.float32]
POOLINGS: tuple[FrozenPooling, ...] = ("mean", "statistics", "rdp", "quantiles")
GAMMA, POWER, FLOOR = 8.0, 3.0, 1e-4


def pooled(tokens: Tensor) -> dict[FrozenPooling, F32]:
    """Each pooling of the tokens (1, T, F, C) of a clip."""
    return {each: pool_over_time(tokens, each, POWER, GAMMA).flatten().numpy() for each in POOLINGS}


def heard(name: str, seeds: int, waveform: F32) -> Iterator[tuple[str, dict[FrozenPooling, F32]]]:
    """What the front end and each random encoder make of a clip."""
    window = torch.from_numpy(waveform)[None]
    for seed in range(seeds):
        encoder = ENCODERS.setdefault((name, seed), fresh(name, seed))
        mel = encoder.front_end(window)
        if seed == 0:
            yield f"{name}: front end alone", pooled(mel[..., None])
        yield f"{name}: random, seed {seed}", pooled(encoder.encode(mel)[-1])


def fresh(name: str, seed: int) -> PatchTransformer:
    """An encoder with weights drawn at random."""
    encoder = build_encoder(NAMED[name].shape).eval()
    encoder.initialise(torch.Generator().manual_seed(seed))
    return encoder  # type: ignore[return-value]  # all with a front end have the same face


ENCODERS: dict[tuple[str, int], PatchTransformer] = {}


def main() -> None:
    """Print one table a data set, in Markdown."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("data", nargs="+", type=Path)
    asked.add_argument("--encoder", action="append")
    asked.add_argument("--seeds", type=int, default=2)
    options = asked.parse_args()
    torch.set_num_threads(1)
    for root in options.data:
        table = read_dataset([root])
        train, test = training_clips(table), table.select(split="test")
        found: dict[str, dict[FrozenPooling, list[F32]]] = {}
        with torch.inference_mode():
            for clip in (*train, *test):
                waveform = load_clip(clip)
                for name in options.encoder or ["ced-tiny"]:
                    for what, vectors in heard(name, options.seeds, waveform):
                        for pooling, vector in vectors.items():
                            found.setdefault(what, {}).setdefault(pooling, []).append(vector)
        print(f"\n{root.name}: {len(train)} training clips, {len(test)} test clips; Ω, as it is / standardised\n")
        print("| |" + "|".join(POOLINGS) + "|\n|---|" + "---|" * len(POOLINGS))
        for what, by_pooling in found.items():
            cells = []
            for pooling in POOLINGS:
                rows = np.stack(by_pooling[pooling])
                own = rows[: len(train)]
                scaled = (rows - own.mean(axis=0)) / own.std(axis=0).clip(FLOOR)
                omegas = []
                for each in (rows, scaled):
                    unit = each / np.linalg.norm(each, axis=1, keepdims=True)
                    omegas.append(100 * omega(machine_results(scores_of(train, test, unit.astype(np.float32)).test)))
                cells.append(" / ".join(f"{each:.1f}" for each in omegas))
            print(f"| {what} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
