"""Trained networks → the model files of a bundle, each compared with torch, quantised within a budget, or fp32 where that is asked for.

Owns the order of these steps and what is noted of them. The separator comes after the embedder that listens: its error is a score's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.bundle.bundle import ModelEntry, SeparatorEntry
from asd_daemon.judge.bundle.onnx_sessions import EmbedderSession, SeparatorSession, embedder_input
from asd_export.accuracy import EmbedderAccuracy, SeparatorAccuracy
from asd_export.graphs import export_embedder
from asd_export.held_out import TestSplit
from asd_export.indexes import Progress
from asd_export.quantize import Budget, Candidate, Omegas, quantize
from asd_export.separators import export_separator
from asd_trainer.evaluate.run_models import NetworkEmbedder
from asd_trainer.networks.embedder import AnyEmbedder
from asd_trainer.networks.frozen import FrozenEmbedder
from asd_trainer.networks.separator import Separator

F32 = NDArray[np.float32]
SEPARATED_CLIPS = 16  # clips on which the int8 separator is measured


@dataclass(frozen=True)
class MeasuredModel:
    """What was tried for one model."""

    torch_difference: float
    """ONNX fp32 against torch: of any component of an embedding, or of any sample as a share of the loudest."""
    candidates: tuple[Candidate, ...] = ()
    """fp32 first; none where fp32 was asked for."""
    chosen: str = "fp32"

    def figures(self) -> dict[str, Any]:
        """For the manifest."""
        return {**asdict(self), "candidates": [asdict(c) for c in self.candidates]}


@dataclass(frozen=True)
class ModelExporter:
    """Where models become files."""

    folder: Path
    fp32: bool
    """Listen with the unquantised models."""
    budget: Budget
    split: TestSplit | None
    """What Ω is measured on; None: it is not."""
    unread: list[str]
    """Clips that can't be read are added here."""
    progress: Progress

    def embedder(self, network: AnyEmbedder, windows: Sequence[F32]) -> tuple[ModelEntry, ModelEntry, MeasuredModel]:
        """Write embedder.fp32.onnx, and embedder.onnx where int8 is wanted: the one that listens, its fp32 twin, what was tried.

        Raises:
            ExportError: ONNX differs from torch, or no int8 model holds its budget.
        """
        hears = NetworkEmbedder(network)
        heard = np.concatenate([embedder_input(hears, window) for window in windows])  # (N, 1024, 128) or (N, 160 000)
        dim, bands = network.dimensions, neighbour_bands(network)
        twin = ModelEntry(file="embedder.fp32.onnx", precision="fp32", dim=dim, bands=bands)
        self.progress("graph", 0, 1)
        difference = export_embedder(network, self.folder / twin.file, heard)
        self.progress("graph", 1, 1)
        if self.fp32:
            return twin, twin, MeasuredModel(difference)
        entry = ModelEntry(file="embedder.onnx", precision="int8", dim=dim, bands=bands)
        yardstick = EmbedderAccuracy(self.folder / twin.file, heard, dim, self.budget, bands)

        def listener(files: Mapping[str, Path]) -> Callable[[F32], Mapping[str, F32]]:
            sessions = {way: yardstick.open(file) for way, file in files.items()}

            def hear(window: F32) -> Mapping[str, F32]:
                sound = embedder_input(hears, window)
                return {way: session.embed(sound) for way, session in sessions.items()}

            return hear

        chosen, candidates = self._quantize("embedder", twin.file, entry.file, yardstick, listener, bands)
        return entry, twin, MeasuredModel(difference, candidates, chosen.way)

    def separator(
        self, network: Separator | None, windows: Sequence[F32], embedder: EmbedderSession, bands: int
    ) -> tuple[SeparatorEntry | None, MeasuredModel | None]:
        """Write separator.onnx, where there is a separator.

        Raises:
            ExportError: ONNX differs from torch, or no int8 model holds its budget.
        """
        if network is None:
            return None, None
        entry = SeparatorEntry(file="separator.onnx", precision="fp32" if self.fp32 else "int8")
        traced = self.folder / (entry.file if self.fp32 else "separator.fp32.onnx")
        self.progress("separator graph", 0, 1)
        difference = export_separator(network, traced, windows)
        self.progress("separator graph", 1, 1)
        if self.fp32:
            return entry, MeasuredModel(difference)

        def embed(window: F32) -> F32:
            (embedding,) = embedder.embed(embedder_input(embedder, window))
            return np.asarray(embedding, np.float32)

        def listener(files: Mapping[str, Path]) -> Callable[[F32], Mapping[str, F32]]:
            sessions = {way: SeparatorSession(file) for way, file in files.items()}

            def hear(window: F32) -> Mapping[str, F32]:
                heard = embed(window)
                return {way: np.stack([heard, embed(session.separate(window))]) for way, session in sessions.items()}

            return hear

        yardstick = SeparatorAccuracy(traced, windows[:SEPARATED_CLIPS], embed, self.budget, bands)
        chosen, candidates = self._quantize("separator", traced.name, entry.file, yardstick, listener, bands)
        traced.unlink()
        return entry, MeasuredModel(difference, candidates, chosen.way)

    def _quantize(
        self,
        name: str,
        fp32: str,
        target: str,
        yardstick: EmbedderAccuracy | SeparatorAccuracy,
        listener: Callable[[Mapping[str, Path]], Callable[[F32], Mapping[str, F32]]],
        bands: int,
    ) -> tuple[Candidate, tuple[Candidate, ...]]:
        def omegas_of(files: Mapping[str, Path]) -> Mapping[str, float]:
            if self.split is None or len(files) < 2:
                return {}
            told = partial(self.progress, f"{name} Ω")
            return self.split.omegas(listener(files), self.unread, told, bands)

        omegas: Omegas = omegas_of
        self.progress(f"{name} int8", 0, 1)
        found = quantize(
            self.folder / fp32,
            self.folder / target,
            yardstick,
            self.budget,
            omegas=omegas,
            holds_omega=self.split is not None and self.split.decides,
            told=lambda n, of: self.progress(f"{name} operators", n, of),
        )
        self.progress(f"{name} int8", 1, 1)
        return found


def neighbour_bands(network: AnyEmbedder) -> int:
    """Equal parts of an embedder's embeddings that look for neighbours each by itself."""
    return network.neighbour_bands if isinstance(network, FrozenEmbedder) else 1
