"""`python -m soak.image [--store FOLDER]`: the container image, built by deploy/Containerfile and run as compose.yaml runs it (wants root).

No registry is asked: its base is a Debian with Python that debootstrap makes. The image hears a simulated fan that fails and publishes the
alert to a mosquitto; its health check is asked; it runs without a right, on a root that can't be written, with a volume for its state.
What of the index of packages is known against its libraries is asked too. With a FOLDER the base is kept there for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from rig import image_builder
from rig.broker import HOST, Broker, Subscriber, mosquitto
from rig.image_builder import BASE, IMAGE, ImageBuilder, RunningImage
from rig.release import release_program
from rig.waiting import wait_until

STATE, CONFIGURATION = "/var/lib/asd-daemon", "/etc/asd-daemon"


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def check_config(config: dict[str, Any]) -> None:
    """What an engine is told of the image."""
    assert int(config["User"]) > 0
    assert config["Entrypoint"] == ["asd-daemon"]
    assert config["Healthcheck"]["Test"] == ["CMD", "asd-daemon", "status", "--alive"], config.get("Healthcheck")
    assert list(config["Volumes"]) == [STATE]
    assert config["StopSignal"] == "SIGTERM"


def prove(root: Path, config: dict[str, Any], folder: Path, broker: Broker) -> None:
    """It hears, judges, publishes and stops."""
    state, settings = folder / "state", folder / "settings"
    state.mkdir()
    settings.mkdir()
    os.chown(state, int(config["User"]), int(config["User"]))
    content = {
        "machines": {"fan": {"source": {"simulate": "fan?speed=20&fail=rubbing&fail_after=60"}}},
        "mqtt": {"host": HOST, "port": broker.port},
    }
    (settings / "asd-daemon.yaml").write_text(json.dumps(content))
    volumes = {STATE: state, f"{CONFIGURATION}:ro": settings}
    command = [*config["Cmd"], "--node", "box"]
    with Subscriber(broker.port) as heard, RunningImage(root, config, command, volumes, folder / "log") as running:
        alert = heard.wait_for(lambda m: m.topic == "asd/box/fan/alert" and m.payload["kind"] == "open").payload
        say(f"heard a fan that fails: {alert['text']}")
        status = running.status()
        assert set(status["Uid"].split()) == {config["User"]}
        assert (status["CapEff"], status["NoNewPrivs"]) == ("0" * 16, "1")
        health = running.run(*config["Healthcheck"]["Test"][1:])
        assert health.returncode == 0, health.stdout + health.stderr
        refused = running.run("touch", "/usr/x", "/etc/x", "/x")
        assert refused.stderr.count("Read-only file system") == 3, refused.stderr
        clip = state / alert["clip"]
        wait_until(clip.is_file, "the sound of the alert is in the volume")
        assert clip.stat().st_uid == int(config["User"])
        say(f"user {config['User']} without a right, root read-only, health check well, {alert['clip']} in the volume")
        assert running.stop() == 0, (folder / "log").read_text()[-2000:]
        heard.wait_for(lambda m: m.topic == "asd/box/availability" and m.payload == "stopped")
    say("stopped in order")


def libraries(root: Path) -> dict[str, str]:
    """Python's libraries in the image by name, with their versions."""
    (packages,) = root.glob("usr/local/lib/python3*/dist-packages")
    return {one.name: one.version for one in metadata.distributions(path=[str(packages)])}


def audit(found: dict[str, str], folder: Path) -> str:
    """What is known against the image's own libraries, and that they are those that deploy/release/audit.py asks about."""
    module = release_program("audit")
    wanted = dict(line.split("==") for line in module.edge_requirements().splitlines())
    named = {name.lower().replace("_", "-"): version for name, version in found.items()}
    assert named.keys() - {"asd-edge"} == {name.lower().replace("_", "-") for name in wanted}, (
        named.keys() ^ wanted.keys()
    )
    bill = folder / "image.cdx.json"
    frozen = folder / "frozen.txt"
    frozen.write_text("".join(f"{name}=={version}\n" for name, version in sorted(found.items()) if name != "asd-edge"))
    words = ["requirements", "--output-format", "JSON", "--output-file", str(bill), str(frozen)]
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *words], check=True)
    listed = len(json.loads(bill.read_text())["components"])
    assert listed == len(wanted)
    try:
        told = module.asked_about(frozen.read_text())
    except ValueError as e:
        return f"{listed} libraries in its bill of materials; the index could not be asked: {str(e)[-200:]}"
    assert not module.known_faults(told), module.known_faults(told)
    return f"{listed} libraries in its bill of materials: {module.in_words(told)}"


def main() -> int:
    """Everything in turn; 1 where something does not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path)
    store = parser.parse_args().store
    why = image_builder.missing() or ("mosquitto is not installed" if mosquitto() is None else None)
    if why is not None:
        say(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="asd-image-") as name:
        folder = Path(name)
        builder = ImageBuilder(store or folder / "store")
        builder.make_base(folder / "base")
        began_s = time.monotonic()
        config = builder.build()
        check_config(config)
        sizes = " over ".join(f"{builder.bytes_of(image) / 1e6:.0f} MB" for image in (IMAGE, BASE))
        say(f"built in {time.monotonic() - began_s:.0f} s: {sizes} of its base")
        container, root = builder.mount()
        try:
            with Broker(folder / "broker") as broker:
                prove(root, config, folder, broker)
            say(audit(libraries(root), folder))
        finally:
            builder.run("rm", container)
    return 0


if __name__ == "__main__":
    sys.exit(main())
