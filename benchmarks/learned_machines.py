"""Machines learned from their training clips by the product's code, with the scores of their test clips by every view.

Owns what any rule of joining needs, so that rules can be compared without learning anew; it compares none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from described_machines import DescribedMachine

from asd_daemon.judge.distances.fusion import SPREADS, Candidate, FittedView, Fusion
from asd_daemon.judge.features.views import F32, VIEW_NAMES
from asd_daemon.learn.reference_sounds import reference_vectors
from asd_daemon.learn.view_families import CONTRAST_VIEWS, movement_contrast, moving_share, view_families


@dataclass(frozen=True)
class LearnedMachine:
    """A machine's test clips as views and the rule as shipped score them."""

    described: DescribedMachine
    scores: dict[str, F32]
    """View → (Q,), as the product scores: 1 is the median of normal clips."""
    contrasts: dict[str, float]
    """Moving view → how far sounds of other machines lie in it."""
    shipped: F32
    shipped_share: float

    @classmethod
    def of(cls, machine: DescribedMachine, views: Sequence[str], reference: dict[str, F32]) -> LearnedMachine:
        """Learn a machine; reference: moving view → (K, D), sounds of simulated machines."""
        scores = {
            view: FittedView.fit(Candidate(view), machine.train[view], machine.domains).score(machine.heard[view])
            for view in views
        }
        [own] = CONTRAST_VIEWS
        found = {view: movement_contrast({own: machine.train[view]}, {own: x}) for view, x in reference.items()}
        contrasts = {view: contrast for view, contrast in found.items() if contrast is not None}
        contrast = movement_contrast(machine.train, reference_vectors())
        fusion = Fusion.fit(view_families(VIEW_NAMES, contrast), machine.train, machine.domains)
        contrasts[own] = float(contrast or 0)
        return cls(machine, scores, contrasts, fusion.score(machine.heard), moving_share(contrast))

    @property
    def spreads(self) -> dict[str, F32]:
        """View → (Q,), in spreads of held-out normal clips above their median; not cut off below."""
        return {view: np.asarray(SPREADS * (scores - 1), np.float32) for view, scores in self.scores.items()}

    def joined(self, steady: Sequence[str], moving: Sequence[str], share: float, *, softly: bool = True) -> F32:
        """Scores (Q,) of two families of equally weighted views, the moving one believed by `share`, as the product joins them.

        Without `softly` the families' scores are averaged by their shares.
        """
        groups = [(steady, 1 - share), (moving, share)]
        groups = [(views, believed) for views, believed in groups if views and believed > 0]
        scores = [self.scores[view] for views, _ in groups for view in views]
        numbers = tuple(number for number, (views, _) in enumerate(groups) for _ in views)
        shares = tuple(believed for _, believed in groups)
        if softly:
            weights = tuple(1 / len(views) for views, _ in groups for _ in views)
            return Fusion((), weights, numbers, shares).combine(scores)
        weights = tuple(believed / len(views) for views, believed in groups for _ in views)
        return Fusion((), weights, (0,) * len(scores)).combine(scores)
