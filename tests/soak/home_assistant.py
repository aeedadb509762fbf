"""Does Home Assistant itself see what it should? Its own core and MQTT integration with mosquitto and a daemon, in their own environment.

    PYTHONPATH=tests python -m soak.home_assistant [--python python3.13] [--environment FOLDER]

Prints one JSON object with the seconds that each change took to be seen, and ends with 0 only if every one was seen within 5 s. Where Home
Assistant can't be installed (no Python 3.13, no network) it says so and ends with 0. The environment is thrown away unless one is named.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from rig.broker import HOST, Broker, mosquitto
from rig.daemon import RunningDaemon
from rig.ears import simulated_fan

VERSION = "2025.3.4"
LIMIT_S = 5.0
PATIENCE_S = 120.0
CORE = Path(__file__).resolve().parents[1] / "rig" / "home_assistant_core.py"
_UNHEARD = {"binary_sensor.fan_box_problem": "unavailable", "sensor.fan_box_score": "unavailable"}
_PICTURE = "image.fan_box_last_alert"
_PLAYER = """
import pathlib, sys, time
sound, gone = open(sys.argv[1], "rb").read(), pathlib.Path(sys.argv[2])
begin = time.monotonic()
for second in range(10**9):
    if gone.exists():
        sys.exit("the microphone is gone")
    at = second * 32000 % (len(sound) - 32000)
    sys.stdout.buffer.write(sound[at : at + 32000]); sys.stdout.buffer.flush()
    time.sleep(max(0.0, begin + second + 1 - time.monotonic()))
