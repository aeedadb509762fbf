"""What deploy/fleet keeps and for how long, with the real engines where they are installed; `make soak` has InfluxDB and the bytes too."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.time_series import Prometheus, VictoriaMetrics, retention_of
from soak.retention import prove_prometheus, prove_victoria_metrics

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "many-boxes.md"


@pytest.mark.skipif(VictoriaMetrics.missing() is not None, reason=str(VictoriaMetrics.missing()))
def test_victoria_metrics_refuses_what_is_too_old_and_keeps_the_rest_over_a_restart(tmp_path: Path) -> None:
    prove_victoria_metrics(tmp_path / "engine")


@pytest.mark.skipif(Prometheus.missing() is not None, reason=str(Prometheus.missing()))
def test_prometheus_deletes_what_is_too_old_and_keeps_the_rest_over_a_restart(tmp_path: Path) -> None:
    prove_prometheus(tmp_path / "engine")


def test_the_page_says_what_is_configured() -> None:
    text = DOCS.read_text()
    for service, option in (("victoria-metrics", "-retentionPeriod"), ("prometheus", "--storage.tsdb.retention.time")):
        assert f"`{retention_of(service, option)[0]}`" in text
