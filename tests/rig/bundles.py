"""A bundle small enough to be made for every test: its embedder is the clip's mean log-mel through a fixed random projection.

It is a real bundle (ONNX, banks, calibration, hashes) that `load_bundle` verifies and `Scorer` scores; only its ear is coarse. It tells
spectra apart, so a tone among noise is anomalous.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from asd_daemon.judge.bundle.bundle import MANIFEST, Bundle, Manifest, ModelEntry, file_entry, load_bundle
from asd_daemon.judge.features.log_mel import EAT_FRAMES, FEATURE, MEL_BINS
from asd_daemon.judge.features.views import VIEW_NAMES
from asd_daemon.judge.scoring.scorer import EmbedderSession, FeatureExtractor, Scorer
from asd_daemon.learn.learning import learn
from asd_daemon.learn.machine_files import Bank, write_machine
from asd_daemon.learn.normal_sound import NormalSound
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_SAMPLES, read_waveform

F32 = NDArray[np.float32]
DIM = 16


def healthy_noise(rng: np.random.Generator, tilt: float = 0.0) -> F32:
    """One window of noise whose spectrum falls with `tilt`; its level varies a little from window to window."""
    spectrum = np.fft.rfft(rng.normal(size=WINDOW_SAMPLES))
    spectrum *= np.linspace(1, 0.05, spectrum.shape[0]) ** tilt
    noise = np.fft.irfft(spectrum)
    return np.asarray(noise / np.abs(noise).max() * rng.uniform(0.2, 0.4), np.float32)


def failing_noise(rng: np.random.Generator, tilt: float = 0.0) -> F32:
    """The same with a loud whistle at 3 kHz."""
    t = np.arange(WINDOW_SAMPLES) / 16_000
    whistle = 0.3 * np.sin(2 * np.pi * 3000 * t) + 0.2 * np.sin(2 * np.pi * 4500 * t)
    return np.asarray(healthy_noise(rng, tilt) + whistle, np.float32)


def write_tiny_model(file: Path, seed: int = 0) -> None:
    """Write an ONNX embedder: mean over frames → matrix → unit length."""
    projection = np.random.default_rng(seed).normal(size=(MEL_BINS, DIM)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["features", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "projection"], ["projected"]),
            helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=1, p=2),
        ],
        "tiny",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", EAT_FRAMES, MEL_BINS])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(projection, "projection"), numpy_helper.from_array(np.array([1]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(file))


def write_tiny_separator(file: Path) -> None:
    """Write an ONNX separator that takes the machine for what changes slowly: each sample and the one before it, averaged."""
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["heard", "one"], ["channel"]),
            helper.make_node("Conv", ["channel", "mean"], ["smooth"], pads=[1, 0]),
            helper.make_node("Squeeze", ["smooth", "one"], ["machine"]),
        ],
        "separator",
        [helper.make_tensor_value_info("heard", TensorProto.FLOAT, ["batch", WINDOW_SAMPLES])],
        [helper.make_tensor_value_info("machine", TensorProto.FLOAT, ["batch", WINDOW_SAMPLES])],
        [
            numpy_helper.from_array(np.array([1]), "one"),
            numpy_helper.from_array(np.full((1, 1, 2), 0.5, np.float32), "mean"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save_model(model, str(file))


def write_tiny_bundle(folder: Path, machines: Mapping[str, float] | None = None, clips: int = 24) -> Bundle:
    """Write and load a bundle of machines that sound like `healthy_noise` with the given tilts.

    The machines default to `fan` and `press-3`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tiny_model(folder / "embedder.onnx")
    entry = ModelEntry(file="embedder.onnx", precision="fp32", dim=DIM)
    session = EmbedderSession(folder / "embedder.onnx", entry)
    entries = {}
    for number, (machine, tilt) in enumerate((machines or {"fan": 0.0, "press-3": 1.0}).items()):
        rng = np.random.default_rng(number)
        bank = session.embed_waveforms([healthy_noise(rng, tilt) for _ in range(clips)])
        entries[machine], _ = write_machine(
            folder / "machines" / machine, f"machines/{machine}", Bank(bank, least_graph=2)
        )
    return _finish(folder, schema=1, name="tiny", embedder=entry, machines=entries)


def write_view_bundle(folder: Path, machines: Mapping[str, float] | None = None) -> Bundle:
    """The same without models: its machines are judged by views of 16 windows."""
    folder.mkdir(parents=True, exist_ok=True)
    hearing, entries = FeatureExtractor(None), {}
    for number, (machine, tilt) in enumerate((machines or {"fan": 0.0, "press-3": 1.0}).items()):
        rng = np.random.default_rng(number)
        windows = [hearing.vectors(healthy_noise(rng, tilt), VIEW_NAMES, parts=True) for _ in range(16)]
        learned = learn(NormalSound.from_windows([(own, {}) for own in windows]))
        entries[machine], _ = write_machine(folder / "machines" / machine, f"machines/{machine}", learned=learned)
    return _finish(folder, schema=2, name="views", machines=entries)


def _finish(folder: Path, **told: Any) -> Bundle:
    manifest = Manifest(
        version="1",
        created="2026-01-01T00:00:00Z",
        licence="CC0-1.0",
        made_with={},
        feature=FEATURE,
        window_samples=WINDOW_SAMPLES,
        files={p.relative_to(folder).as_posix(): file_entry(p) for p in sorted(folder.rglob("*")) if p.is_file()},
        **told,
    )
    write_manifest(folder, manifest.model_dump(mode="json", by_alias=True))
    return load_bundle(folder)


def add_reference(folder: Path) -> None:
    """Give a bundle a reference sound with the scores it gets here."""
    (folder / "reference").mkdir()
    file = folder / "reference" / "noise.flac"
    soundfile.write(str(file), healthy_noise(np.random.default_rng(77)), SAMPLE_RATE_HZ, subtype="PCM_16")
    bundle, sound = load_bundle(folder), read_waveform(file)
    scores = {machine: Scorer(bundle, machine).score(sound).score for machine in bundle.machines}
    manifest = read_manifest(folder)
    manifest["reference"] = [{"file": "reference/noise.flac", "scores": scores, "tolerance": 0.005}]
    files = manifest["files"]
    assert isinstance(files, dict)
    files["reference/noise.flac"] = file_entry(file).model_dump(mode="json")
    write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: dict[str, object]) -> None:
    """Write a manifest as it is, right or wrong."""
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, object]:
    """The manifest as plain JSON, to be changed and written back."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert isinstance(manifest, dict)
    return manifest
