"""A real daemon, a real server: a bundle comes and judges without a window lost; one to which everything is abnormal goes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from asd_daemon.judge.bundle.bundle import MANIFEST, file_entry
from asd_daemon.judge.bundle.signature import sign_manifest
from asd_daemon.rollout.rollout_state import read_state, state_file
from rig.bundle_server import BundleServer
from rig.bundles import read_manifest, write_manifest
from rig.daemon import RunningDaemon, ask
from rig.page import RunningPage
from rig.plant import Plant
from rig.waiting import wait_until


def nervous(plant: Plant, version: str) -> Path:
    """A version by which every window of the fan is anomalous: its normal scores are said to be near 0."""
    bundle = plant.version(version)
    file = bundle / "machines" / "fan" / "calibration.json"
    calibration = json.loads(file.read_text())
    calibration["gamma"]["scale"] /= 100
    for step in calibration["tail"]:
        step["score"] /= 100
    file.write_text(json.dumps(calibration))
    manifest: dict[str, Any] = read_manifest(bundle)
    manifest["files"]["machines/fan/calibration.json"] = file_entry(file).model_dump(mode="json")
    write_manifest(bundle, manifest)
    sign_manifest(bundle / MANIFEST, plant.private)
    return bundle


def test_good_bundle_comes_and_a_nervous_one_is_taken_back(tmp_path: Path) -> None:
    plant = Plant.made(tmp_path / "plant")
    file = tmp_path / "asd.yaml"

    def configure(url: str) -> None:
        rollout = {"url": url, "insecure": True, "check": "1s", "trial": "0s"}
        fan = {"source": {"simulate": "fan?speed=60"}}
        settings = {"node": "box", "machines": {"fan": fan}, "bundle_key": str(plant.public), "bundle": rollout}
        file.write_text(json.dumps(settings))

    def said() -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(ask("bundle", "status", "--json", home=tmp_path).stdout)
        return answer

    def wait_for(phase: str) -> dict[str, Any]:
        state = state_file(tmp_path / "state" / "bundles")
        wait_until(lambda: read_state(state).phase.value == phase, f"it is {phase}")
        return said()

    plant.offer(plant.version("2"))
    with BundleServer(plant.www) as server:
        configure(server.url)
        with (
            RunningDaemon("run", "--no-mqtt", "--config", file, home=tmp_path) as daemon,
            RunningPage(tmp_path) as page,
        ):
            assert wait_for("installed")["version"] == "asd-edge-default 2"
            plant.offer(nervous(plant, "3"))
            returned = wait_for("returned")
            assert "1 alert on 1 of 1 machine" in returned["reason"], returned
            assert returned["version"] == "asd-edge-default 2"
            assert ask("bundle", "status", home=tmp_path).returncode == 1
            told = "asd-edge-default 3 judged for a while and was given up: 1 alert on 1 of 1 machine"
            wait_until(lambda: told in page.ask("/system").text, "the page says so")
            (status,) = json.loads(ask("status", "--json", home=tmp_path).stdout)
            counts = status["machines"]["fan"]["counts"]
            assert (counts["dropped"], counts["gaps"]) == (0, 0)
            assert daemon.stop() == 0, "\n".join(daemon.log)
