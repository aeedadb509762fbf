"""A microphone without hardware: a private PulseAudio whose one source is fed through a FIFO; it can be unplugged, frozen, killed.

The way of the sound is the real one: PulseAudio → ALSA's pulse plugin → PortAudio → sounddevice, sample for sample.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

from rig.waiting import PATIENT_S, wait_until

NAME = "asdmic"
RATE_HZ = 16_000


def missing() -> str | None:
    """What keeps the virtual microphone from working here; None when nothing does."""
    for program in ("pulseaudio", "pactl"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    plugins = list(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so"))
    if not plugins:
        return "libasound2-plugins is not installed"
    if not list(Path("/usr/lib").glob("*/libportaudio.so*")):
        return "libportaudio2 is not installed"
    return None


class VirtualMicrophone:
    """`with VirtualMicrophone(folder) as microphone:`; a process sees it with `microphone.environment`."""

    def __init__(self, folder: Path, rate_hz: int = RATE_HZ, channels: int = 1, others: int = 0) -> None:
        """With so many other microphones beside it, which are named asdmic-1, asdmic-2 … and fed through `other_fifos`."""
        self.folder = folder
        self.fifo = folder / "mic.fifo"
        self.other_fifos = [folder / f"mic-{number}.fifo" for number in range(1, others + 1)]
        self._rate_hz, self._channels = rate_hz, channels
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What to add to the environment of a process that shall find this microphone."""
        return {
            "PULSE_SERVER": f"unix:{self.folder}/native",
            "ALSA_CONFIG_PATH": str(self.folder / "asound.conf"),
            "PULSE_RUNTIME_PATH": str(self.folder),
            "PULSE_STATE_PATH": str(self.folder),
            "JACK_NO_START_SERVER": "1",
        }

    @property
    def _module(self) -> list[str]:
        return f"module-pipe-source source_name={NAME} file={self.fifo} format=s16le rate={self._rate_hz} channels={self._channels}".split()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        names = [NAME, *(f"{NAME}-{number}" for number in range(1, len(self.other_fifos) + 1))]
        (self.folder / "asound.conf").write_text(
            "</usr/share/alsa/alsa.conf>\n"
            'pcm_type.pulse { lib "libasound_module_pcm_pulse.so" }\n'
            + "".join(
                f'pcm.{name} {{ type pulse server "unix:{self.folder}/native" device "{name}" '
                f'hint {{ show on description "virtual microphone {name}" }} }}\n'
                for name in names
            )
        )
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end(signal.SIGKILL)

    def up(self, *, with_microphone: bool = True) -> None:
        """Start the sound server."""
        (self.folder / "native").unlink(missing_ok=True)
        self.fifo.unlink(missing_ok=True)
        lines = [f"load-module module-native-protocol-unix socket={self.folder}/native auth-anonymous=1"]
        if with_microphone:
            lines += [f"load-module {' '.join(self._module)}", f"set-default-source {NAME}"]
            for number, fifo in enumerate(self.other_fifos, 1):
                words = self._module[3:]
                lines.append(
                    f"load-module module-pipe-source source_name={NAME}-{number} file={fifo} {' '.join(words)}"
                )
        script = self.folder / "pulse.pa"
        script.write_text("\n".join(lines) + "\n")
        command = ["pulseaudio", "-n", "-F", str(script), "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
        command += [
            "--disable-shm=yes",
            "--realtime=no",
            "--high-priority=no",
            f"--log-target=file:{self.folder}/pulse.log",
        ]
        environment = {k: v for k, v in os.environ.items() if k != "DBUS_SESSION_BUS_ADDRESS"}
        environment |= {**self.environment, "HOME": str(self.folder)}
        self._server = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: self._pactl("info").returncode == 0, f"pulseaudio is up (see {self.folder}/pulse.log)")

    def yank(self) -> None:
        """Pull the microphone's plug."""
        self._pactl("unload-module", "module-pipe-source").check_returncode()

    def replug(self) -> None:
        """Put it back."""
        self._pactl("load-module", *self._module).check_returncode()
        self._pactl("set-default-source", NAME).check_returncode()

    def plug_other(self) -> None:
        """Plug in another microphone: what records from ours is moved to it without a word when ours is pulled."""
        other = f"module-pipe-source source_name=other file={self.folder}/other.fifo format=s16le rate={self._rate_hz} channels=1"
        self._pactl("load-module", *other.split()).check_returncode()

    def yank_ours(self) -> None:
        """Pull our microphone's plug and leave the other."""
        listing = self._pactl("list", "short", "modules").stdout.decode().splitlines()
        ours = next(line.split("\t")[0] for line in listing if f"source_name={NAME} " in line)
        self._pactl("unload-module", ours).check_returncode()

    def unplug_all(self) -> None:
        """Pull every microphone's plug."""
        self._pactl("unload-module", "module-pipe-source").check_returncode()

    def freeze(self) -> None:
        """Stop the sound server without ending it: a device that hangs."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the sound server as a crash does."""
        self._end(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._server is None:
            raise RuntimeError("the sound server is not up")
        self._server.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                self._server.send_signal(number)
            self._server.wait(PATIENT_S)
            self._server = None

    def _pactl(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        environment = {**os.environ, **self.environment, "HOME": str(self.folder)}
        return subprocess.run(["pactl", *words], env=environment, capture_output=True, check=False, timeout=PATIENT_S)
