"""Bundles that know one machine, made from its recordings alone, and sound of that machine well and failing.

The embedder is the tiny one of `bundles`, or one for machines that run steadily, fitted to a few healthy clips; the machine is enrolled
with these clips through the exporter's own functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.simulator.scene import DOMAINS, SceneStream, draw_scene
from asd_daemon.judge.bundle import ModelEntry, default_bundle, file_entry, load_bundle
from asd_daemon.judge.enroll import write_machine
from asd_daemon.judge.mel import EAT_FRAMES, FEATURE, MEL_BINS
from asd_daemon.judge.scorer import EmbedderSession, window_features
from asd_daemon.waveform import WINDOW_SAMPLES, fit_length, read_waveform
from rig.bundles import DIM, write_manifest, write_tiny_model

F32 = NDArray[np.float32]
_FRAMES = 998  # of a window; the rest of EAT_FRAMES is padding


@dataclass(frozen=True)
class Ear:
    """A bundle that knows a machine, and that machine's sound."""

    bundle: Path
    machine: str
    healthy: F32
    """float32 at 16 kHz, at least half a minute."""
    failing: F32
    """The same machine out of order."""


def write_steady_model(file: Path, clips: Sequence[F32]) -> ModelEntry:
    """Write an ONNX embedder for a machine that runs steadily: the median of each mel band over time, its level removed, standardised
    with these clips; a large constant beside it makes the cosine of two embeddings their Euclidean distance, so that 22 clips will do.
    """
    medians = np.stack([np.median(window_features(fit_length(clip))[:_FRAMES], axis=0) for clip in clips])  # (N, M)
    medians -= medians.mean(axis=1, keepdims=True)
    middle, spread = medians.mean(axis=0, dtype=np.float32), medians.std(axis=0, dtype=np.float32)
    constant = np.array([[60.0]], np.float32)
    nodes = [
        helper.make_node("Slice", ["features", "zero", "frames", "axis"], ["heard"]),
        helper.make_node(
            "TopK",
            [
                "heard",
                "half",
            ],
            ["largest", "_"],
            axis=1,
        ),
        helper.make_node("Slice", ["largest", "minus_one", "end", "axis"], ["last"]),
        helper.make_node("Squeeze", ["last", "axis"], ["median"]),
        helper.make_node("ReduceMean", ["median", "axis"], ["level"]),
        helper.make_node("Sub", ["median", "level"], ["shape"]),
        helper.make_node("Sub", ["shape", "middle"], ["off"]),
        helper.make_node("Div", ["off", "spread"], ["standard"]),
        helper.make_node("Mul", ["level", "nothing"], ["zeros"]),
        helper.make_node("Add", ["zeros", "constant"], ["anchor"]),
        helper.make_node("Concat", ["standard", "anchor"], ["point"], axis=1),
        helper.make_node("LpNormalization", ["point"], ["embedding"], axis=1, p=2),
    ]
    numbers = {"zero": 0, "axis": 1, "frames": _FRAMES, "half": _FRAMES // 2, "minus_one": -1, "end": 2**31 - 1}
    held = [numpy_helper.from_array(np.array([value], np.int64), name) for name, value in numbers.items()]
    weights = {"middle": middle, "spread": spread, "constant": constant, "nothing": np.zeros((1, 1), np.float32)}
    held += [numpy_helper.from_array(value, name) for name, value in weights.items()]
    dim = middle.shape[0] + 1
    graph = helper.make_graph(
        nodes,
        "steady",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", EAT_FRAMES, MEL_BINS])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(file))
    return ModelEntry(file=file.name, precision="fp32", dim=dim)


def enrol(folder: Path, machine: str, clips: Sequence[F32], entry: ModelEntry) -> Path:
    """Make a bundle of the folder with the embedder in it: it knows one machine from healthy windows."""
    session = EmbedderSession(folder / entry.file, entry)
    bank = session.embed_waveforms([fit_length(clip) for clip in clips])
    known, _ = write_machine(folder / "machines" / machine, f"machines/{machine}", bank, bank[:0])
    files = {p.relative_to(folder).as_posix(): file_entry(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    write_manifest(
        folder,
        {
            "schema": 1,
            "name": f"enrolled-{machine}",
            "version": "1",
            "created": "2026-01-01T00:00:00Z",
            "licence": "for tests only",
            "made_with": {},
            "feature": FEATURE.model_dump(mode="json"),
            "window_samples": WINDOW_SAMPLES,
            "embedder": entry.model_dump(mode="json"),
            "machines": {machine: known.model_dump(mode="json")},
            "files": {name: file.model_dump(mode="json") for name, file in files.items()},
        },
    )
    load_bundle(folder)
    return folder


def simulated_fan(folder: Path, seed: int = 11) -> Ear:
    """A simulated fan, known to the bundle that comes with the program, or enrolled where there is none yet."""
    machine = SimulatedMachine("fan")
    rng = np.random.default_rng(seed)
    scene = draw_scene(DOMAINS["fan"]["source"], rng)
    stream = SceneStream(machine, scene, rng, block_s=40)
    healthy = next(stream)
    stream.fail("rubbing")
    failing = next(stream)
    if default_bundle().is_dir():
        return Ear(default_bundle(), "fan", healthy, failing)
    clips = [SceneStream(machine, scene, rng, block_s=10).read(WINDOW_SAMPLES) for _ in range(24)]
    folder.mkdir(parents=True)
    write_tiny_model(folder / "embedder.onnx")
    entry = ModelEntry(file="embedder.onnx", precision="fp32", dim=DIM)
    return Ear(enrol(folder, "fan", clips, entry), "fan", healthy, failing)


def real_lathe(folder: Path, realbench: Path) -> Ear:
    """The lathe of realbench: enrolled with the clips of its training split, heard with the first of its test split."""
    raw = realbench / "dev_data" / "raw" / "lathe"
    train = [read_waveform(path) for path in sorted((raw / "train").glob("*.flac"))]
    folder.mkdir(parents=True)
    entry = write_steady_model(folder / "embedder.onnx", train)
    normal, anomalous = (sorted((raw / "test").glob(f"*_{label}_*.flac"))[:4] for label in ("normal", "anomaly"))
    healthy, failing = (np.concatenate([read_waveform(p) for p in paths]) for paths in (normal, anomalous))
    return Ear(enrol(folder, "lathe", train, entry), "lathe", healthy, failing)
