"""`asd-daemon check` with a real microphone: it knows the device, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rig.bundles import write_tiny_bundle
from rig.daemon import ask
from rig.feeder import Feeder
from rig.microphone import NAME, VirtualMicrophone, missing

pytestmark = [pytest.mark.microphone, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


def test_check_names_the_device_its_usual_level_and_one_that_took_its_place(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    memory = tmp_path / "state" / "machines" / "fan" / "source.json"
    words = ["check", "--machine", "fan", "--bundle", tmp_path / "tiny", "--no-mqtt", "--seconds", 0.5, "--json"]
    words += ["--source", f"device:{NAME}?rate_hz=16000"]

    def source_finding(microphone: VirtualMicrophone) -> tuple[bool, str]:
        done = ask(*words, home=tmp_path, more=microphone.environment)
        found = next(f for f in map(json.loads, done.stdout.splitlines()) if f["what"] == "fan: source")
        return found["well"], found["detail"]

    with VirtualMicrophone(tmp_path / "v") as microphone, Feeder(microphone.fifo, idle_peak=4000):
        well, detail = source_finding(microphone)
        assert well, detail
        assert detail.endswith(f"pulse:{NAME}")
        assert not memory.exists()
        memory.parent.mkdir(parents=True)
        memory.write_text(json.dumps({"identity": f"pulse:{NAME}", "level_dbfs": -23.0}))
        well, detail = source_finding(microphone)
        assert well, detail
        assert f"dBFS, usually -23, pulse:{NAME}" in detail
        memory.write_text(json.dumps({"identity": "usb-id:0d8c:0014", "level_dbfs": -23.0}))
        well, detail = source_finding(microphone)
        assert not well
        assert f"this is pulse:{NAME}, not usb-id:0d8c:0014" in detail
        assert str(memory) in detail
