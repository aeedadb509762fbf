"""Where a machine's clips lie among each other: embeddings in the plane, coloured by what is known of the clips.

Owns the projection and the choice of groups. It embeds nothing and draws with figures.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from asd_trainer.report.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    SKY,
    VERMILLION,
    Group,
    Picture,
    embedding_map,
    groups_by,
)

if TYPE_CHECKING:
    from asd_trainer.data.clip import Clip

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

FEWEST_FOR_TSNE = 30
TSNE_STEPS = 750
TSNE_COMPONENTS = 50  # t-SNE starts from the leading principal components, as van der Maaten and Hinton (2008) do


@dataclass(frozen=True)
class EmbeddedMachine:
    """Training and test clips of a machine with their embeddings, float32 (N, D)."""

    machine: str
    clips: tuple[Clip, ...]
    embeddings: F32


@dataclass(frozen=True)
class MachineMaps:
    """The maps of a machine, by which method, and the kinds that would have shown one group only."""

    method: str
    pictures: tuple[Picture, ...]
    missing: tuple[str, ...]


def machine_maps(embedded: EmbeddedMachine, rng: np.random.Generator) -> MachineMaps:
    """Draw a machine's clips by label, domain and attributes."""
    points, method = project(embedded.embeddings, rng)
    clips = embedded.clips
    kinds = {
        "label": label_groups(clips),
        "domain": domain_groups(clips),
        "attributes": groups_by(attribute_words(clips)),
    }
    pictures = tuple(
        Picture.of(
            embedding_map(points, groups, f"embeddings by {kind} ({method})"),
            f"Map of {embedded.machine} by {kind}: {_words(groups)}",
        )
        for kind, groups in kinds.items()
        if len(groups) > 1
    )
    return MachineMaps(method, pictures, tuple(kind for kind, groups in kinds.items() if len(groups) <= 1))


def label_groups(clips: Sequence[Clip]) -> tuple[Group, ...]:
    """Training clips pale behind the test clips by their label."""
    words = np.array(["training" if clip.split != "test" else (clip.label or "no label") for clip in clips])
    looks = (("training", GREY, "o"), ("no label", GREEN, "s"), ("normal", BLUE, "o"), ("anomaly", VERMILLION, "X"))
    return tuple(
        Group(w, words == w, colour, marker, faint=w == "training") for w, colour, marker in looks if (words == w).any()
    )


def domain_groups(clips: Sequence[Clip]) -> tuple[Group, ...]:
    """Source and target domain, the few training clips of the target over all others."""
    words = np.array([f"{clip.domain or 'no domain'}, {clip.split}" for clip in clips])
    looks = (
        ("source, train", SKY, "o", True), ("source, test", BLUE, "o", False), ("target, test", VERMILLION, "^", False),
        ("target, train", BLACK, "D", False), ("no domain, train", GREY, "o", True), ("no domain, test", BLUE, "s", False),
    )  # fmt: skip
    return tuple(
        Group(w, words == w, colour, marker, faint) for w, colour, marker, faint in looks if (words == w).any()
    )


def attribute_words(clips: Sequence[Clip]) -> list[str]:
    """Each clip's attributes in words, without those in which all clips are alike."""
    names = dict.fromkeys(name for clip in clips for name, _ in clip.attributes)
    varying = {name for name in names if len({dict(clip.attributes).get(name) for clip in clips}) > 1}
    return [", ".join(f"{n} {v}" for n, v in clip.attributes if n in varying) or "none stated" for clip in clips]


def project(embeddings: F32, rng: np.random.Generator) -> tuple[F64, str]:
    """Embeddings (N, D) onto the plane (N, 2), and by which method: t-SNE, or principal components where clips are few."""
    from sklearn.manifold import TSNE

    count = embeddings.shape[0]
    with threadpool_limits(1):  # some hundred points: threads would wait for each other more than they work
        centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
        left, scale, _ = np.linalg.svd(centred, full_matrices=False)
        components = (left * scale)[:, :TSNE_COMPONENTS]
        if count < FEWEST_FOR_TSNE or scale[0] == 0:  # equal embeddings have no neighbourhoods
            return np.pad(components, ((0, 0), (0, 2)))[:, :2], "PCA"
        start = (components[:, :2] / components[:, 0].std() * 1e-4).astype(np.float32)
        state = int(rng.integers(2**31))
        tsne = TSNE(2, perplexity=min(30.0, count / 4), init=start, max_iter=TSNE_STEPS, random_state=state)
        return np.asarray(tsne.fit_transform(components), np.float64), "t-SNE"


def _words(groups: Sequence[Group]) -> str:
    return ", ".join(f"{group.label} {int(group.members.sum())}" for group in groups)
