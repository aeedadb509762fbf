"""`python -m soak.retention`: what is too old goes, the rest stays over a restart, in each engine; and how many bytes a sample takes.

VictoriaMetrics and Prometheus with the retention of deploy/fleet, InfluxDB 1 with the one of docs/how-to/many-boxes.md. The bytes are of
made-up scores with as many digits as are published, of what hardly changes, and of both as one machine of one box gives them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rig.broker import HOST
from rig.time_series import DAY_S, InfluxDB, Point, Prometheus, VictoriaMetrics, retention_of
from rig.waiting import wait_until

SCRAPE_S = 15
DAYS = 7
CONSTANT = ("threshold", "online", "listening", "state", "state_threshold", "disk_bytes")
SLOW = ("drift", "disk_free_bytes")


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def prove_victoria_metrics(folder: Path) -> None:
    """Points beyond the retention are refused and counted; others are there after a restart."""
    _, days = retention_of("victoria-metrics", "-retentionPeriod")
    now = time.time() // 1
    with VictoriaMetrics(folder) as engine:
        engine.write([(now - (days + 40) * DAY_S, 1.0), (now - (days + 70) * DAY_S, 1.0)])
        assert engine.ignored() == 2
        kept = [now - (days - 40) * DAY_S, now - 400 * DAY_S, now - 60]
        engine.write([(at, 1.5) for at in kept])
        assert engine.read() == kept
        engine.restart()
        assert engine.read() == kept
    say(f"VictoriaMetrics: 2 points older than {days} days refused, {len(kept)} younger ones there after a restart")


def prove_prometheus(folder: Path) -> None:
    """Blocks beyond the retention are deleted at the start; others are there after another one."""
    _, days = retention_of("prometheus", "--storage.tsdb.retention.time")
    now = time.time() // 1
    gone, kept = [now - (days + 9) * DAY_S], [now - (days - 9) * DAY_S, now - DAY_S / 4]
    engine = Prometheus(folder)
    engine.write([(at, 1.5) for at in (*gone, *kept)])
    with engine:
        assert engine.read() == kept
        engine.restart()
        assert engine.read() == kept
    say(f"Prometheus: a block older than {days} days deleted, {len(kept)} younger points there after a restart")


def prove_influxdb(folder: Path) -> None:
    """Points beyond the retention are refused by name; others are there after a restart."""
    now = time.time() // 1
    with InfluxDB(folder) as engine:
        engine.create()
        status, text = engine.write([(now - (engine.DAYS + 9) * DAY_S, 1.0)])
        assert (status, "beyond retention policy" in text) == (400, True), text
        kept = [now - (engine.DAYS - 9) * DAY_S, now - 60]
        assert engine.write([(at, 1.5) for at in kept])[0] == 204
        engine.restart()
        assert engine.read() == kept
    say(f"InfluxDB: a point older than {engine.DAYS} days refused, {len(kept)} younger ones there after a restart")


def prove_remote_write(folder: Path) -> None:
    """InfluxDB takes what Prometheus writes to it as docs/how-to/many-boxes.md says."""
    with InfluxDB(folder / "influxdb") as engine:
        engine.create()
        prometheus = Prometheus(folder / "prometheus")
        prometheus.configuration = (
            f'scrape_configs: [{{job_name: own, scrape_interval: 1s, static_configs: [{{targets: ["{HOST}:{prometheus.port}"]}}]}}]\n'
            f'remote_write: [{{url: "{engine.url}/api/v1/prom/write?db=asd"}}]\n'
        )
        with prometheus:
            wait_until(lambda: '"up"' in engine.measurements(), "InfluxDB has what Prometheus was told")
    say("InfluxDB has what Prometheus writes to it")


def scores(rng: np.random.Generator, samples: int) -> list[float]:
    """Scores as they are published, six decimals, with a memory of a few minutes."""
    steps = rng.normal(0, 0.1, samples)
    level = np.empty(samples)
    value = 0.0
    for n, step in enumerate(steps):
        value = 0.9 * value + step
        level[n] = value
    return [round(float(x), 6) for x in np.exp(level)]


def measure(folder: Path) -> dict[str, float]:
    """Bytes a sample on VictoriaMetrics' disk: of scores, of what hardly changes, and of a machine on a box with all its series."""
    rng, samples = np.random.default_rng(0), DAYS * DAY_S // SCRAPE_S
    begin = time.time() // 1 - DAYS * DAY_S
    times = [begin + n * SCRAPE_S + round(float(j), 3) for n, j in enumerate(rng.uniform(0, 0.01, samples))]

    def written(name: str, series: dict[str, list[float]]) -> float:
        engine = VictoriaMetrics(folder / name)
        with engine:
            for metric, values in series.items():
                points: list[Point] = list(zip(times, values, strict=True))
                for first in range(0, samples, 20_000):
                    engine.write(points[first : first + 20_000], f"asd_fleet_{metric}", node="hall-a", machine="fan")
            engine.restart()  # what was in memory is on the disk now
            assert len(engine.read()) == (samples if "score" in series else 0)
            return engine.on_disk() / (samples * len(series))

    still = {name: [1.0] * samples for name in CONSTANT}
    slow = {name: [round(0.1 + 0.0001 * (n // 240), 4) for n in range(samples)] for name in SLOW}
    found = {"score": written("score", {"score": scores(rng, samples)}), "constant": written("constant", still)}
    found["machine"] = written("machine", {"score": scores(rng, samples), **still, **slow})
    return found


def main() -> int:
    """Everything in turn."""
    with tempfile.TemporaryDirectory(prefix="asd-retention-") as name:
        folder = Path(name)
        proofs = (
            (VictoriaMetrics, prove_victoria_metrics),
            (Prometheus, prove_prometheus),
            (InfluxDB, prove_influxdb),
        )
        for engine, prove in proofs:
            if (why := engine.missing()) is not None:
                say(f"skipped: {why}")
            else:
                prove(folder / engine.program)
        if InfluxDB.missing() is None and Prometheus.missing() is None:
            prove_remote_write(folder / "remote")
        if VictoriaMetrics.missing() is None:
            bytes_of = measure(folder / "bytes")
            series = 1 + len(CONSTANT) + len(SLOW)
            year_mb = bytes_of["machine"] * series * 365 * DAY_S / SCRAPE_S / 1e6
            told = ", ".join(f"{name} {value:.2f}" for name, value in bytes_of.items())
            say(
                f"bytes a sample after {DAYS} days at {SCRAPE_S} s: {told}; a machine with {series} series: {year_mb:.1f} MB a year"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