"""


class HomeAssistant:
    """The core as a process; what its entities are now."""

    def __init__(self, python: Path, folder: Path, port: int) -> None:
        self._command = [str(python), str(CORE), str(folder), str(port)]
        self.states: dict[str, str] = {}
        self.is_set_up = False
        self._arrived = threading.Condition()

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self._arrived:
                if "flow" in said:
                    self.is_set_up = said["flow"].endswith("create_entry")
                elif said["state"] is None:
                    self.states.pop(said["entity"], None)
                else:
                    self.states[said["entity"]] = said["state"]
                self._arrived.notify_all()

    def seconds_until(self, fits: Callable[[dict[str, str]], bool], what: str) -> float:
        """How long it takes until its entities are so.

        Raises:
            AssertionError: it does not come to that.
        """
        begin_s = time.monotonic()
        with self._arrived:
            seen = self._arrived.wait_for(lambda: fits(self.states), PATIENCE_S)
        assert seen, f"{what}: {self.states}"
        return round(time.monotonic() - begin_s, 2)


def installed(python: str, folder: Path) -> Path:
    """The Python of an environment with Home Assistant at the versions of its own constraints, made where there is none yet.

    Raises:
        OSError, subprocess.CalledProcessError: it can't be had here.
    """
    own = folder / "bin" / "python"
    if not own.exists():
        subprocess.run([python, "-m", "venv", str(folder)], check=True, capture_output=True)
    run = [str(own), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wanted = f"homeassistant=={VERSION}"
    subprocess.run([*run, "download", "--no-deps", "--dest", str(folder), wanted], check=True, capture_output=True)
    with zipfile.ZipFile(next(folder.glob("homeassistant-*.whl"))) as wheel:
        constraints = folder / "package_constraints.txt"
        constraints.write_bytes(wheel.read("homeassistant/package_constraints.txt"))
    subprocess.run(
        [*run, "install", wanted, "paho-mqtt", "--constraint", str(constraints)], check=True, capture_output=True
    )
    return own


def proof(python: Path, folder: Path) -> dict[str, float]:
    """What happens to the daemon, and the seconds until Home Assistant shows it.

    Raises:
        AssertionError: it does not show something.
    """
    ear, gone = simulated_fan(), folder / "gone"
    say(folder, ear.healthy)
    (folder / "play.py").write_text(_PLAYER)
    source = {"command": f"{sys.executable} {folder}/play.py {folder}/sound {gone}", "speed": 0}
    configuration: dict[str, Any] = {"node": "box", "machines": {"fan": {"source": source}}}
    seen: dict[str, float] = {}
    home_folder = folder / "home-assistant"
    home_folder.mkdir()
    with Broker(folder / "broker") as broker, HomeAssistant(python, home_folder, broker.port) as home:
        home.seconds_until(lambda _: home.is_set_up, "the MQTT integration is set up")
        configuration["mqtt"] = {"host": HOST, "port": broker.port, "commands": True}
        file = folder / "asd.yaml"
        file.write_text(json.dumps(configuration))
        with RunningDaemon("run", "--config", file, home=folder) as daemon:
            home.seconds_until(is_heard, "a window is judged")
            gone.touch()
            seen["source gone"] = home.seconds_until(is_unheard, "the source is gone")
            gone.unlink()
            seen["source back, listening"] = home.seconds_until(
                lambda states: states["binary_sensor.fan_box_listening"] == "on", "the source is back"
            )
            home.seconds_until(is_heard, "a window is judged again")
            home.seconds_until(lambda states: states["binary_sensor.fan_box_trouble"] == "off", "there is no trouble")
            file.write_text(json.dumps({**configuration, "node": "x y"}))
            daemon.process.send_signal(signal.SIGHUP)
            seen["broken configuration told"] = home.seconds_until(
                lambda states: states["binary_sensor.fan_box_trouble"] == "on", "the configuration is refused"
            )
            file.write_text(json.dumps(configuration))
            daemon.process.send_signal(signal.SIGHUP)
            seen["mended configuration told"] = home.seconds_until(
                lambda states: states["binary_sensor.fan_box_trouble"] == "off", "the configuration is well again"
            )
            added = {"fan": {"source": source}, "mill": {"source": {"simulate": "fan"}, "model": "fan"}}
            file.write_text(json.dumps({**configuration, "machines": added}))
            daemon.process.send_signal(signal.SIGHUP)
            seen["machine added by a reload"] = home.seconds_until(
                lambda states: "sensor.mill_box_state" in states, "a machine is added"
            )
            file.write_text(json.dumps(configuration))
            daemon.process.send_signal(signal.SIGHUP)
            seen["machine removed by a reload"] = home.seconds_until(
                lambda states: "sensor.mill_box_state" not in states, "a machine is removed"
            )
            say(folder, ear.failing)  # which the player reads when it begins anew
            gone.touch()
            home.seconds_until(is_unheard, "the source is gone")
            gone.unlink()
            home.seconds_until(lambda states: states["binary_sensor.fan_box_problem"] == "on", "an alert opens")
            seen["picture of the alert"] = home.seconds_until(
                lambda states: states.get(_PICTURE, "unknown") not in ("unknown", "unavailable"), "its picture"
            )
            daemon.process.kill()
            seen["daemon killed"] = home.seconds_until(
                lambda states: all(states[entity] == "unavailable" for entity in states if "fan_box" in entity),
                "the will",
            )
        seen["entities"] = len([entity for entity in home.states if "fan_box" in entity])
    return seen


def say(folder: Path, sound: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    """Have the player play something else from its next beginning on."""
    (folder / "sound").write_bytes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def is_heard(states: dict[str, str]) -> bool:
    """Whether the machine is heard and judged, and there is no problem."""
    has_score = states.get("sensor.fan_box_score", "unknown") not in ("unknown", "unavailable")
    return has_score and states.get("binary_sensor.fan_box_problem") == "off"


def is_unheard(states: dict[str, str]) -> bool:
    """Whether nobody can take what was for what is."""
    is_known = all(states.get(entity) == state for entity, state in _UNHEARD.items())
    return is_known and states.get("binary_sensor.fan_box_listening") == "off"


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="python3.13", help="which makes the environment")
    parser.add_argument("--environment", type=Path, help="one to make or use, and to keep")
    words = parser.parse_args()
    if mosquitto() is None or (shutil.which(words.python) is None and words.environment is None):
        sys.stderr.write("mosquitto or Python 3.13 is not here: Home Assistant is left out\n")
        return 0
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as folder:
        try:
            python = installed(words.python, words.environment or Path(made))
        except (OSError, subprocess.CalledProcessError) as e:
            last = (getattr(e, "stderr", b"") or b"").decode(errors="replace").strip().splitlines()[-1:]
            sys.stderr.write(f"Home Assistant {VERSION} can't be installed here: left out ({(last or [str(e)])[0]})\n")
            return 0
        seen = proof(python, Path(folder))
    well = all(seconds <= LIMIT_S for what, seconds in seen.items() if what != "entities")
    sys.stdout.write(json.dumps({"home_assistant": VERSION, **seen, "well": well}) + "\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
