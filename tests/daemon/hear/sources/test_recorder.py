"""The recorder process in parts: which device, which rate, what was lost, resampling; and how little it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soxr

from asd_daemon.hear.sources.child_decoders import RecorderDecoder
from asd_daemon.hear.sources.child_words import ChildSound
from asd_daemon.hear.sources.devices import CardFacts, Device, NoSuchDeviceError, card_facts, find_device
from asd_daemon.hear.sources.microphone import recorder_environment
from asd_daemon.hear.sources.recorder import LossMeter, capture_rate_hz, chosen_channels
from asd_daemon.hear.sources.recorder_protocol import Frame, FrameKind
from asd_daemon.resampling import Resampler

CARD = Device(3, "USB Mic: Audio (hw:1,0)", 2, 48_000.0, "0d8c:0014", is_default=False)
TWIN = Device(4, "USB Mic: Audio (hw:2,0)", 1, 44_100.0, "0d8c:0014", is_default=False)
PULSE = Device(7, "pulse", 32, 44_100.0, None, is_default=True)


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        ("USB Mic: Audio (hw:1,0)", CARD),
        ("hw:2", TWIN),
        ("PULSE", PULSE),
        ("default", PULSE),
    ],
)
def test_find_device_by_name_part_or_default_finds_it(wanted: str, device: Device) -> None:
    assert find_device(wanted, [CARD, TWIN, PULSE]) == device


def test_find_device_by_usb_identity_finds_it_whatever_its_number() -> None:
    assert find_device("usb-id:0D8C:0014", [PULSE, CARD]) == CARD


def test_find_device_when_default_is_unknown_takes_the_first() -> None:
    assert find_device("default", [CARD, TWIN]) == CARD


@pytest.mark.parametrize(
    ("wanted", "devices", "message"),
    [
        ("usb mic", [CARD, TWIN], "ambiguous"),
        ("usb-id:0d8c:0014", [CARD, TWIN], "ambiguous"),
        ("usb-id:ffff:0014", [CARD], "no microphone 'usb-id:ffff:0014': there are 'USB Mic"),
        ("nope", [CARD, PULSE], r"there are 'USB Mic: Audio \(hw:1,0\)', 'pulse'"),
        ("default", [], "no sound input at all"),
    ],
)
def test_find_device_when_none_or_several_fit_lists_what_there_is(
    wanted: str, devices: list[Device], message: str
) -> None:
    with pytest.raises(NoSuchDeviceError, match=message):
        find_device(wanted, devices)


def test_card_facts_are_read_from_the_kernels_tree(tmp_path: Path) -> None:
    usb = tmp_path / "devices" / "usb1" / "1-2"
    (usb / "1-2:1.0").mkdir(parents=True)
    (usb / "idVendor").write_text("0d8c\n")
    (usb / "idProduct").write_text("0014\n")
    card = tmp_path / "class" / "sound" / "card1"
    card.mkdir(parents=True)
    (card / "id").write_text("Mic\n")
    (card / "device").symlink_to(usb / "1-2:1.0")
    name = "USB Mic: Audio (hw:1,0)"
    assert card_facts(name, tmp_path) == CardFacts("0d8c:0014", None, "1-2", "Mic")
    (usb / "serial").write_text("AB 12\n")
    assert card_facts(name, tmp_path).usb_serial == "AB_12"
    assert card_facts("HDA Intel (hw:0,0)", tmp_path) == CardFacts()
    assert card_facts("pulse", tmp_path) == CardFacts()


def test_identity_is_what_stays_when_a_device_is_plugged_in_elsewhere() -> None:
    assert replace(CARD, usb_serial="A1", usb_path="1-2").identity == "usb-id:0d8c:0014:A1"
    assert replace(CARD, usb_path="1-2").identity == replace(CARD, usb_path="1-3").identity == "usb-id:0d8c:0014"
    assert replace(CARD, usb_id=None, card_id="PCH").identity == "card:PCH"
    assert PULSE.identity is None


def test_find_device_tells_twins_by_serial_or_port() -> None:
    left, right = replace(CARD, usb_serial="A1", usb_path="1-1.2"), replace(TWIN, usb_serial="B2", usb_path="1-1.3")
    assert find_device("usb-id:0d8c:0014:B2", [left, right]) == right
    assert find_device("usb-path:1-1.2", [left, right]) == left
    with pytest.raises(NoSuchDeviceError, match=r"usb-path:1-1.3\); give the serial number or usb-path"):
        find_device("usb-id:0d8c:0014", [left, right])
    with pytest.raises(NoSuchDeviceError, match="no microphone 'usb-path:1-9'"):
        find_device("usb-path:1-9", [left, right])


def test_resampler_of_two_channels_is_that_of_each() -> None:
    rng = np.random.default_rng(0)
    both = rng.uniform(-1, 1, (48_000, 2)).astype(np.float32)
    together = Resampler(48_000, 16_000, 2)(both)
    for column in range(2):
        alone = Resampler(48_000, 16_000)(np.ascontiguousarray(both[:, column]))
        np.testing.assert_allclose(together[:, column], alone, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "wanted", "accepted", "rate"),
    [
        (CARD, None, {16_000, 48_000}, 16_000),  # the card itself can do it
        (CARD, None, {48_000}, 48_000),
        (PULSE, None, {16_000, 44_100}, 44_100),  # a server accepts anything, and resamples badly
        (PULSE, 32_000.0, {44_100}, 32_000),  # what the user says
    ],
)
def test_capture_rate_is_one_that_needs_no_foreign_resampler(
    device: Device, wanted: float | None, accepted: set[float], rate: float
) -> None:
    assert capture_rate_hz(device, wanted, 16_000, lambda hz: hz in accepted) == rate


def test_loss_meter_when_the_device_overflowed_counts_by_the_clock() -> None:
    meter = LossMeter(16_000, now_s=100.0)
    assert meter.count(1600, overflowed=False, now_s=100.1) == 0
    assert meter.count(1600, overflowed=True, now_s=100.7) == 8000  # 0.7 s passed, 0.2 s came
    assert meter.count(1600, overflowed=False, now_s=100.8) == 0
    assert meter.count(1600, overflowed=True, now_s=100.9) == 1  # a flag without a visible loss still breaks the sound


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
def test_resampler_in_blocks_is_resampling_at_once(rate_hz: int) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, rate_hz * 3).astype(np.float32)
    resample = Resampler(rate_hz, 16_000)
    blocks = np.array_split(sound, 15)
    joined = np.concatenate([resample(block) for block in blocks])
    whole = soxr.resample(sound, rate_hz, 16_000, quality="HQ")
    assert joined.shape[0] > 46_000  # the filter holds the end back
    np.testing.assert_allclose(joined, whole[: joined.shape[0]], atol=2e-6)


def test_resampler_at_the_same_rate_changes_nothing() -> None:
    sound = np.arange(10, dtype=np.float32)
    assert Resampler(16_000, 16_000)(sound) is sound


@pytest.mark.parametrize("wanted", [[0], [2], [2, 0], [0, 1, 2], [1, 2]])
def test_chosen_channels_are_those_columns(wanted: list[int]) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, (800, 3)).astype(np.float32)
    chosen = np.frombuffer(chosen_channels(sound.tobytes(), 3, wanted), np.float32).reshape(-1, len(wanted))
    np.testing.assert_array_equal(chosen, sound[:, wanted])


def decoded(frames: list[Frame], channels: int = 1) -> list[ChildSound]:
    items = RecorderDecoder(channels).feed(b"".join(frame.pack() for frame in frames))
    return [item for item in items if isinstance(item, ChildSound)]


def opened(rate_hz: float) -> Frame:
    return Frame(FrameKind.OPENED, json.dumps({"name": "mic", "rate_hz": rate_hz, "identity": None}).encode())


@pytest.mark.parametrize("channels", [1, 2])
def test_decoder_brings_the_recorders_rate_to_ours(channels: int) -> None:
    rate_hz = 48_000
    sound = np.random.default_rng(1).normal(0, 0.1, (3 * rate_hz, channels)).astype(np.float32)
    blocks = np.array_split(sound, 6)
    frames = [Frame(FrameKind.SOUND, block.tobytes(), 0, 0, 7_000_000_000 + n) for n, block in enumerate(blocks)]
    # the route is told anew while the stream goes on: that must not break the sound
    sounds = decoded([opened(rate_hz), *frames[:3], opened(rate_hz), *frames[3:]], channels)
    joined = np.concatenate([each.samples.reshape(-1, channels) for each in sounds])
    whole = soxr.resample(sound, rate_hz, 16_000, quality="HQ")
    assert joined.shape[0] > 46_000
    np.testing.assert_allclose(joined, whole[: joined.shape[0]], atol=2e-6)
    assert [each.ended_s for each in sounds] == pytest.approx([7 + n / 1e9 for n in range(6)], abs=1e-12)


def test_decoder_after_a_loss_counts_it_at_our_rate_and_begins_anew() -> None:
    block = np.random.default_rng(2).normal(0, 0.1, 24_000).astype(np.float32)
    frames = [Frame(FrameKind.SOUND, block.tobytes(), 0, lost, 1) for lost in (0, 4_410, 1)]
    first, second, third = decoded([opened(44_100), *frames])
    assert [each.lost_samples for each in (first, second, third)] == [0, 1_600, 0]
    np.testing.assert_array_equal(second.samples, first.samples)  # what came before is forgotten
    assert not np.array_equal(third.samples[:100], first.samples[:100])


def test_recorder_imports_little() -> None:
    code = (
        "import contextlib, sys, asd_daemon.hear.sources.recorder\n"
        "with contextlib.suppress(OSError): import sounddevice\n"
        "heavy = {'numpy', 'soxr', 'onnxruntime', 'pydantic', 'soundfile', 'yaml', 'click', 'paho', 'ssl', 'email', 'sqlite3'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=recorder_environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
