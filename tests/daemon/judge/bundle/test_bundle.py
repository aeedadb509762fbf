"""A bundle is trusted only when every byte is what its manifest says."""

from __future__ import annotations

import json
import mmap
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asd_daemon.errors import BundleError, UnknownMachineError
from asd_daemon.judge.bundle.bundle import FileEntry, Manifest, file_entry, load_bundle
from asd_daemon.judge.distances.nearest_neighbours import ExactIndex
from rig.bundles import read_manifest, write_manifest, write_tiny_bundle


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").path


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_load_bundle_whole_is_loaded(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert loaded.machines == ("fan", "press-3")
    assert loaded.bank("fan").shape == (24, 16)
    assert loaded.calibration("fan").clips == 24


def test_bank_is_mapped_into_memory_and_searched_where_it_lies(bundle: Path) -> None:
    bank = load_bundle(bundle).bank("fan")
    assert isinstance(bank.base, np.memmap | mmap.mmap)
    assert not bank.flags.writeable
    distances, positions = ExactIndex(bank).nearest(bank[:3])
    np.testing.assert_array_equal(positions[:, 0], [0, 1, 2])
    np.testing.assert_allclose(distances, 0, atol=1e-6)


def test_load_bundle_missing_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="asd-export RUN"):
        load_bundle(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["embedder.onnx", "machines/fan/bank.npy", "machines/fan/calibration.json"])
def test_load_bundle_truncated_file_is_refused(bundle: Path, name: str) -> None:
    file = bundle / name
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BundleError, match=f"{name}: has .* bytes, the manifest says"):
        load_bundle(bundle)


def test_load_bundle_changed_byte_is_refused(bundle: Path) -> None:
    file = bundle / "machines/fan/bank.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError, match=r"bank\.npy: does not have the SHA-256"):
        load_bundle(bundle)


def test_load_bundle_missing_file_is_refused(bundle: Path) -> None:
    (bundle / "machines/press-3/calibration.json").unlink()
    with pytest.raises(BundleError, match=r"press-3/calibration\.json: is missing"):
        load_bundle(bundle)


def test_load_bundle_newer_schema_says_update(bundle: Path) -> None:
    write_manifest(bundle, {**read_manifest(bundle), "schema": 4})
    with pytest.raises(BundleError, match="schema: 4 is newer than this asd-daemon reads"):
        load_bundle(bundle)


def test_load_bundle_other_feature_is_refused(bundle: Path) -> None:
    manifest: dict[str, Any] = read_manifest(bundle)
    manifest["feature"]["hop_samples"] = 320
    write_manifest(bundle, manifest)
    with pytest.raises(BundleError, match=r"feature\.hop_samples: 320, but this asd-daemon computes 160"):
        load_bundle(bundle)


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc/passwd", "a/../../b", "machines\\fan", "", "a//b", "./a"])
def test_load_bundle_path_that_leaves_the_bundle_is_refused(bundle: Path, path: str) -> None:
    manifest: dict[str, Any] = read_manifest(bundle)
    manifest["embedder"]["file"] = path
    manifest["files"][path] = manifest["files"]["embedder.onnx"]
    write_manifest(bundle, manifest)
    with pytest.raises(BundleError, match="plain path inside the bundle|embedder"):
        load_bundle(bundle)


def test_load_bundle_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    (bundle / "embedder.onnx").rename(outside)
    (bundle / "embedder.onnx").symlink_to(outside)
    with pytest.raises(BundleError, match="leads out of the bundle"):
        load_bundle(bundle)


def test_load_bundle_file_without_a_hash_is_refused(bundle: Path) -> None:
    manifest: dict[str, Any] = read_manifest(bundle)
    del manifest["files"]["embedder.onnx"]
    write_manifest(bundle, manifest)
    with pytest.raises(BundleError, match=r"embedder\.onnx is used but not listed"):
        load_bundle(bundle)


def test_bank_of_another_shape_is_refused(bundle: Path) -> None:
    file = bundle / "machines/fan/bank.npy"
    np.save(file, np.zeros((16, 24), np.float32))
    manifest: dict[str, Any] = read_manifest(bundle)
    manifest["files"]["machines/fan/bank.npy"] = file_entry(file).model_dump()
    write_manifest(bundle, manifest)
    with pytest.raises(BundleError, match=r"holds float32 \(16, 24\), the manifest says float32 \(24, 16\)"):
        load_bundle(bundle).bank("fan")


def test_bank_of_another_size_is_refused_before_it_is_loaded(bundle: Path) -> None:
    manifest: dict[str, Any] = read_manifest(bundle)
    manifest["machines"]["fan"]["vectors"] = 19_000_000
    write_manifest(bundle, manifest)
    with pytest.raises(BundleError, match=r"bank\.npy: has \d+ bytes, which float32 \(19000000, 16\) can't have"):
        load_bundle(bundle).bank("fan")


def test_bank_that_is_a_pickle_is_refused(bundle: Path) -> None:
    file = bundle / "machines/fan/bank.npy"
    np.save(file, np.array([{"a": "b" * 1536}], dtype=object), allow_pickle=True)
    manifest: dict[str, Any] = read_manifest(bundle)
    manifest["files"]["machines/fan/bank.npy"] = file_entry(file).model_dump()
    write_manifest(bundle, manifest)
    with pytest.raises(BundleError, match="is not a readable array"):
        load_bundle(bundle).bank("fan")


def test_machine_unknown_lists_the_known(bundle: Path) -> None:
    with pytest.raises(UnknownMachineError, match="knows no machine 'pump'; it knows fan, press-3"):
        load_bundle(bundle).machine("pump")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def paths_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key path of a JSON value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at] + [path for key, child in children for path in paths_in(child, (*at, key))]


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_load_bundle_fuzzed_manifest_is_read_or_refused(original: Path, data: st.DataObject) -> None:
    manifest = read_manifest(original)
    path = data.draw(st.sampled_from(paths_in(manifest)[1:]))
    node: Any = manifest
    for key in path[:-1]:
        node = node[key]
    if data.draw(st.booleans()):
        node[path[-1]] = data.draw(json_values)
    else:
        del node[path[-1]]
    text = json.dumps(manifest).encode()
    try:
        parsed = Manifest.parse(text, original / "manifest.json")
    except BundleError as e:
        assert "manifest.json" in str(e)
    else:
        assert all(isinstance(entry, FileEntry) for entry in parsed.files.values())


@given(text=st.binary(max_size=200))
def test_manifest_any_bytes_are_read_or_refused(text: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.parse(text, Path("manifest.json"))
