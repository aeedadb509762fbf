"""A microphone that is unplugged, frozen, starved, swapped, silent, whose server is killed, over and over, under the daemon's own process.

Each fault must be told and each return be heard, and nothing may leak: memory, descriptors, children.

`PYTHONPATH=tests python -m soak.microphone --cycles 50`
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from rig.bundles import write_tiny_bundle
from rig.daemon import RunningDaemon
from rig.feeder import Feeder
from rig.microphone import NAME, VirtualMicrophone
from rig.waiting import PATIENT_S

SETTLE_S = 1.0  # of sound between two faults: half a minute of it is another test's business
_SILENCE_S = 600


@dataclass(frozen=True)
class Reading:
    """What the daemon holds at some moment, with sound flowing."""

    mb: float
    """Resident memory of the daemon itself."""
    descriptors: int
    children: int


@dataclass
class MicrophoneReport:
    """What came of it."""

    found_s: dict[str, list[float]] = field(default_factory=dict)
    """Fault → seconds until it was told, each time."""
    back_s: dict[str, list[float]] = field(default_factory=dict)
    """Fault → seconds from the device's return until its sound was heard."""
    readings: list[Reading] = field(default_factory=list)

    @property
    def cycles(self) -> int:
        """How many faults there were."""
        return sum(map(len, self.found_s.values()))

    def growth_mb(self, warm: int = 6) -> float:
        """Memory at the end against that after one round of all faults."""
        return self.readings[-1].mb - self.readings[min(warm, len(self.readings) - 1)].mb

    def leaks(self, warm: int = 6, most_growth_mb: float = 2.0) -> list[str]:
        """What is more at the end than after one round."""
        first, last = self.readings[min(warm, len(self.readings) - 1)], self.readings[-1]
        found = []
        if last.descriptors > first.descriptors:
            found.append(f"descriptors went from {first.descriptors} to {last.descriptors}")
        if last.children > first.children:
            found.append(f"children went from {first.children} to {last.children}")
        if self.growth_mb(warm) >= most_growth_mb:
            found.append(f"memory grew by {self.growth_mb(warm):.1f} MB")
        return found


class Watcher:
    """Waits for what the daemon says."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._daemon, self._tick = daemon, threading.Event()

    def until(self, what: str, is_there: Callable[[], bool]) -> float:
        """Wait for something; the seconds it took."""
        start_s = time.monotonic()
        while not is_there():
            if time.monotonic() - start_s > PATIENT_S or self._daemon.process.poll() is not None:
                raise RuntimeError(f"no {what} in {PATIENT_S:g} s; the log:\n{''.join(self._daemon.log[-20:])}")
            self._tick.wait(0.02)
        return time.monotonic() - start_s

    def rest(self, seconds: float) -> None:
        """Let sound flow."""
        self._tick.wait(seconds)

    def sounds(self) -> int:
        """How often the daemon has said that there is sound (again)."""
        return sum(reason == "sound is back" for _, reason in self.states())

    def states(self) -> list[tuple[str, str]]:
        """Every state with its reason, as told."""
        told = [json.loads(line) for line in list(self._daemon.lines)]
        return [(line["state"], str(line["reason"])) for line in told if line["topic"] == "state"]

    def reading(self) -> Reading:
        """What the daemon holds, zombies too: the least of some looks, as files and small programs come and go."""
        looks = []
        for _ in range(5):
            self._tick.wait(0.05)
            process = psutil.Process(self._daemon.process.pid)
            looks.append((process.memory_info().rss / 2**20, process.num_fds(), len(process.children(recursive=True))))
        return Reading(*map(min, zip(*looks, strict=True)))


def suffer(cycles: int, folder: Path) -> MicrophoneReport:
    """Start without a microphone, then go through the faults one after the other, so many times in all."""
    write_tiny_bundle(folder / "tiny")
    report = MicrophoneReport()
    with VirtualMicrophone(folder / "v") as microphone, Feeder(microphone.fifo, idle_peak=4000) as feeder:
        microphone.kill()
        words = ["run", "--machine", "fan", "--bundle", folder / "tiny", "--no-mqtt", "--wait-for-device"]
        words += ["--source", f"device:{NAME}?rate_hz=16000"]
        with RunningDaemon(*words, home=folder, more=microphone.environment) as daemon:
            watcher = Watcher(daemon)
            watcher.until("mic_lost at the start", lambda: ("mic_lost") in [s for s, _ in watcher.states()])
            microphone.up()
            took_s = watcher.until("first sound", lambda: watcher.sounds() > 0)
            report.back_s["absent at boot"] = [took_s]
            faults = _faults(microphone, feeder)
            for number in range(cycles):
                _one(list(faults)[number % len(faults)], faults, watcher, report)
            daemon.stop()
    return report


Fault = tuple[Callable[[], None], Callable[[], None], str]


def _faults(microphone: VirtualMicrophone, feeder: Feeder) -> dict[str, Fault]:
    """Name → how it comes, how it goes, and the state that it must be told as."""

    def swap() -> None:
        microphone.plug_other()
        microphone.yank_ours()

    def swap_back() -> None:
        microphone.unplug_all()
        microphone.replug()

    silence = np.zeros(_SILENCE_S * 16_000, np.int16)
    return {
        "unplugged": (microphone.yank, microphone.replug, "mic_lost"),
        "frozen": (microphone.freeze, microphone.thaw, "mic_lost"),
        "starved": (feeder.starve, lambda: feeder.starve(False), "mic_lost"),
        "swapped": (swap, swap_back, "wrong_device"),
        "server killed": (microphone.kill, microphone.up, "mic_lost"),
        "silent": (lambda: feeder.interrupt(silence), lambda: feeder.interrupt(silence[:0]), "unusable"),
    }


def _one(name: str, faults: dict[str, Fault], watcher: Watcher, report: MicrophoneReport) -> None:
    """Let one fault come and go."""
    come, go, state = faults[name]
    watcher.rest(SETTLE_S)
    told, sounds = len(watcher.states()), watcher.sounds()
    come()

    def is_told() -> bool:
        return any(s == state and (state != "unusable" or r == "silence") for s, r in watcher.states()[told:])

    report.found_s.setdefault(name, []).append(watcher.until(f"{state} after {name}", is_told))
    go()
    took_s = watcher.until(f"sound after {name}", lambda: watcher.sounds() > sounds)
    report.back_s.setdefault(name, []).append(took_s)
    watcher.rest(SETTLE_S)
    report.readings.append(watcher.reading())


def main() -> int:
    """Go through it, and print what came of it."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--cycles", type=int, default=50)
    wanted = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        report = suffer(wanted.cycles, Path(folder))
    for name in sorted({*report.found_s, *report.back_s}):
        found, back = report.found_s.get(name, []), report.back_s.get(name, [])
        told = f"told within {max(found):.1f} s" if found else "told"
        heard = f", heard again within {max(back):.1f} s" if back else ""
        sys.stdout.write(f"{name}: {max(len(found), len(back))} times, {told}{heard}\n")
    last = report.readings[-1]
    sys.stdout.write(
        f"{report.cycles} cycles: memory {last.mb:.1f} MB {report.growth_mb():+.2f} MB after one round of all,"
        f" {last.descriptors} descriptors, {last.children} children\n"
    )
    for leak in report.leaks():
        sys.stdout.write(f"FAULT: {leak}\n")
    return 1 if report.leaks() else 0


if __name__ == "__main__":
    sys.exit(main())
