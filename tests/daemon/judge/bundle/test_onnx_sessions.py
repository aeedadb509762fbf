"""How onnxruntime is told to compute, so that every processor gives the exporter's scores."""

from __future__ import annotations

from pathlib import Path

from asd_daemon.judge.bundle.onnx_sessions import open_embedder
from rig.bundles import write_tiny_bundle


def test_kernels_that_round_int8_otherwise_and_waiting_in_busy_loops_are_off(tmp_path: Path) -> None:
    """Under an imitated arm64 with SME the gearbox of the program's bundle scored 1.4 % off, and its self-test failed."""
    options = open_embedder(write_tiny_bundle(tmp_path / "tiny", clips=8))._session.get_session_options()
    assert options.get_session_config_entry("mlas.disable_kleidiai") == "1"
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
