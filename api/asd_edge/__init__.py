"""asd-edge from Python: load a bundle, judge sound, learn a machine, go through data sets, embed, evaluate and compare.

A thin face over the packages that the programs are made of: what it gives is what `asd-daemon` and `asd-train` do, with their types. It
holds no arithmetic of its own. These names stay while the first number of the version does; whatever else is imported from
`asd_daemon`, `asd_trainer` and `asd_export` may move.

Sound is float32 in [-1, 1], mono, (N,), at any rate of 14 kHz or more; it is judged at 16 kHz in windows of 10 s. Scores are 0 and up,
higher is more abnormal. Every error is an `AsdError` whose message says what, which value, where, and what to do.

Sources: Zhong, Wang and Du, DCASE 2025 Challenge Task 2 (the nearest neighbour of embeddings as score); Nishida et al., arXiv 2506.10097
(the official score Ω); Efron and Tibshirani, 1993 (the paired bootstrap).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asd_daemon.errors import AsdError
from asd_edge.listening import Machine, enrol, load_bundle, open_machine, to_waveform, window_vectors
from asd_edge.simulation import simulate

if TYPE_CHECKING:
    from asd_daemon.judge.bundle.bundle import Bundle
    from asd_daemon.run.scored_recordings import ScoredWindow
    from asd_edge.research import compare, embed, evaluate, read_dataset, score_clips, write_vectors
    from asd_trainer.data.dataset import Clip, ClipTable, load_clip
    from asd_trainer.evaluate.backend import ScoredClip
    from asd_trainer.evaluate.clip_vectors import ClipVectors

__all__ = [
    "AsdError",
    "Bundle",
    "Clip",
    "ClipTable",
    "ClipVectors",
    "Machine",
    "ScoredClip",
    "ScoredWindow",
    "compare",
    "embed",
    "enrol",
    "evaluate",
    "load_bundle",
    "load_clip",
    "open_machine",
    "read_dataset",
    "score_clips",
    "simulate",
    "to_waveform",
    "window_vectors",
    "write_vectors",
]

_FOUND_IN = {  # imported when they are asked for: an edge box has no torch, and need not wait for it
    "Bundle": "asd_daemon.judge.bundle.bundle",
    "ScoredWindow": "asd_daemon.run.scored_recordings",
    "Clip": "asd_trainer.data.dataset",
    "ClipTable": "asd_trainer.data.dataset",
    "load_clip": "asd_trainer.data.dataset",
    "ScoredClip": "asd_trainer.evaluate.backend",
    "ClipVectors": "asd_trainer.evaluate.clip_vectors",
    **dict.fromkeys(
        ("compare", "embed", "evaluate", "read_dataset", "score_clips", "write_vectors"), "asd_edge.research"
    ),
}


def __getattr__(name: str) -> Any:
    module = _FOUND_IN.get(name)
    if module is None:
        raise AttributeError(f"module 'asd_edge' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as e:
        raise ImportError(f"asd_edge.{name} needs {e.name}: pip install 'asd-edge[train]'") from e


def __dir__() -> list[str]:
    return sorted(__all__)
