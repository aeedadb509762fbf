"""Judging and learning from Python against the programs: the same sound gets the same scores, and what is no sound is refused in words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from numpy.typing import NDArray

import asd_edge
from asd_daemon.cli.program import cli
from asd_daemon.errors import DataSetError, RecordingError, UnknownMachineError, UsageError
from asd_daemon.hear.windows.quality import UnfitReason


def daemon(*words: str | Path) -> list[dict[str, object]]:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return [json.loads(line) for line in done.stdout.splitlines()]


def facts(windows: Sequence[asd_edge.ScoredWindow]) -> list[tuple[object, ...]]:
    return [(round(w.start_s, 3), w.anomalous, str(w.unusable) if w.unusable else None) for w in windows]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize(("rate_hz", "hop_s"), [(16_000, 10.0), (44_100, 10.0), (48_000, 4.0)])
def test_scores_of_an_array_are_those_of_the_program(tmp_path: Path, state: Path, rate_hz: int, hop_s: float) -> None:
    sound = resampled(asd_edge.simulate("fan", 27, failure="rubbing", fail_after=12), rate_hz)
    sound[: 10 * rate_hz] *= 0  # a window of silence, then a healthy and a failing one
    file = tmp_path / "recording.wav"
    soundfile.write(file, sound, rate_hz, subtype="FLOAT")
    rows = daemon("score", file, "--machine", "fan", "--json", "--hop", str(hop_s))
    fan = asd_edge.open_machine(asd_edge.load_bundle(), "fan")
    for windows in (fan.score(sound, rate_hz, hop_s=hop_s), list(fan.score_file(file, hop_s=hop_s))):
        assert facts(windows) == [(row["start_s"], row["anomalous"], row["unusable"]) for row in rows]
        for window, row in zip(windows, rows, strict=True):
            assert window.score == (None if row["score"] is None else pytest.approx(row["score"], rel=1e-4))
            assert window.threshold == row["threshold"]
    assert rows[0]["unusable"] == "silence"
    assert rows[-1]["anomalous"]


def resampled(sound: NDArray[np.float32], rate_hz: int) -> NDArray[np.float64]:
    """By the spectrum, which no library of the product does: up from 16 kHz."""
    spectrum = np.fft.rfft(sound)
    count = sound.shape[0] * rate_hz // 16_000
    return np.asarray(np.fft.irfft(spectrum, count) * count / sound.shape[0], np.float64)


def test_a_learned_machine_is_the_same_to_python_and_to_the_programs(tmp_path: Path, state: Path) -> None:
    healthy = asd_edge.simulate("slider", 200, serial=7, seed=3)
    (tmp_path / "healthy").mkdir()
    for number, part in enumerate(np.split(healthy, 4)):
        soundfile.write(tmp_path / "healthy" / f"{number}.wav", part, 16_000, subtype="FLOAT")
    said: list[str] = []
    bundle, files = asd_edge.load_bundle(), sorted((tmp_path / "healthy").iterdir())
    sounds: list[NDArray[np.float32] | Path] = [np.zeros(160_000, np.float32), healthy[:1_600_000], *files[2:]]
    result = asd_edge.enrol(bundle, "press", sounds, state / "enrolled", on_message=said.append)
    assert "a window was not usable: silence" in said
    assert result.record.windows == 20
    ill = asd_edge.simulate("slider", 10, failure="rail_damage", serial=7)
    soundfile.write(tmp_path / "ill.wav", ill, 16_000, subtype="FLOAT")
    (row,) = daemon("score", tmp_path / "ill.wav", "--machine", "press", "--json")
    (window,) = asd_edge.open_machine(bundle, "press", learned=state / "enrolled").score(ill)
    assert window.score == pytest.approx(row["score"])
    assert window.anomalous is row["anomalous"] is True
    (learned,) = daemon("enroll", "--machine", "press-too", "--source", f"folder:{tmp_path / 'healthy'}", "--json")
    assert learned["windows"] == 20
    assert learned["threshold"] == pytest.approx(result.threshold, rel=1e-4)
    with pytest.raises(UsageError, match="was learned here"):
        asd_edge.enrol(bundle, "press", sounds, state / "enrolled")


def test_what_can_not_be_learned_leaves_nothing(tmp_path: Path) -> None:
    bundle = asd_edge.load_bundle()
    with pytest.raises(DataSetError, match="1 usable windows of 10 s were heard, at least 16 are needed.*2 silence"):
        asd_edge.enrol(bundle, "press", [asd_edge.simulate("fan"), np.zeros(320_000)], tmp_path)
    with pytest.raises(UnknownMachineError, match="press"):
        asd_edge.open_machine(bundle, "press", learned=tmp_path)
    with pytest.raises(UsageError, match="machine '../press': a name is"):
        asd_edge.enrol(bundle, "../press", [], tmp_path)
    with pytest.raises(RecordingError, match=r"none\.wav"):
        asd_edge.enrol(bundle, "press", [tmp_path / "none.wav"], tmp_path)


@pytest.mark.parametrize(
    ("sound", "rate_hz", "message"),
    [
        (np.zeros(16_000, np.int16), 16_000, "sound is int16: give floating point"),
        (np.zeros((2, 16_000)), 16_000, r"shape \(2, 16000\)"),
        (np.zeros(0), 16_000, r"shape \(0,\)"),
        (np.float32(1), 16_000, r"shape \(\)"),
        (np.zeros(80_000), 8_000, "rate_hz is 8000"),
        (np.zeros(80_000), float("nan"), "rate_hz is nan"),
    ],
)
def test_what_is_no_sound_is_refused_in_words(sound: NDArray[np.float64], rate_hz: float, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        asd_edge.to_waveform(sound, rate_hz)


def test_samples_that_are_not_finite_make_a_window_unusable_and_no_score() -> None:
    sound = asd_edge.simulate("fan", 20)
    sound[1000] = np.nan
    spoiled, healthy = asd_edge.open_machine(asd_edge.load_bundle(), "fan").score(sound)
    assert (spoiled.score, spoiled.unusable) == (None, UnfitReason.NOT_FINITE)
    assert healthy.score is not None


def test_an_edge_box_without_torch_has_all_that_it_can_do_and_is_told_what_it_lacks() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "scipy", "sklearn", "onnx")))
import asd_edge
fan = asd_edge.open_machine(asd_edge.load_bundle(), "fan")
assert fan.score(asd_edge.simulate("fan"))[0].anomalous is False
try:
    asd_edge.evaluate
except ImportError as e:
    print(e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "asd_edge.evaluate needs torch: pip install 'asd-edge[train]'"
