"""No alert is lost, whatever is killed: the short form of `python -m soak.alerts`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.broker import mosquitto
from soak.alerts import count_losses

pytestmark = [pytest.mark.broker, pytest.mark.skipif(mosquitto() is None, reason="mosquitto is not installed")]


def test_alerts_when_daemon_and_broker_are_killed_at_random_moments_all_arrive(tmp_path: Path) -> None:
    count = count_losses(tmp_path, alerts=60, kills=4, seed=1)
    assert count.made >= 60
    assert count.daemon_kills >= 4
    assert (count.lost, count.never_closed, count.out_of_order) == (0, 0, 0), count
