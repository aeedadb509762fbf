"""The process that holds the microphone: `python -m asd_daemon.hear.sources.recorder REQUEST`, started and killed by its supervisor.

It opens one device through PortAudio, reads blocks, keeps the channels asked for and writes frames to its standard output, at the
device's rate: whoever reads them resamples.
It is a process of its own because a dead PortAudio stream may never close (PortAudio issue 1037) and only a fresh process lists devices
anew; it reads and never uses callbacks because those need writable and executable memory, which a hardened service has not
(python-sounddevice issue 397). It imports the standard library and sounddevice alone, not even NumPy (decision 33), so that it records
soon after it was started; it judges nothing, and leaves when its standard input ends.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from asd_daemon.hear.sources.devices import Device, NoSuchDeviceError, card_facts, find_device
from asd_daemon.hear.sources.pulse_route import PulseRoute
from asd_daemon.hear.sources.recorder_protocol import Frame, FrameKind
from asd_daemon.wording import counted

FIRST_BLOCK_S = 0.1  # that there is sound again shall be known soon
BLOCK_S = 0.5
DEVICE_BUFFER_S = (
    0.5  # PortAudio's own choice is some 35 ms, which wakes the processor 60 times a second and overflows easily
)
FAILED_EXIT_CODE = 3

Send = Callable[[Frame], None]
_AT_EXIT: list[Callable[[], None]] = []  # this process ends by os._exit, which calls nobody else


def _private_stdout() -> int:
    """Keep standard output for frames: what C libraries print there goes to standard error from now on."""
    frames = os.dup(1)
    os.dup2(2, 1)
    return frames


def _exit_with_parent() -> None:
    """End at once when standard input ends, whatever the main thread is stuck in: the supervisor is gone."""
    while os.read(0, 4096):
        pass
    _exit_now(0)


def _exit_now(code: int) -> None:
    """End without a tidy end: closing a dead stream may hang for ever."""
    for last in _AT_EXIT:
        last()
    os._exit(code)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def list_devices() -> list[Device]:
    """The input devices that PortAudio sees now."""
    import sounddevice

    default = sounddevice.default.device[0]
    return [
        Device(
            index=d["index"],
            name=d["name"],
            channels=d["max_input_channels"],
            rate_hz=d["default_samplerate"],
            is_default=d["index"] == default,
            **asdict(card_facts(d["name"])),
        )
        for d in sounddevice.query_devices()
        if d["max_input_channels"] > 0
    ]


def capture_rate_hz(device: Device, wanted_hz: float | None, target_hz: int, accepts: Callable[[float], bool]) -> float:
    """The rate to open a device at.

    The one asked for; else the target's own where the sound card itself can do it; else the device's preferred rate, so that
    soxr resamples (alias -101 dB) and no sound server does (-64 dB measured with PulseAudio).
    """
    if wanted_hz:
        return wanted_hz
    if device.is_hardware and accepts(target_hz):
        return target_hz
    return device.rate_hz


class LossMeter:
    """How many samples an overflow cost: PortAudio only says that it happened, the clock says how much."""

    def __init__(self, rate_hz: float, now_s: float) -> None:
        self._rate_hz = rate_hz
        self._start_s = now_s
        self._samples = 0

    def count(self, samples: int, overflowed: bool, now_s: float) -> int:
        """Account for a block that was just read; the number of samples lost before it."""
        self._samples += samples
        if not overflowed:
            return 0
        lost = max(1, round((now_s - self._start_s) * self._rate_hz) - self._samples)
        self._start_s, self._samples = now_s, 0
        return lost


def _open(request: dict[str, Any]) -> tuple[Any, Device, float]:
    """Open the device asked for: its stream (started), the device and the rate."""
    import sounddevice

    device = find_device(request["device"], list_devices())
    channel = max(map(int, request["channels"]))
    if channel >= device.channels:
        raise NoSuchDeviceError(
            f"microphone {device.name!r} has {counted(device.channels, 'channel')}, no channel {channel} (counted from 0)"
        )

    def accepts(rate_hz: float, channels: int = channel + 1) -> bool:
        try:
            sounddevice.check_input_settings(device.index, channels, "float32", samplerate=rate_hz)
        except sounddevice.PortAudioError:
            return False
        return True

    rate_hz = capture_rate_hz(device, request["rate_hz"], request["target_hz"], accepts)
    # Some microphones offer their stereo pair only (birdnet-go issue 384): take all channels where fewer are refused
    channels = channel + 1 if accepts(rate_hz) else device.channels
    stream = sounddevice.RawInputStream(
        samplerate=rate_hz, device=device.index, channels=channels, dtype="float32", latency=DEVICE_BUFFER_S
    )
    stream.start()
    return stream, device, rate_hz


def chosen_channels(interleaved: bytes, channels: int, wanted: Sequence[int]) -> bytes:
    """Some channels of interleaved float32 samples, interleaved in the order wanted."""
    if list(wanted) == list(range(channels)):
        return interleaved
    samples = array("f", interleaved)
    chosen = array("f", bytes(samples.itemsize * (len(samples) // channels) * len(wanted)))
    for column, channel in enumerate(wanted):
        chosen[column :: len(wanted)] = samples[channel::channels]
    return chosen.tobytes()


def record(request: dict[str, Any], send: Send) -> None:
    """Open the device and send what it hears until it fails.

    Raises:
        NoSuchDeviceError: no such device or channel.
        sounddevice.PortAudioError: the device can't be opened, or went away.
    """
    stream, device, rate_hz = _open(request)
    route = None if device.is_hardware else PulseRoute(os.getpid())
    if route is not None:
        _AT_EXIT.append(route.close)

    def announce(identity: str | None) -> None:
        about = {"name": device.name, "rate_hz": rate_hz, "usb_id": device.usb_id, "identity": identity}
        send(Frame(FrameKind.OPENED, json.dumps(about).encode()))

    announce(route.identity if route else device.identity)
    if route is not None:
        route.watch(announce)  # the server may move us to another microphone, which may say nothing at all
    channels, losses = [int(c) for c in request["channels"]], LossMeter(rate_hz, time.monotonic())
    block, sent = round(rate_hz * FIRST_BLOCK_S), 0
    while True:
        data, overflowed = stream.read(block)
        now_ns = time.monotonic_ns()
        lost = losses.count(block, overflowed, now_ns / 1e9)
        sent += lost
        payload = chosen_channels(bytes(data), stream.channels, channels)
        send(Frame(FrameKind.SOUND, payload, sent, lost, now_ns))
        sent += block
        block = round(rate_hz * BLOCK_S)


def main() -> int:
    """Answer one request, given as JSON: {"list": true} or {"device", "channels", "rate_hz", "target_hz"}."""
    born_s = time.monotonic()
    out = _private_stdout()
    request = json.loads(sys.argv[1])
    if not request.get("list"):
        threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()

    sending = threading.Lock()

    def send(frame: Frame) -> None:
        with sending:
            _write_all(out, frame.pack())

    delay_s = float(os.environ.get("ASD_CHILD_DELAY_S", "0"))
    time.sleep(max(0.0, delay_s - (time.monotonic() - born_s)))
    send(Frame(FrameKind.READY))
    try:
        import sounddevice  # starts PortAudio, which asks the sound server and may wait for it

        try:
            if request.get("list"):
                send(Frame(FrameKind.OPENED, json.dumps([asdict(d) for d in list_devices()]).encode()))
                return 0
            record(request, send)
        except (NoSuchDeviceError, ValueError, sounddevice.PortAudioError) as e:
            reason = str(e).splitlines()[0]
    except OSError as e:  # libportaudio2 is missing, or the pipe is gone
        reason = f"{e}; install libportaudio2" if "PortAudio library" in str(e) else str(e)
    try:
        send(Frame(FrameKind.FAILED, json.dumps({"reason": reason}).encode()))
    except BrokenPipeError:
        return 0
    _exit_now(FAILED_EXIT_CODE)
    return FAILED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
