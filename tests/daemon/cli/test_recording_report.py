"""Whole recordings, judged window by window, with a judge that scores by loudness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asd_daemon.cli.program import cli
from asd_daemon.cli.recording_report import RecordingReport
from asd_daemon.hear.windows.quality import UnfitReason
from asd_daemon.judge.scoring.verdict import HeardHall
from asd_daemon.run.scored_recordings import recording_windows, score_recording
from asd_daemon.waveform import WINDOW_SAMPLES, read_blocks

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Loudness:
    score: float
    threshold: float = 0.2
    operating_state: None = None
    is_off: bool = False

    @property
    def anomalous(self) -> bool:
        return self.score > self.threshold

    @property
    def enrolled(self) -> None:
        return None


class LoudnessJudge:
    def score(self, waveform: F32) -> Loudness:
        assert waveform.shape == (WINDOW_SAMPLES,)
        return Loudness(float(np.sqrt(np.mean(waveform**2))))


def noise(seconds: float, level: float = 0.1) -> F32:
    return np.random.default_rng(0).normal(0, level, round(seconds * 16_000)).astype(np.float32)


def write(path: Path, sound: F32) -> Path:
    soundfile.write(path, sound, 16_000, subtype="PCM_16")
    return path


def lines(path: Path, *, as_json: bool = False, summary: bool = False, hop_s: float = 10.0) -> tuple[list[str], int]:
    report = RecordingReport("fan", as_json=as_json, summary=summary)
    said = [text for text, _ in report.lines(path, score_recording(LoudnessJudge(), path, 0, hop_s))]
    return said, report.refused


@given(
    length=st.integers(1, 700_000),
    hop_s=st.sampled_from([2.5, 5.0, 10.0, 30.0]),
    block=st.sampled_from([7_919, 16_000, 300_000]),
)
def test_windows_cover_a_recording_to_its_end_and_each_begins_where_it_says(
    length: int, hop_s: float, block: int
) -> None:
    sound = np.arange(length, dtype=np.float32)
    pieces = (sound[at : at + block] for at in range(0, length, block))
    found = list(recording_windows(pieces, hop_s))
    for start_s, samples in found:
        assert samples[0] == round(start_s * 16_000)
        assert samples.shape[0] == min(length, WINDOW_SAMPLES)
        assert np.array_equal(samples, sound[int(samples[0]) :][: samples.shape[0]])
    whole = [start_s for start_s, _ in found if (start_s / hop_s).is_integer()]
    assert whole[: len(whole)] == [hop_s * n for n in range(len(whole))]
    if hop_s <= 10:
        assert length - (found[-1][1][0] + found[-1][1].shape[0]) <= 2 * 16_000


def test_long_recording_is_judged_to_its_end_with_the_time_of_each_window(tmp_path: Path) -> None:
    path = write(tmp_path / "night.wav", np.concatenate([noise(75), noise(20, 0.3), noise(8)]))
    said, refused = lines(path, as_json=True)
    found = [json.loads(line) for line in said]
    assert [one["start_s"] for one in found] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 93]
    assert [one["start_s"] for one in found if one["anomalous"]] == [70, 80, 90]
    assert {"path", "machine", "score", "threshold", "anomalous"} < set(found[0])
    assert refused == 0
    said, _ = lines(path)
    assert said[7].startswith("ANOMALOUS")
    assert said[7].endswith("night.wav  at 1:10.0")


def test_summary_is_a_line_a_recording_with_its_worst_window(tmp_path: Path) -> None:
    path = write(tmp_path / "night.wav", np.concatenate([noise(70), np.zeros(160_000, np.float32), noise(20, 0.3)]))
    (line,), _ = lines(path, summary=True)
    assert line.startswith("ANOMALOUS")
    assert "2 of 9 windows anomalous, 1 not usable (silence), the worst at 1:" in line
    (text,), _ = lines(path, summary=True, as_json=True)
    found = json.loads(text)
    assert (found["windows"], found["unusable_windows"], found["unusable"]) == (10, 1, ["silence"])
    assert (found["anomalous"], found["anomalous_windows"], found["anomalous_share"]) == (True, 2, 0.2222)
    assert found["worst_start_s"] in (80, 90)


def test_recording_of_up_to_twelve_seconds_is_one_line_without_a_time(tmp_path: Path) -> None:
    for seconds in (5.0, 9.9, 10.0, 12.0):
        path = write(tmp_path / f"{seconds}.wav", noise(seconds))
        (line,), refused = lines(path)
        assert line.startswith("normal")
        assert line.endswith(path.name)
        assert refused == 0


@pytest.mark.parametrize(
    ("sound", "reason"),
    [
        (noise(0.1), "short"),
        (noise(4.9), "short"),
        (np.pad(noise(8), (0, 32_000)), "silence"),
        (np.pad(noise(9.9), (0, 1_600)), "silence"),
        (np.zeros(160_000, np.float32), "silence"),
        (np.asarray(soxr.resample(noise(10), 16_000, 8_000), np.float32), "band"),
        (np.clip(20 * noise(10), -1, 1), "clipping"),
    ],
)
def test_what_is_not_fit_is_unusable_with_its_reason_and_has_no_score(tmp_path: Path, sound: F32, reason: str) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, sound, 8_000 if reason == "band" else 16_000, subtype="PCM_16")
    said, refused = lines(path, as_json=True)
    found = json.loads(said[0])
    assert (found["score"], found["anomalous"], found["unusable"]) == (None, None, reason)
    assert said[1].startswith(f"error: {path}: not usable: {reason}")
    assert refused == 1


def test_damaged_recording_is_judged_as_far_as_it_goes_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, noise(60), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said, refused = lines(path)
    assert [line.split()[0] for line in said] == ["normal", "normal", "error:"]
    assert refused == 1


def test_recording_is_read_while_it_is_judged(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", noise(600))
    read = 0

    def counted() -> Iterator[F32]:
        nonlocal read
        for block in read_blocks(path):
            read += block.shape[0]
            yield block

    next(recording_windows(counted()))
    assert read < 600 * 16_000 / 10


def test_reasons_are_words_that_are_told_everywhere() -> None:
    assert {reason.value for reason in UnfitReason} >= {"short", "band", "silence", "rate_unknown"}


@dataclass(frozen=True)
class OfTwo(Loudness):
    hall: HeardHall | None = None


class JudgeOfTwo:
    """Judges by the near microphone; a far one above 0.2 drowns it."""

    def score(self, waveform: F32) -> OfTwo:
        assert waveform.shape == (WINDOW_SAMPLES, 2)
        near, far = (float(np.sqrt(np.mean(waveform[:, column] ** 2))) for column in (0, 1))
        return OfTwo(near, hall=HeardHall(far, far > 0.2))


def test_a_recording_of_two_microphones_is_judged_by_both(tmp_path: Path) -> None:
    near, far = noise(26), noise(26, 0.05)
    far[160_000:320_000] *= 6
    path = write(tmp_path / "two.wav", np.stack([far, near], axis=1))
    calm, din, tail = score_recording(JudgeOfTwo(), path, channel=1, far=0)
    assert calm.score == pytest.approx(0.1, rel=0.05)
    assert (din.score, din.unusable) == (None, UnfitReason.HALL)
    assert (tail.start_s, tail.unusable) == (16.0, None)
    short = write(tmp_path / "short.wav", np.stack([noise(6), noise(6)], axis=1))
    [whole] = score_recording(JudgeOfTwo(), short, channel=0, far=1)
    assert whole.seconds == 6.0


def test_the_far_channel_is_another_one(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(6))
    done = CliRunner().invoke(cli, ["score", str(tmp_path), "--machine", "fan", "--channel", "1", "--far", "1"])
    assert done.exit_code == 2
    assert "--far 1 is the machine's own --channel" in done.output
