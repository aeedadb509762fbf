"""Whether a machine is told better with the separator: changed windows against normal ones, leaving each one out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.distances.nearest_neighbours import leave_one_out, mean_over_bands

F32 = NDArray[np.float32]

GAIN_STANDARD_ERRORS = 2.0  # so many must the gain of a separated view be above nothing


def separation_improves(heard: F32, separated: F32, changed_heard: F32, changed_separated: F32, bands: int = 1) -> bool:
    """Whether d(heard) + d(separated) tells changed windows from normal ones better than d(heard) alone, leaving each one out.

    In doubt it does not: the gain must be twice its standard error over the windows, for the second distance costs a separation and
    an embedding of every window, and harms where it tells nothing.

    Args:
        heard: embeddings (N, D) of normal windows as they were heard.
        separated: of the machine's part of them.
        changed_heard: (F, N, D), as they are heard after each change.
        changed_separated: of the machine's part of these.
        bands: of an embedding, that look for neighbours each by itself.
    """

    def share_told_apart(*pairs: tuple[F32, F32]) -> NDArray[np.float64]:
        """How many normal windows each window's changed copies score above, on average over the changes; (N,) in [0, 1]."""
        normal = np.sum([leave_one_out(bank, bands) for bank, _ in pairs], axis=0)
        above = [
            (
                np.sum([mean_over_bands(_others, bands, bank, changed[kind]) for bank, changed in pairs], axis=0)[
                    :, None
                ]
                > normal
            ).mean(axis=1)
            for kind in range(pairs[0][1].shape[0])
        ]
        return np.asarray(np.mean(above, axis=0), np.float64)

    gain = share_told_apart((heard, changed_heard), (separated, changed_separated)) - share_told_apart(
        (heard, changed_heard)
    )
    return bool(gain.mean() > GAIN_STANDARD_ERRORS * gain.std(ddof=1) / np.sqrt(gain.shape[0]))


def _others(bank: F32, changed: F32) -> F32:
    """Distance (N,) of each changed window to the nearest of the other normal ones."""
    distances = 1 - changed @ bank.T
    np.fill_diagonal(distances, np.inf)
    return np.asarray(np.maximum(distances.min(axis=1), 0), np.float32)
