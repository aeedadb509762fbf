"""Models that no machine on this box is judged by are neither tried nor opened: a small board has no room for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.errors import BundleError
from asd_daemon.judge.bundle.bundle import Bundle, default_bundle, file_entry, load_bundle
from asd_daemon.judge.scoring import installed_bundles
from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test
from asd_daemon.judge.scoring.installed_bundles import load_or_roll_back
from asd_daemon.judge.scoring.self_test import is_judged_by_models, machines_tried, self_test
from asd_daemon.run.shared_bundle import SharedBundle
from asd_daemon.settings.keys import AlarmSettings
from rig.bundles import read_manifest, write_manifest


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The program's bundle, whole by its manifest, with an embedder that is no model, by which its gearbox is judged."""
    folder = shutil.copytree(default_bundle(), tmp_path_factory.mktemp("spoiled") / "bundle")
    (folder / "embedder.onnx").write_bytes(b"no model")
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["files"]["embedder.onnx"] = file_entry(folder / "embedder.onnx").model_dump(mode="json")
    manifest["machines"]["gearbox"] = manifest["machines"]["gearbox"]["nearest"]
    for reference in manifest["reference"]:
        reference["scores"]["gearbox"] = reference["nearest"].pop("gearbox")
    write_manifest(folder, manifest)
    return load_bundle(folder)


def by_models(bundle: Bundle) -> set[str]:
    return {name for name, machine in bundle.manifest.machines.items() if is_judged_by_models(machine)}


def compared(bundle: Bundle, without: set[str]) -> int:
    """Reference scores that there are, but for some machines."""
    return sum(machine not in without for reference in bundle.manifest.reference for machine in reference.scores)


def test_self_test_leaves_out_machines_judged_by_models_that_are_not_listened_to(spoiled: Bundle) -> None:
    others = by_models(spoiled)
    assert "fan" not in others
    assert "gearbox" in others
    assert self_test(spoiled, extent="judged", listened={"fan"}) == compared(spoiled, others)
    assert bounded_self_test(spoiled, extent="judged", listened={"fan"}) == compared(spoiled, others)
    for listened in (None, others):
        with pytest.raises(BundleError, match=r"embedder\.onnx: onnxruntime can't load this model"):
            self_test(spoiled, extent="judged", listened=listened)


def test_machine_that_is_listened_to_later_has_its_models_tried_then(
    spoiled: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path))
    shared = SharedBundle(spoiled.path, listened={"fan"})
    assert shared.scorer("fan", AlarmSettings()).models == (None, None)
    later = by_models(spoiled).pop()
    with pytest.raises(BundleError, match=r"embedder\.onnx: onnxruntime can't load this model"):
        shared.scorer(later, AlarmSettings())


def test_start_compares_what_is_listened_to_without_a_process(spoiled: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(installed_bundles, "bounded_self_test", lambda *_, **more: tried.append(more["listened"]))
    views = [name for name in spoiled.manifest.machines if name not in by_models(spoiled)]
    assert machines_tried(spoiled, "listened", {"fan"}) == ["fan"]
    assert machines_tried(spoiled, "listened", {"press-3"}) == views[:1], "one that was learned here has no reference"
    assert self_test(spoiled, extent="listened", listened={"press-3"}) == compared(
        spoiled, {*spoiled.machines} - {views[0]}
    )
    assert load_or_roll_back(spoiled.path, listened={"fan"}) == (spoiled, None)
    assert tried == []
    for listened in ({"fan", *by_models(spoiled)}, None):
        load_or_roll_back(spoiled.path, listened=listened)
    load_or_roll_back(spoiled.path, listened={"fan"}, extent="models")
    assert tried == [{"fan", *by_models(spoiled)}, None, {"fan"}]


def test_start_refuses_a_bundle_that_scores_otherwise_here(tmp_path: Path) -> None:
    folder = shutil.copytree(default_bundle(), tmp_path / "bundle")
    manifest: dict[str, Any] = read_manifest(folder)
    for reference in manifest["reference"]:
        reference["scores"]["fan"] = reference["scores"].get("fan", 0) + 1
    write_manifest(folder, manifest)
    with pytest.raises(BundleError, match=r"for fan here, but"):
        load_or_roll_back(folder, listened={"fan"})


def test_self_test_takes_no_more_memory_than_a_small_board_has() -> None:
    code = (
        "import re, sys\n"
        "from asd_daemon.judge.bundle.bundle import default_bundle, load_bundle\n"
        "from asd_daemon.judge.scoring.self_test import self_test\n"
        "assert self_test(load_bundle(default_bundle()), extent='judged', listened={'fan'}) > 0\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert float(said) < 100  # MB; 155 where all machines were tried at once
