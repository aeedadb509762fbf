"""deploy/fleet with the real programs: its rules, its dashboard, and a box that is gone."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
import yaml

from rig.broker import mosquitto
from soak import fleet

FLEET = fleet.FLEET
PROGRAMS = ("prometheus", "promtool", "prometheus-alertmanager", "amtool", "prometheus-mqtt-exporter")
LACKING = next((f"{name} is not installed" for name in PROGRAMS if shutil.which(name) is None), None)
needs_prometheus = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


@needs_prometheus
def test_rules_and_configurations_are_taken_and_tell_what_they_should() -> None:
    for words in (
        ["promtool", "check", "config", "--syntax-only", "prometheus.yaml"],
        ["promtool", "check", "rules", "rules.yaml"],
        ["promtool", "test", "rules", "rules-test.yaml"],
        ["amtool", "check-config", "alertmanager.yaml"],
    ):
        done = subprocess.run(words, cwd=FLEET, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_rules_ask_for_what_the_exporters_give() -> None:
    given = {
        metric["prom_name"]
        for file in (FLEET / "exporters").iterdir()
        for metric in yaml.safe_load(file.read_text())["metrics"]
    }
    assert len(given) == 9
    asked = set(fleet.METRIC.findall((FLEET / "rules.yaml").read_text()))
    asked |= set(fleet.METRIC.findall((FLEET / "grafana" / "dashboard.json").read_text()))
    assert asked <= given
    assert given - asked == {"asd_fleet_state_threshold"}


def test_compose_names_files_and_services_that_exist() -> None:
    compose = yaml.safe_load((FLEET / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in compose["volumes"] if "/" not in source else (FLEET / source).exists(), (name, volume)
    targets = yaml.safe_load((FLEET / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"][0][
        "targets"
    ]
    assert (
        {target.split(":")[0] for target in targets}
        == {"state", "score", "availability", "about"}
        <= set(compose["services"])
    )
    uids = {panel["id"] for panel in json.loads((FLEET / "grafana" / "dashboard.json").read_text())["panels"]}
    assert len(uids) == 11


@needs_prometheus
@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_box_that_is_gone_is_told_and_the_dashboard_finds_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert fleet.main() == 0
    assert "told: [('BoxGone', 'hall-b')]" in capsys.readouterr().out
