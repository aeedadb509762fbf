"""What the README's first command shows: an alert that opens and closes, told by a real broker, whatever else is published beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rig.broker import mosquitto
from rig.daemon import daemon_environment

DEMO = Path(__file__).parents[2] / "deploy" / "demo.py"


@pytest.mark.broker
@pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")
def test_demo_ends_with_an_alert_that_opened_and_closed(tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO)]
    done = subprocess.run(command, env=daemon_environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.rstrip().endswith("The alert opened and closed.")
    assert "ALERT, score up to" in done.stdout
