"""One microphone for several machines: each hears its own channel, none can hold up the others; and where sound servers send us."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import SourceError, UsageError
from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Block, SourceLost
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.child_decoders import RecorderDecoder
from asd_daemon.hear.sources.child_process import SupervisedChild
from asd_daemon.hear.sources.child_timeouts import ChildTimeouts
from asd_daemon.hear.sources.pulse_route import source_name, source_of
from asd_daemon.hear.sources.recorder_protocol import Frame, FrameKind
from asd_daemon.hear.sources.shared_microphone import SharedChannel, SharedMicrophone
from asd_daemon.hear.sources.source_memory import SourceMemory
from asd_daemon.hear.sources.two_devices import TwoDevices
from rig.waiting import PATIENT_S

QUICK = ChildTimeouts(
    boot_s=PATIENT_S,
    start_s=PATIENT_S,
    stall_s=PATIENT_S,
    backoff_least_s=0.01,
    backoff_most_s=0.05,
    lost_every_s=0.1,
)


def sound(channels: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> bytes:
    return Frame(FrameKind.SOUND, channels.tobytes(), monotonic_ns=10**9).pack()


def opened(identity: str) -> bytes:
    return Frame(FrameKind.OPENED, json.dumps({"identity": identity}).encode()).pack()


def child(said: bytes, folder: Path, *, then: str = "sleep", channels: int = 2, **more: object) -> SupervisedChild:
    """A recorder that says this and then waits, or ends."""
    (folder / "said").write_bytes(said)
    code = f"import sys, time; sys.stdout.buffer.write(open({str(folder / 'said')!r}, 'rb').read()); sys.stdout.flush()"
    code += "; time.sleep(600)" if then == "sleep" else ""
    return SupervisedChild(
        "microphone 'm'",
        [sys.executable, "-c", code],
        lambda: RecorderDecoder(channels),
        wait=more.pop("wait", True),  # type: ignore[arg-type]
        announces_itself=False,
        timeouts=QUICK,
        **more,  # type: ignore[arg-type]
    )


def test_each_tap_hears_its_own_channel_as_contiguous_mono(tmp_path: Path) -> None:
    both = np.random.default_rng(0).uniform(-1, 1, (8000, 2)).astype(np.float32)
    shared = SharedMicrophone(child(sound(both), tmp_path), [1, 3])
    taps = [shared.open_channel(3), shared.open_channel(1), shared.open_channel(3)]
    heard = [next(tap.events()) for tap in taps]
    for item, column in zip(heard, (1, 0, 1), strict=True):
        assert isinstance(item, Block)
        assert item.samples.flags["C_CONTIGUOUS"]
        assert np.array_equal(item.samples, both[:, column])
    for tap in taps:
        tap.close()


def test_a_far_microphone_on_another_channel_is_heard_beside(tmp_path: Path) -> None:
    both = np.random.default_rng(0).uniform(-1, 1, (8000, 2)).astype(np.float32)
    shared = SharedMicrophone(child(sound(both), tmp_path), [0, 1])
    tap = shared.open_channel(1, far=0)
    heard = next(tap.events())
    assert isinstance(heard, Block)
    assert heard.far is not None
    assert heard.far.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(heard.samples, both[:, 1])
    np.testing.assert_array_equal(heard.far, both[:, 0])
    tap.close()


def test_last_tap_that_closes_ends_the_recorder_and_not_before(tmp_path: Path) -> None:
    recorder = child(sound(np.zeros((10, 2), np.float32)), tmp_path)
    shared = SharedMicrophone(recorder, [0, 1])
    one, other = shared.open_channel(0), shared.open_channel(1)
    first, second = one.events(), other.events()
    next(first), next(second)
    one.close()
    assert list(first) == []
    assert shared._thread is not None
    assert shared._thread.is_alive()
    other.close()
    shared._thread.join(PATIENT_S)
    assert not shared._thread.is_alive()


def test_recorder_that_cannot_start_is_an_error_for_every_machine(tmp_path: Path) -> None:
    failed = Frame(FrameKind.FAILED, json.dumps({"reason": "no such device"}).encode()).pack()
    shared = SharedMicrophone(child(failed, tmp_path, wait=False), [0, 1])
    errors: list[str] = []

    def listen(tap: SharedChannel) -> None:
        with pytest.raises(SourceError) as raised:
            next(tap.events())
        errors.append(str(raised.value))

    threads = [threading.Thread(target=listen, args=(shared.open_channel(c),)) for c in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT_S)
    assert errors == ["microphone 'm': no such device"] * 2


def test_tap_that_nobody_listens_to_stays_small_and_counts_what_it_missed(tmp_path: Path) -> None:
    shared = SharedMicrophone(child(b"", tmp_path), [0, 1])
    tap = shared.open_channel(0)
    for _ in range(200):
        tap.put(Block(np.zeros((8000, 2), np.float32)))
    heard = tap.events()
    assert sum(isinstance(next(heard), Block) for _ in range(120)) == 120
    tap.put(Block(np.zeros((8000, 2), np.float32), gap_samples=5))
    late = next(heard)
    assert isinstance(late, Block)
    assert late.gap_samples == 80 * 8000 + 5
    tap.close()


def test_device_that_another_took_the_place_of_is_lost_as_wrong_and_never_heard(tmp_path: Path) -> None:
    memory = SourceMemory()
    memory.keep_identity("usb-id:0d8c:0014:A1")
    said = opened("usb-id:0d8c:0014:B2") + sound(np.ones((10, 2), np.float32))
    source = child(said, tmp_path, device_check=memory.check_device)
    heard = source.events()
    first = next(heard)
    assert isinstance(first, SourceLost)
    assert first.wrong_device
    assert "usb-id:0d8c:0014:B2, not usb-id:0d8c:0014:A1" in first.reason
    assert source.source_health.identity is None
    source.close()
    assert not any(isinstance(item, Block) for item in heard)


def test_stream_that_is_moved_while_it_sounds_is_told_at_once(tmp_path: Path) -> None:
    said = opened("pulse:mine") + sound(np.ones((10, 2), np.float32)) + opened("pulse:other")
    source = child(said, tmp_path, device_check=SourceMemory().check_device)
    heard = source.events()
    assert isinstance(next(heard), Block)
    lost = next(heard)
    assert isinstance(lost, SourceLost)
    assert lost.wrong_device
    assert source.source_health.identity == "pulse:mine"
    source.close()
    list(heard)


def test_machines_that_name_the_same_device_share_it_and_others_do_not() -> None:
    specs = {
        "fan": SourceSpec("device", "card", {"channel": "0"}),
        "pump": SourceSpec("device", "card", {"channel": "2"}),
        "saw": SourceSpec("device", "other"),
        "mill": SourceSpec("simulate", "fan"),
    }
    opened_sources = open_sources(specs, wait=True, device_checks={})
    assert list(opened_sources) == list(specs)
    assert isinstance(opened_sources["fan"], SharedChannel)
    assert isinstance(opened_sources["pump"], SharedChannel)
    assert isinstance(opened_sources["saw"], SupervisedChild)
    for source in opened_sources.values():
        source.close()


def test_far_microphones_are_channels_of_the_device_or_devices_of_their_own() -> None:
    """Two machines hear one hall by the same far microphone; a card is opened once, whoever hears it and for what."""
    specs = {
        "fan": SourceSpec("device", "card", {"channel": "0", "far": "2"}),
        "pump": SourceSpec("device", "card", {"channel": "1", "far": "2"}),
        "saw": SourceSpec("device", "other", {"far_device": "third", "far": "1"}),
        "lathe": SourceSpec("device", "fourth", {"far_device": "third"}),
    }
    opened_sources = open_sources(specs, wait=True, device_checks={})
    assert list(opened_sources) == list(specs)
    fan, pump, saw, lathe = (opened_sources[name] for name in specs)
    assert isinstance(fan, SharedChannel)
    assert isinstance(pump, SharedChannel)
    assert fan._shared is pump._shared
    assert (fan._column, fan._far_column, pump._column, pump._far_column) == (0, 2, 1, 2)
    assert isinstance(saw, TwoDevices)
    assert isinstance(lathe, TwoDevices)
    assert isinstance(saw._far, SharedChannel)
    assert isinstance(lathe._far, SharedChannel)
    assert saw._far._shared is lathe._far._shared
    for source in opened_sources.values():
        source.close()


def test_channel_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match=r"channel must be a whole number"):
        open_sources({"fan": SourceSpec("device", "card", {"channel": "0.5"})}, wait=True, device_checks={})


OUTPUTS = """Source Output #4
\tDriver: protocol-native.c
\tSource: 1
\tProperties:
\t\tapplication.process.id = "77"

Source Output #9
\tDriver: protocol-native.c
\tSource: 12
\tProperties:
\t\tmedia.name = "ALSA Capture"
\t\tapplication.process.id = "4711"
"""


def test_source_that_a_process_records_from_is_read_from_pactls_words() -> None:
    assert source_of(4711, OUTPUTS) == "12"
    assert source_of(77, OUTPUTS) == "1"
    assert source_of(471, OUTPUTS) is None
    assert source_of(4711, "") is None
    assert source_name("12", "1\tnull.monitor\tm\n12\tmic two\tmodule\ts16le\n") == "mic two"
    assert source_name("2", "12\tmic\tm\n") is None
