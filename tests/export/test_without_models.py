"""`asd-export -`: recordings become a bundle that needs no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from asd_daemon.judge.bundle.bundle import load_bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.waveform import read_waveform
from rig.exports import export
from rig.recordings import write_recordings

pytestmark = pytest.mark.torch


def test_recordings_alone_become_a_bundle_that_tells_failing_sound(tmp_path: Path) -> None:
    data = write_recordings(tmp_path / "data", {"fan": 0.0}, train=20)
    done = export("-", tmp_path / "bundle", "--data", data, "--score", "views", "--name", "plant")
    assert done.exit_code == 0, done.output
    assert "no model: machines are judged by views" in done.stdout
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.embedder is None
    assert not list(bundle.path.rglob("*.onnx")) + list(bundle.path.rglob("bank.npy"))
    scorer = Scorer(bundle, "fan")
    failing, healthy = (
        [scorer.score(read_waveform(file)).score for file in sorted(data.glob(f"fan/test/*{label}*"))]
        for label in ("anomaly", "normal")
    )
    assert min(failing) > max(healthy)


@pytest.mark.parametrize("words", [(), ("--score", "views"), ("--data", ".")])
def test_without_a_run_there_must_be_recordings_and_views(words: tuple[str, ...], tmp_path: Path) -> None:
    done = export("-", tmp_path / "bundle", *words)
    assert done.exit_code == 2
    assert "needs --data and --score views" in done.output
