"""Manifests spoiled by chance: a bundle is read whole or refused, nothing outside it is opened, nothing crashes.

ASD_BUNDLE_CASES=10000 makes the long form.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asd_daemon.errors import BundleError, UnknownMachineError
from asd_daemon.judge.bundle.bundle import load_bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.judge.scoring.self_test import self_test
from rig.bundles import add_reference, healthy_noise, read_manifest, write_tiny_bundle

CASES = int(os.environ.get("ASD_BUNDLE_CASES", "150"))
DECOYS = (
    "../outside.onnx",
    "machines/../../outside.onnx",
    "/etc/passwd",
    "way-out/outside.onnx",
    "way-out",
    "nul\0",
    "a" * 300,
)

FILES = ("embedder.onnx", "machines/fan/bank.npy", "machines/fan/calibration.json", "reference/noise.flac")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(DECOYS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)

opened: list[str] = []
_watched: list[bool] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watched and isinstance(arguments[0], str | bytes):
        opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def watched() -> Iterator[None]:
    """Note every file that Python opens meanwhile."""
    opened.clear()
    _watched.append(True)
    try:
        yield
    finally:
        _watched.pop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a link that leads out of it, and a model outside."""
    root = tmp_path_factory.mktemp("damage")
    write_tiny_bundle(root / "bundle", {"fan": 0.0}, clips=8)
    add_reference(root / "bundle")
    shutil.copyfile(root / "bundle" / "embedder.onnx", root / "outside.onnx")
    (root / "bundle" / "way-out").symlink_to(root)
    return root / "bundle"


def paths_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key path of a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] + [path for key, child in children for path in paths_in(child, (*at, key))]


def spoil(manifest: dict[str, Any], data: st.DataObject) -> None:
    """Change, delete, rename or exchange something of it."""
    path = data.draw(st.sampled_from(paths_in(manifest)[1:]))
    node: Any = manifest
    for key in path[:-1]:
        node = node[key]
    kind = data.draw(st.sampled_from(["value", "delete", "decoy", "number", "key"]))
    if kind == "value":
        node[path[-1]] = data.draw(json_values)
    elif kind == "delete":
        del node[path[-1]]
    elif kind == "decoy":
        node[path[-1]] = data.draw(st.sampled_from([*DECOYS, *FILES]))
    elif kind == "number":
        node[path[-1]] = data.draw(st.sampled_from([0, -1, 1, 2**31, 2**63, 10**400, 1e308, 0.5]))
    elif isinstance(node, dict):
        node[data.draw(st.sampled_from(DECOYS) | st.text(max_size=12))] = node.pop(path[-1])


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_spoiled_manifest_is_read_whole_or_refused(folder: Path, data: st.DataObject) -> None:
    original = read_manifest(folder)
    manifest: dict[str, Any] = json.loads(json.dumps(original))
    for _ in range(data.draw(st.integers(1, 3))):
        spoil(manifest, data)
    text = json.dumps(manifest)
    try:
        (folder / "manifest.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        with watched():
            try:
                bundle = load_bundle(folder)
                self_test(bundle)
                for machine in bundle.machines:
                    score = Scorer(bundle, machine).score(healthy_noise(np.random.default_rng(0))).score
                    assert 0 <= score < 10
            except (BundleError, UnknownMachineError) as e:
                assert str(folder) in str(e) or "bundle" in str(e)
        inside = str(folder.resolve())
        strange = [
            name for name in opened if not str(Path(name).resolve()).startswith((inside, sys.prefix, sys.base_prefix))
        ]
        assert not strange, strange
    finally:
        (folder / "manifest.json").write_text(json.dumps(original), encoding="utf-8")


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_spoiled_file_with_its_right_hash_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    from asd_daemon.judge.bundle.bundle import file_entry

    original = read_manifest(folder)
    name = data.draw(st.sampled_from(FILES))
    file = folder / name
    content = file.read_bytes()
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoiled) - 1))
        spoiled[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try:
        file.write_bytes(spoiled)
        manifest: dict[str, Any] = json.loads(json.dumps(original))
        manifest["files"][name] = file_entry(file).model_dump(mode="json")
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        try:
            bundle = load_bundle(folder)
            self_test(bundle)
        except BundleError as e:
            assert "\n" not in str(e)
    finally:
        file.write_bytes(content)
        (folder / "manifest.json").write_text(json.dumps(original), encoding="utf-8")


@pytest.mark.parametrize(
    "header", [b"{", b"['", b"(", b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 8), }  ["]
)
def test_array_whose_header_is_broken_text_is_refused(tmp_path: Path, header: bytes) -> None:
    """NumPy reads the header as Python and lets its tokenizer's errors through."""
    folder = tmp_path / "tiny"
    write_tiny_bundle(folder)
    bundle = load_bundle(folder)
    bank = bundle.folder("fan") / "bank.npy"
    content = bytearray(bank.read_bytes())
    length = int.from_bytes(content[8:10], "little")
    content[10 : 10 + length] = header[:length].ljust(length)
    bank.write_bytes(content)
    with pytest.raises(BundleError, match="is not a readable array"):
        bundle.bank("fan")
