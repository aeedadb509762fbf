"""What the running daemon costs: start, memory and processor between windows, and machines that share a box.

One machine hears a virtual microphone where PulseAudio is there, else a program; several hear programs, whose own cost is left out.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import soundfile
from stopwatch import Row, held

from asd_daemon.hear.simulator import SimulatedMachine
from asd_daemon.waveform import WINDOW_S
from rig import microphone
from rig.daemon import RunningDaemon
from rig.feeder import Feeder

STARTS = 5
PATIENCE_S = 120.0
# a program that plays a raw file over and over, in step with the clock
PLAYER = (
    "import sys,time;sound=open(sys.argv[1],'rb').read();step=16000;t=time.monotonic();n=0\n"
    "while True:\n"
    " at=n*step%len(sound);sys.stdout.buffer.write(sound[at:at+step]);sys.stdout.buffer.flush();n+=1\n"
    " time.sleep(max(0,t+n*0.5-time.monotonic()))"
)


def daemon_rows(bundle: Path, windows: int) -> list[Row]:
    """Start, memory and rest of one machine."""
    why_not = microphone.missing()
    with TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        home = Path(name)
        sound = _sound(home)
        environment: dict[str, str] = {}
        source, heard = _command(sound), f"a program ({why_not})"
        if why_not is None:
            mic = stack.enter_context(microphone.VirtualMicrophone(home / "mic"))
            feeder = stack.enter_context(Feeder(mic.fifo))
            pcm = np.frombuffer(sound.read_bytes(), "<i2")
            feeder.play(np.tile(pcm, windows * (STARTS + 2)))
            environment, source, heard = mic.environment, f"device:{microphone.NAME}", "a virtual microphone"
        words = ("run", "--machine", "fan", "--no-mqtt", "--bundle", bundle, "--source", source)
        starts = [_start(words, home / f"start-{n}", environment) for n in range(STARTS)]
        start_s, start_cpu_s = (float(np.median(x)) for x in zip(*starts, strict=True))
        with RunningDaemon(*words, home=home / "rest", more=environment) as daemon:
            own = psutil.Process(daemon.process.pid)
            idle, whole = _rest(daemon, own, windows)
            parent = own.memory_info().rss / 2**20
            children = [c.memory_info().rss / 2**20 for c in own.children() if why_not is None]
    total = parent + sum(children)
    return [
        Row(
            "start to the first window being filled",
            f"{start_s:.2f} s",
            held(start_s, 2.0, f"≤ 2 s; {start_cpu_s:.2f} s of processor time; median of {STARTS}"),
        ),
        Row("processor between windows, with recorder", f"{idle:.2%}", held(idle, 0.005, "< 0.5 % of a core")),
        Row("the same, windows included", f"{whole:.2%}", f"over {windows} windows"),
        Row("resident memory: daemon", f"{parent:.0f} MB", f"{heard}"),
        Row(
            "resident memory: recorder",
            f"{sum(children):.0f} MB" if children else "–",
            held(total, 150, f"{total:.0f} MB together (≤ 150)"),
        ),
    ]


def sharing_rows(bundle: Path, counts: tuple[int, ...], windows: int) -> list[Row]:
    """Machines of one process that share the models."""
    rows = []
    with TemporaryDirectory() as name:
        sound = _sound(Path(name))
        for count in counts:
            home = Path(name) / str(count)
            home.mkdir()
            machines = {
                f"m{n}": {"source": {"command": _command(sound).removeprefix("command:")}, "model": "fan"}
                for n in range(count)
            }
            text = json.dumps({"machines": machines, "bundle": str(bundle)})  # which is YAML too
            (home / "c.yaml").write_text(text, encoding="utf-8")
            with RunningDaemon("run", "--no-mqtt", "--config", home / "c.yaml", home=home) as daemon:
                own = psutil.Process(daemon.process.pid)
                _, whole = _rest(daemon, own, windows, machines=count, with_children=False)
                memory = own.memory_info().rss / 2**20
                dropped = sum("dropped" in line for line in daemon.log)
            rows.append(
                Row(
                    f"{count} machine{'s' if count > 1 else ''}",
                    f"{whole:.2%}",
                    f"of a core; {memory:.0f} MB; {dropped} windows dropped",
                )
            )
    return rows


def _start(words: tuple[object, ...], home: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Seconds until it listens, and processor seconds till then, recorder included."""
    begin = time.monotonic()
    with RunningDaemon(*words, home=home, more=environment) as daemon:
        own = psutil.Process(daemon.process.pid)
        for _ in _polled(daemon, lambda: any("listening" in line for line in daemon.log), every_s=0.01):
            pass
        return time.monotonic() - begin, sum(_cpu(own, with_children=True).values())


def _rest(
    daemon: RunningDaemon, own: psutil.Process, windows: int, *, machines: int = 1, with_children: bool = True
) -> tuple[float, float]:
    """Shares of a core: from 2 s to 8 s after each window, and altogether; after one window to warm up."""

    def scored() -> int:
        return sum('"topic":"score"' in line for line in daemon.lines) // machines

    for _ in _polled(daemon, lambda: scored() >= 1):
        pass
    tick = threading.Event()
    used, seconds, begin, at_begin = 0.0, 0.0, time.monotonic(), _cpu(own, with_children=with_children)
    for n in range(1, windows + 1):
        tick.wait(2.0)
        since, before = time.monotonic(), _cpu(own, with_children=with_children)
        tick.wait(6.0)
        used += _spent(before, _cpu(own, with_children=with_children))
        seconds += time.monotonic() - since
        for _ in _polled(daemon, lambda n=n: scored() >= 1 + n):  # type: ignore[misc]
            pass
    whole = _spent(at_begin, _cpu(own, with_children=with_children)) / (time.monotonic() - begin)
    return used / seconds, whole


def _polled(daemon: RunningDaemon, done: object, every_s: float = 0.05) -> Iterator[None]:
    """Until it is done; the daemon's end or too long a wait ends the benchmark with its last words."""
    tick, deadline = threading.Event(), time.monotonic() + PATIENCE_S
    while not done():  # type: ignore[operator]
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            sys.exit("the daemon does not come on: " + "".join(daemon.log[-3:]))
        tick.wait(every_s)
        yield


def _cpu(own: psutil.Process, *, with_children: bool) -> dict[int, float]:
    processes = [own, *(own.children() if with_children else ())]
    return {p.pid: sum(p.cpu_times()[:2]) for p in processes}


def _spent(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(after[pid] - before[pid] for pid in before if pid in after)


def _sound(folder: Path) -> Path:
    """A minute of a simulated fan as raw s16le."""
    rendered = SimulatedMachine("fan").render(6 * WINDOW_S, np.random.default_rng(0))
    file = folder / "fan.raw"
    soundfile.write(str(file), rendered, 16_000, subtype="PCM_16", format="RAW", endian="LITTLE")
    return file


def _command(sound: Path) -> str:
    return "command:" + shlex.join([sys.executable, "-S", "-c", PLAYER, str(sound)])
