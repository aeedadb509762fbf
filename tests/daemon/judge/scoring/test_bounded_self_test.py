"""Models of any appetite: each is run before a bundle is used, in a process of its own, within bounds of memory and time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from asd_daemon.errors import BundleError, CannotStartError, UntriedBundleError
from asd_daemon.judge.bundle.bundle import file_entry, load_bundle
from asd_daemon.judge.bundle.manifest import Manifest
from asd_daemon.judge.features.log_mel import EAT_FRAMES, MEL_BINS
from asd_daemon.judge.scoring import bounded_self_test as bounded
from asd_daemon.judge.scoring.bounded_self_test import (
    ResourceBounds,
    bounded_self_test,
    promised_memory_left,
    step_seconds,
)
from asd_daemon.judge.scoring.installed_bundles import install_bundle, load_or_roll_back
from rig.bundles import DIM, add_reference, read_manifest, write_manifest, write_tiny_bundle, write_tiny_separator

LOOP_S = 2.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("bounds") / "tiny", clips=8).path
    add_reference(folder)
    return folder


def with_model(tiny: Path, folder: Path, name: str, write: Any, key: str = "embedder", **bounds: float) -> Path:
    """The bundle with a model of another appetite in one place."""
    shutil.copytree(tiny, folder)
    write(folder / name)
    manifest: dict[str, Any] = read_manifest(folder)
    entry = {"file": name, "precision": "fp32", **bounds}
    manifest[key] = entry if key == "separator" else {**entry, "dim": DIM}
    manifest["files"][name] = file_entry(folder / name).model_dump(mode="json")
    write_manifest(folder, manifest)
    return folder


def saved(file: Path, nodes: list[Any], constants: dict[str, np.ndarray]) -> None:
    """An embedder of these nodes, which make `mean` (B, 128) of `features`."""
    projection = np.random.default_rng(0).normal(size=(MEL_BINS, DIM)).astype(np.float32)
    nodes += [
        helper.make_node("MatMul", ["mean", "projection"], ["projected"]),
        helper.make_node("LpNormalization", ["projected"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "hungry",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", EAT_FRAMES, MEL_BINS])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(array, name) for name, array in {**constants, "projection": projection}.items()],
    )
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(file))


def write_constant_of(gigabytes: float) -> Any:
    """A model that makes a constant of so many GB and adds its mean."""

    def write(file: Path) -> None:
        size = np.array([int(gigabytes * 2**30 / 4)], np.int64)
        nodes = [
            helper.make_node("ReduceMean", ["features", "axes"], ["clip"], keepdims=0),
            helper.make_node("ConstantOfShape", ["size"], ["vast"]),
            helper.make_node("ReduceMean", ["vast"], ["nothing"], keepdims=0),
            helper.make_node("Add", ["clip", "nothing"], ["mean"]),
        ]
        saved(file, nodes, {"size": size, "axes": np.array([1], np.int64)})

    return write


def write_loop(rounds: int) -> Any:
    """A model that goes round so many times before it answers."""

    def write(file: Path) -> None:
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["going"], ["goes_on"]),
                helper.make_node("Add", ["state", "little"], ["state_next"]),
            ],
            "round",
            [
                helper.make_tensor_value_info("round", TensorProto.INT64, []),
                helper.make_tensor_value_info("going", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state_next", TensorProto.FLOAT, None),
            ],
        )
        nodes = [
            helper.make_node("ReduceMean", ["features", "axes"], ["clip"], keepdims=0),
            helper.make_node("Loop", ["rounds", "always", "clip"], ["mean"], body=body),
        ]
        constants = {"axes": np.array([1], np.int64), "rounds": np.array(rounds, np.int64)}
        saved(file, nodes, {**constants, "always": np.array(True), "little": np.array(1e-9, np.float32)})

    return write


def test_every_model_is_run_and_every_reference_score_compared(tiny: Path, tmp_path: Path) -> None:
    assert bounded_self_test(load_bundle(tiny)) == 2
    folder = with_model(tiny, tmp_path / "b", "separator.onnx", write_tiny_separator, "separator")
    assert bounded_self_test(load_bundle(folder)) == 2
    few = with_model(tiny, tmp_path / "few", "other.onnx", write_loop(3), "embedder_fp32")
    assert bounded_self_test(load_bundle(few)) == 2


@pytest.mark.parametrize("key", ["embedder", "embedder_fp32"])
def test_model_of_forty_gigabytes_is_refused_with_a_sentence(tiny: Path, tmp_path: Path, key: str) -> None:
    folder = with_model(tiny, tmp_path / "b", "vast.onnx", write_constant_of(40), key)
    with pytest.raises(BundleError, match=r"vast\.onnx: .*more than the 512 MB that it may take; do not use this"):
        bounded_self_test(load_bundle(folder))


def test_memory_that_the_manifest_asks_for_is_allowed(tiny: Path, tmp_path: Path) -> None:
    folder = with_model(tiny, tmp_path / "b", "large.onnx", write_constant_of(0.6), "embedder_fp32")
    with pytest.raises(BundleError, match=r"large\.onnx"):
        bounded_self_test(load_bundle(folder))
    asks = with_model(tiny, tmp_path / "asks", "large.onnx", write_constant_of(0.6), "embedder_fp32", memory_mb=2500)
    assert bounded_self_test(load_bundle(asks)) == 2


def test_model_that_never_ends_is_refused_with_a_sentence(tiny: Path, tmp_path: Path) -> None:
    bounds = {"window_s": LOOP_S, "load_s": 20}
    folder = with_model(tiny, tmp_path / "b", "endless.onnx", write_loop(2**62), "embedder_fp32", **bounds)
    began_s = time.process_time()
    with pytest.raises(BundleError, match=r"endless\.onnx: a window: takes more CPU time than it may; do not use this"):
        bounded_self_test(load_bundle(folder))
    assert time.process_time() - began_s < 1, "this process only waits"


def test_install_refuses_a_model_that_nothing_is_judged_by(tiny: Path, tmp_path: Path) -> None:
    folder = with_model(tiny, tmp_path / "b", "vast.onnx", write_constant_of(40), "embedder_fp32")
    install_bundle(tiny, tmp_path / "bundles")
    with pytest.raises(BundleError, match=r"vast\.onnx"):
        install_bundle(folder, tmp_path / "bundles")
    assert load_bundle(tmp_path / "bundles" / "current").manifest.embedder_fp32 is None


def test_bounds_are_the_usual_ones_where_the_manifest_says_nothing(tiny: Path) -> None:
    manifest = load_bundle(tiny).manifest
    assert ResourceBounds.of(manifest).memory_bytes == 512 * 2**20 + 5 * manifest.files["embedder.onnx"].bytes
    assert step_seconds(manifest, manifest.embedder, "load") == 60
    assert step_seconds(manifest, None, "window") == 20
    raw: dict[str, Any] = read_manifest(tiny)
    raw["embedder"] |= {"memory_mb": 64, "window_s": 0.5}
    said = Manifest.model_validate(raw)
    assert ResourceBounds.of(said).memory_bytes == 64 * 2**20
    assert step_seconds(said, said.embedder, "window") == 0.5


def test_self_test_that_nobody_waits_for_any_more_ends_at_once(tiny: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    folder = with_model(tiny, tmp_path / "b", "endless.onnx", write_loop(2**62))
    for name in ("current", "previous"):
        (root / "versions" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder if name == "current" else tiny, root / "versions" / name)
        (root / name).symlink_to(f"versions/{name}")
    with pytest.raises(CannotStartError, match="broken off") as told:
        load_or_roll_back(root / "current", is_over=lambda: True)
    assert not isinstance(told.value, BundleError)
    assert os.readlink(root / "current") == "versions/current", "nothing was found out, nothing is taken back"


def killed_by(number: int) -> bool:
    """End the process of the self-test from outside, as soon as it is there; asked as `is_over`."""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            with contextlib.suppress(FileNotFoundError):  # another one that is over by now
                if b"bounded_self_test" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), number)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_self_test_that_the_box_ends_says_nothing_of_the_bundle(tiny: Path, number: int) -> None:
    with pytest.raises(UntriedBundleError, match=r"could not be tried now: its start: (was killed|ended with signal)"):
        bounded_self_test(load_bundle(tiny), is_over=lambda: killed_by(number))


def test_self_test_that_gets_no_time_says_nothing_of_the_bundle(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "START_S", 0.05)
    with pytest.raises(UntriedBundleError, match="its start: is not done after 0 s, for want of CPU time"):
        bounded_self_test(load_bundle(tiny))


def test_bundle_that_can_not_be_tried_at_the_start_stays_current_and_the_one_before_judges(
    tiny: Path, tmp_path: Path
) -> None:
    root = tmp_path / "bundles"
    for name in ("current", "previous"):
        shutil.copytree(tiny, root / "versions" / name)
        (root / name).symlink_to(f"versions/{name}")
    waited: list[bool] = []

    def kills() -> bool:
        waited.append(True)
        return killed_by(signal.SIGKILL)

    found, reason = load_or_roll_back(root / "current", is_over=kills)
    assert waited
    assert found.path.name == "previous"
    assert "could not be tried now" in str(reason)
    assert os.readlink(root / "current") == "versions/current"
    again, reason = load_or_roll_back(root / "current")
    assert (again.path, reason) == (root / "current", None)


@pytest.mark.parametrize(
    ("mode", "words", "left"),
    [
        ("0", "CommitLimit: 100 kB\nCommitted_AS: 90 kB\n", None),
        ("2", "MemFree: 7 kB\nCommitLimit: 100 kB\nCommitted_AS: 90 kB\n", 10 * 1024),
        ("2", "CommitLimit: 100 kB\nCommitted_AS: 190 kB\n", 0),
        ("2", "MemFree: 7 kB\n", None),
    ],
)
def test_memory_that_the_kernel_would_promise(tmp_path: Path, mode: str, words: str, left: int | None) -> None:
    (tmp_path / "sys" / "vm").mkdir(parents=True)
    (tmp_path / "sys" / "vm" / "overcommit_memory").write_text(mode + "\n")
    (tmp_path / "meminfo").write_text(words)
    assert promised_memory_left(tmp_path) == left


def test_memory_that_the_box_refuses_says_nothing_of_the_bundle_and_its_own_bound_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds = ResourceBounds(512 * 2**20)
    assert "do not use" in str(bounded._failure("a.onnx: std::bad_alloc", bounds)["error"])
    monkeypatch.setattr(bounded, "promised_memory_left", lambda: 2**20)
    assert "promises 1 MB more at most" in str(bounded._failure("a.onnx: std::bad_alloc", bounds)["untried"])
    assert bounded._failure("scores 3 here, but 2", bounds) == {"error": "scores 3 here, but 2"}
