"""Sources by their words; recordings and simulated machines as sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import RecordingError, SourceError, UsageError
from asd_daemon.hear.opening import open_source
from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.hear.source import Block, ScriptedSource, SourceLost, UnreadableRecording
from asd_daemon.hear.source_spec import SourceSpec, parse_source
from asd_daemon.hear.sources.recordings import PlaybackClock


def tone(seconds: float, rate_hz: int = 16_000) -> NDArray[np.float32]:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)


def sound_of(words: str) -> NDArray[np.float32]:
    blocks = [heard.samples for heard in open_source(parse_source(words)).events() if isinstance(heard, Block)]
    return np.concatenate(blocks)


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        ("device:USB Mic: Audio (hw:1,0)", SourceSpec("device", "USB Mic: Audio (hw:1,0)")),
        ("device:asdmic?rate_hz=48000&channel=1", SourceSpec("device", "asdmic", {"rate_hz": "48000", "channel": "1"})),
        ("command:sh -c 'a?b=c'", SourceSpec("command", "sh -c 'a?b=c'")),
        ("simulate:fan?fail=blade_chip&load=50", SourceSpec("simulate", "fan", {"fail": "blade_chip", "load": "50"})),
    ],
)
def test_parse_source_when_right_gives_kind_target_options(words: str, spec: SourceSpec) -> None:
    assert parse_source(words) == spec
    assert str(spec) == words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("fan", "must be device:NAME"),
        ("device:", "must be device:NAME"),
        ("microphone:x", "must be device:NAME"),
        ("device:x?rate=3", "unknown option 'rate'; device can have channel, far, far_device, rate_hz"),
        ("simulate:fan?fail", "option=value"),
    ],
)
def test_parse_source_when_wrong_says_what_can_be(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_source(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("device:x?channel=1.5", "whole number"),
        ("device:x?channel=-1", "0 to 63"),
        ("device:x?rate_hz=fast", "'fast', must be a number"),
        ("command:sh -c 'open", "check the quotes"),
        ("simulate:fann", "use one of fan"),
        (
            "simulate:fan?fial=1",
            r"'fial' is no option \(crosstalk, cycle, domain, fail, .*\) and no attribute of fan \(m-n, load\)",
        ),
        ("simulate:fan?fail=rust", "use one of unbalance"),
        ("simulate:fan?fail=rubbing&severity=2", "0 to 1"),
        ("simulate:fan?fail_after=3", "say what fails"),
        ("simulate:fan?noise=music", "'music' can't be simulated"),
        ("simulate:fan?snr=nan", "must be a number"),
        ("simulate:fan?domain=moon", "must be source or target"),
    ],
)
def test_open_source_with_bad_options_is_a_usage_error(words: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_source(parse_source(words))


def test_file_of_another_rate_and_stereo_is_heard_on_the_chosen_channel(tmp_path: Path) -> None:
    file = tmp_path / "two.wav"
    soundfile.write(file, np.stack([tone(2, 48_000), 0.5 * tone(2, 48_000)], axis=1), 48_000, subtype="FLOAT")
    left, right = sound_of(f"file:{file}"), sound_of(f"file:{file}?channel=1")
    assert left.shape == (32_000,)
    np.testing.assert_allclose(right, left / 2, atol=1e-6)
    np.testing.assert_allclose(left[2000:-2000], tone(2)[2000:-2000], atol=1e-3)


def test_file_whose_name_has_a_question_mark_is_found(tmp_path: Path) -> None:
    file = tmp_path / "what?speed=3.wav"
    soundfile.write(file, tone(1), 16_000)
    assert sound_of(f"file:{file}").shape == (16_000,)


@pytest.mark.parametrize("samples", [None, np.zeros(0), np.array([0.0, np.nan, 0.0])])
def test_file_that_cannot_be_used_is_refused_at_once(tmp_path: Path, samples: NDArray[np.float64] | None) -> None:
    file = tmp_path / "bad.wav"
    if samples is not None:
        soundfile.write(file, samples, 16_000, subtype="FLOAT")
    with pytest.raises(RecordingError, match=r"bad\.wav"):
        open_source(parse_source(f"file:{file}"))


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_a_second_channel_is_heard_beside_the_first(tmp_path: Path, kind: str, rate_hz: int) -> None:
    near, far = tone(2.5, rate_hz), 0.5 * tone(2.5, rate_hz)[::-1]
    soundfile.write(tmp_path / "two.wav", np.stack([far, near], axis=1), rate_hz, subtype="FLOAT")
    where = tmp_path / "two.wav" if kind == "file" else tmp_path
    blocks = [
        heard
        for heard in open_source(parse_source(f"{kind}:{where}?channel=1&far=0")).events()
        if isinstance(heard, Block)
    ]
    assert [block.last for block in blocks] == [False, False, True]
    heard_near, heard_far = (np.concatenate(parts) for parts in zip(*((b.samples, b.far) for b in blocks), strict=True))
    assert heard_near.shape == heard_far.shape == (40_000,)
    assert np.abs(heard_near).max() == pytest.approx(0.3, abs=0.02)
    assert np.abs(heard_far).max() == pytest.approx(0.15, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("far=0", "far must be another channel than that of the machine, which is 0"),
        ("far=1.5", "far must be a whole number"),
        ("channel=2&far=99", "far is '99', must be a number, 0 to 63"),
        ("far=1", "two.wav"),
    ],
)
def test_a_second_channel_that_cannot_be_is_refused_at_once(tmp_path: Path, options: str, message: str) -> None:
    soundfile.write(tmp_path / "two.wav", tone(1), 16_000)
    with pytest.raises((UsageError, RecordingError), match=message):
        open_source(parse_source(f"file:{tmp_path}/two.wav?{options}"))


def test_folder_plays_in_order_of_names_and_refuses_the_broken_by_name(tmp_path: Path) -> None:
    for name, level in (("b.wav", 0.2), ("a.flac", 0.1), ("d.wav", 0.4)):
        soundfile.write(tmp_path / name, np.full(24_000, level, np.float32), 16_000)
    (tmp_path / "c.wav").write_bytes(b"RIFF, but not really")
    (tmp_path / "notes.txt").write_text("no sound")
    heard = list(open_source(parse_source(f"folder:{tmp_path}")).events())
    levels = [
        round(float(h.samples[0]), 1) if isinstance(h, Block) else h.path.name
        for h in heard
        if isinstance(h, Block | UnreadableRecording)
    ]
    assert levels == [0.1, 0.1, 0.2, 0.2, "c.wav", 0.4, 0.4]
    assert [h.last for h in heard if isinstance(h, Block)] == [False, True] * 3
    assert isinstance(heard[4], UnreadableRecording)


def test_folder_that_is_missing_or_empty_is_a_source_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SourceError, match=str(folder)):
            open_source(parse_source(f"folder:{folder}"))


def test_recordings_when_closed_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(60), 16_000)
    source = open_source(parse_source(f"file:{tmp_path}/a.wav?speed=1000"))
    heard = source.events()
    next(heard)
    source.close()
    assert list(heard) == []


def test_pace_when_real_time_holds_back_until_stopped() -> None:
    pace = PlaybackClock(speed=1e-9)  # ten samples would take days
    pace.stop()
    assert not pace.wait(10)
    assert PlaybackClock(speed=float("inf")).wait(10**9)


def test_simulation_with_same_seed_is_the_same_and_with_another_is_not() -> None:
    one, two, other = (sound_of(f"simulate:fan?speed=max&seconds=3&seed={seed}") for seed in (1, 1, 2))
    assert one.shape == (48_000,)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_simulation_with_timetable_differs_from_healthy_only_between_failure_and_repair() -> None:
    plan = "fail=rubbing&fail_after=3&repair_after=6"
    calm = "simulate:fan?speed=max&seconds=10&seed=5&snr=40"
    healthy, failing = (sound_of(words).reshape(10, -1) for words in (calm, f"{calm}&{plan}"))
    same = [bool(np.array_equal(h, f)) for h, f in zip(healthy, failing, strict=True)]
    assert same[:3] == [True] * 3
    assert not any(same[3:6])


def test_simulation_with_operating_attribute_passes_it_to_the_machine() -> None:
    assert "load" in SimulatedMachine("fan").attributes
    slow, fast = (sound_of(f"simulate:fan?speed=max&seconds=2&load={load}") for load in ("0", "100"))
    assert not np.array_equal(slow, fast)


def test_simulation_with_snr_and_noise_is_that_place() -> None:
    def level(words: str) -> float:
        return float(np.sqrt(np.mean(sound_of(f"simulate:fan?speed=max&seconds=20&seed=2&noise=pink&{words}") ** 2)))

    # the whole keeps its level; nearly all of it is machine, or nearly all is noise
    assert abs(20 * np.log10(level("snr=60") / level("snr=-60"))) < 2.5


def test_simulation_in_another_domain_is_another_place() -> None:
    source, target = (sound_of(f"simulate:fan?speed=max&seconds=2&domain={name}") for name in ("source", "target"))
    assert not np.array_equal(source, target)


def test_scripted_source_is_as_strict_as_a_real_one() -> None:
    good = Block(np.zeros(10, np.float32))
    assert list(ScriptedSource([good, SourceLost("gone", 1.0)]).events()) == [good, SourceLost("gone", 1.0)]
    with pytest.raises(ValueError, match="float64"):
        list(ScriptedSource([Block(np.zeros(10))]).events())  # type: ignore[arg-type]
