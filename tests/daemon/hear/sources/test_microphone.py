"""The microphone for real: PulseAudio, ALSA, PortAudio and the recorder process, with a plug that can be pulled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import SourceError
from asd_daemon.hear.opening import open_sources
from asd_daemon.hear.source import Block, Source, SourceEvent, SourceLost
from asd_daemon.hear.source_spec import parse_source
from asd_daemon.hear.sources.microphone import list_microphones, open_microphone, recorder_command, recorder_environment
from asd_daemon.hear.sources.source_memory import SourceMemory
from rig.feeder import Feeder
from rig.microphone import NAME, VirtualMicrophone, missing
from rig.waiting import PATIENT_S, is_over, wait_until

pytestmark = [pytest.mark.microphone, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
WORDS = f"device:{NAME}?rate_hz=16000"


@pytest.fixture
def microphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualMicrophone]:
    with VirtualMicrophone(tmp_path / "v") as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


class Listener:
    """Hears a source in a thread and remembers all of it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.items: list[SourceEvent] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.source.close()
        self._thread.join(PATIENT_S)
        assert not self._thread.is_alive()

    def wait_for(self, fits: Callable[[SourceEvent], bool], since: int = 0) -> int:
        """The number of the first fitting item from some number on."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(map(fits, self.items[since:])), PATIENT_S)
            assert found, f"nothing fits in {PATIENT_S} s among {[type(i).__name__ for i in self.items[since:]][-20:]}"
            return since + next(n for n, item in enumerate(self.items[since:]) if fits(item))

    def wait_for_unbroken(self, blocks: int, since: int) -> list[Block]:
        """The first so many blocks in a row without a gap from some number on: a busy machine may lose samples, and says so."""
        row: list[Block] = []
        while len(row) < blocks:
            item = self.items[self.wait_for(lambda _: True, since=since)]
            row = [*row, item] if isinstance(item, Block) and item.gap_samples == 0 else []
            since += 1
        return row

    def _run(self) -> None:
        for item in self.source.events():
            with self._changed:
                self.items.append(item)
                self._changed.notify_all()


def listen(words: str = WORDS) -> Listener:
    """Waiting, as a recorder may be slow to start where the machine is busy."""
    return Listener(open_microphone(parse_source(words), wait=True))


def is_block(item: SourceEvent) -> bool:
    return isinstance(item, Block)


def is_lost(item: SourceEvent) -> bool:
    return isinstance(item, SourceLost)


def peak(item: SourceEvent) -> float:
    return float(np.abs(item.samples).max()) if isinstance(item, Block) else 0.0


def test_sound_on_the_way_from_air_to_block_stays_bit_for_bit_the_same(microphone: VirtualMicrophone) -> None:
    """Of several times, as a sound server on a busy machine may lose samples; what changed any would change some every time."""
    played = np.random.default_rng(0).integers(-20_000, 20_000, 16_000 * 2).astype("<i2")
    with Feeder(microphone.fifo) as feeder, listen() as listener:
        listener.wait_for(is_block)
        for _ in range(5):
            before = len(listener.items)
            feeder.play(played)
            feeder.wait_played()
            listener.wait_for(lambda b: peak(b) > 0.3, since=before)
            listener.wait_for(lambda b: is_block(b) and peak(b) < 0.01, since=len(listener.items))
            heard = 32768 * np.concatenate([b.samples for b in listener.items[before:] if isinstance(b, Block)])
            starts = np.flatnonzero(heard == played[0])
            if any(np.array_equal(heard[start : start + played.shape[0]], played) for start in starts):
                return
    pytest.fail("other samples than were played")


def test_channel_that_is_chosen_is_heard_and_resampled_from_the_devices_rate(microphone: VirtualMicrophone) -> None:
    t = np.arange(16_000 * 3) / 16_000
    tone = (8000 * np.sin(2 * np.pi * 1000 * t)).astype("<i2")
    with Feeder(microphone.fifo) as feeder, listen(words=f"device:{NAME}?channel=0") as listener:
        feeder.play(np.tile(tone, 40))
        loud = listener.wait_for(lambda b: peak(b) > 0.2)
        sound = np.concatenate([b.samples for b in listener.wait_for_unbroken(8, since=loud + 2)])
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.shape[0])))
    assert abs(np.argmax(spectrum) * 16_000 / sound.shape[0] - 1000) < 2


@pytest.mark.parametrize("fault", ["unplugged", "frozen", "killed", "starved"])
def test_microphone_that_goes_is_lost_and_heard_again_when_it_is_back(
    microphone: VirtualMicrophone, fault: str
) -> None:
    process = psutil.Process()
    others = set(process.children(recursive=True))  # the sound server, and what earlier tests of this process have left
    with Feeder(microphone.fifo) as feeder, listen() as listener:
        away: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "unplugged": (microphone.yank, microphone.replug),
            "frozen": (microphone.freeze, microphone.thaw),
            "killed": (microphone.kill, microphone.up),
            "starved": (feeder.starve, lambda: feeder.starve(False)),
        }
        go, come = away[fault]
        listener.wait_for(is_block)
        before = len(listener.items)
        go()
        lost = listener.wait_for(is_lost, since=before)
        come()
        back = listener.wait_for(is_block, since=lost)
        block = listener.items[back]
        listener.wait_for(lambda _: len(listener.items) > back + 5)
        # one recorder, its ear for moved streams, maybe a new sound server; and for a moment who asks the server which stream is whose
        wait_until(lambda: len(set(process.children(recursive=True)) - others) <= 3, "no recorder is left over")
    assert isinstance(block, Block)
    assert block.gap_samples > 0
    again = sum(b.gap_samples for b in listener.items[back + 1 :] if isinstance(b, Block))
    assert again < block.gap_samples, "it is counted once; a busy machine may lose a little more"


def test_microphone_that_another_takes_the_place_of_is_lost_as_the_wrong_one_until_it_is_back(
    microphone: VirtualMicrophone, tmp_path: Path
) -> None:
    """The sound server moves the stream to the other microphone without a word: nothing of that may be heard as ours."""
    memory = SourceMemory(tmp_path / "source.json")
    sources = open_sources({"fan": parse_source(WORDS)}, wait=True, device_checks={"fan": memory.check_device})
    with Feeder(microphone.fifo) as feeder, Listener(sources["fan"]) as listener:
        listener.wait_for(is_block)
        assert memory.identity == f"pulse:{NAME}"
        microphone.plug_other()
        feeder.starve()  # whatever is heard now is the other one's
        before = len(listener.items)
        microphone.yank_ours()
        # A busy machine may find first that there is no sound
        lost = listener.items[listener.wait_for(lambda i: isinstance(i, SourceLost) and i.wrong_device, since=before)]
        assert isinstance(lost, SourceLost)
        assert "this is pulse:other, not pulse:asdmic" in lost.reason
        microphone.unplug_all()
        microphone.replug()
        feeder.starve(False)
        listener.wait_for(is_block, since=len(listener.items))
    assert memory.identity == f"pulse:{NAME}"


def pitch_of(samples: NDArray[np.float32]) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.shape[0])))
    return float(np.argmax(spectrum) * 16_000 / samples.shape[0])


def test_two_machines_hear_two_channels_of_one_microphone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VirtualMicrophone(tmp_path / "v", channels=2) as stereo:
        for name, value in stereo.environment.items():
            monkeypatch.setenv(name, value)
        t = np.arange(16_000) / 16_000
        both = np.stack([np.sin(2 * np.pi * pitch_hz * t) for pitch_hz in (500, 2000)], axis=1)
        words = {"fan": "channel=0&far=1", "pump": "channel=1"}  # the fan's far microphone is the pump's own
        specs = {name: parse_source(f"{WORDS}&{channels}") for name, channels in words.items()}
        sources = open_sources(specs, wait=True, device_checks={})
        pitches_hz = {}
        with (
            Feeder(stereo.fifo, rate_hz=32_000) as feeder,  # both channels' samples, one after the other
            Listener(sources["fan"]) as fan,
            Listener(sources["pump"]) as pump,
        ):
            feeder.play(np.tile((8000 * both).astype("<i2").ravel(), 100))
            for name, listener in (("fan", fan), ("pump", pump)):
                loud = listener.wait_for(lambda b: peak(b) > 0.2)
                block = listener.items[listener.wait_for(is_block, since=loud + 1)]
                assert isinstance(block, Block)
                pitches_hz[name] = pitch_of(block.samples)
                if block.far is not None:
                    pitches_hz[f"{name} far"] = pitch_of(block.far)
            recorders = [
                c for c in psutil.Process().children() if "asd_daemon.hear.sources.recorder" in " ".join(c.cmdline())
            ]
            assert len(recorders) == 1
    assert pitches_hz == pytest.approx({"fan": 500, "fan far": 2000, "pump": 2000}, abs=4)


def test_microphone_that_is_absent_at_the_start_is_waited_for(microphone: VirtualMicrophone) -> None:
    microphone.kill()
    with Feeder(microphone.fifo), listen() as listener:
        listener.wait_for(is_lost)
        microphone.up()
        back = listener.items[listener.wait_for(is_block)]
    assert isinstance(back, Block)
    assert back.gap_samples == 0, "there was no sound before, so none is missing"


def test_microphone_that_is_absent_at_the_start_is_an_error_that_lists_the_others(
    microphone: VirtualMicrophone,
) -> None:
    source = open_microphone(parse_source("device:nope"), wait=False)
    with pytest.raises(SourceError, match=rf"^no microphone 'nope': there are .*'{NAME}'"):
        next(source.events())
    source.close()


def test_list_microphones_shows_it(microphone: VirtualMicrophone) -> None:
    assert NAME in [device.name for device in list_microphones()]


def test_recorder_when_its_supervisor_dies_ends_by_itself(microphone: VirtualMicrophone) -> None:
    request = {"device": NAME, "channels": [0], "rate_hz": 16_000, "target_hz": 16_000}
    code = (
        "import json, os, subprocess, sys\n"
        "child = subprocess.Popen(json.loads(sys.argv[1]), stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.read(10); print(child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    with Feeder(microphone.fifo):
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(recorder_command(request))],
            env=recorder_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENT_S,
        )
    recorder = int(done.stdout)
    wait_until(lambda: is_over(recorder), "the recorder ends with its supervisor")


def test_recorder_without_writable_executable_memory_still_records(microphone: VirtualMicrophone) -> None:
    """Under systemd's MemoryDenyWriteExecute: PR_SET_MDWE is the same rule in the kernel."""
    request = {"device": NAME, "channels": [0], "rate_hz": 16_000, "target_hz": 16_000}
    code = (
        "import ctypes, os, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, *recorder_command(request)]
    with Feeder(microphone.fifo):
        child = subprocess.Popen(
            command, env=recorder_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        sound = child.stdout.read(100_000)
        if not sound and child.wait(PATIENT_S) == 77:
            pytest.skip("this kernel has no PR_SET_MDWE")
        child.stdin.close()
        child.wait(PATIENT_S)
        child.stdout.close()
        child.stderr.close()
    assert len(sound) == 100_000
    assert os.environ.get("PULSE_SERVER")
