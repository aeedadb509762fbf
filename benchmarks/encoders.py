"""What encoders cost: parameters, multiply-accumulates beside the published ones, and the time of a window as a ratio to EAT edge.

    OMP_NUM_THREADS=1 python benchmarks/encoders.py

One thread, weights drawn at random, the fastest of a few windows. Published figures are of their authors, with the classifier and
without the front end.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import torch

from asd_trainer.networks.catalogue import encoder_cost, window_of
from asd_trainer.networks.eat import SIZES
from asd_trainer.networks.encoders.interface import EncoderShape
from asd_trainer.networks.encoders.registry import NAMED, NamedEncoder, build_encoder

RUNS = 7
EAT_PUBLISHED = {"base": (88.0, 43.7), "large": (309.0, 155.0)}
REFERENCE = "eat edge"


def fastest_s(shape: EncoderShape) -> float:
    """Seconds of one window, the fastest of RUNS."""
    encoder = build_encoder(shape).eval()
    encoder.initialise(torch.Generator().manual_seed(0))
    window = window_of(encoder) + 0.05 * torch.randn(
        window_of(encoder).shape, generator=torch.Generator().manual_seed(1)
    )
    times = []
    with torch.inference_mode():
        for _ in range(RUNS):
            start = time.thread_time()
            encoder(window)
            times.append(time.thread_time() - start)
    return min(times)


def main() -> None:
    """Print the table in Markdown."""
    torch.set_num_threads(1)
    rows = {
        f"eat {name}": NamedEncoder(EncoderShape("eat", asdict(size)), *EAT_PUBLISHED.get(name, (None, None)))
        for name, size in SIZES.items()
    }
    rows |= NAMED
    reference_s = fastest_s(rows[REFERENCE].shape)
    print(
        "| encoder | M parameters | published | GMAC a window | published | front end, GMAC | time of a window, EAT edge = 1 |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, row in rows.items():
        cost = encoder_cost(row.shape)
        own = (cost.macs - cost.front_end_macs) / 1e9
        published = [f"{value:g}" if value else "–" for value in (row.published_parameters_m, row.published_gmac)]
        ratio = fastest_s(row.shape) / reference_s
        print(
            f"| {name} | {cost.parameters / 1e6:.2f} | {published[0]} | {own:.2f} | {published[1]} | "
            f"{cost.front_end_macs / 1e9:.2f} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
