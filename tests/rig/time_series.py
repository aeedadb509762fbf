"""The engines that keep what boxes say, as Debian has them, with the retention of deploy/fleet: VictoriaMetrics, Prometheus, InfluxDB 1."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import yaml

from rig.broker import HOST, free_port
from rig.waiting import wait_until

FLEET = Path(__file__).parents[2] / "deploy" / "fleet"
DAY_S = 86_400
METRIC = "asd_fleet_score"
Point = tuple[float, float]
"""Unix time in seconds, and the value."""
_UNITS = {"d": 1, "w": 7, "y": 365}


def retention_of(service: str, option: str) -> tuple[str, int]:
    """A retention of deploy/fleet/compose.yaml as its program takes it, and in days."""
    command = yaml.safe_load((FLEET / "compose.yaml").read_text())["services"][service]["command"]
    (found,) = [word for word in command if word.startswith(f"{option}=")]
    value = found.partition("=")[2]
    amount = re.fullmatch(r"(\d+)([dwy])", value)
    assert amount is not None, found
    return found, int(amount[1]) * _UNITS[amount[2]]


def ask(url: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and text of an answer; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()
    except OSError:
        return 0, ""


class Engine:
    """`with Engine(folder) as engine:`; `restart` ends it in order and starts it on the same files."""

    program = ""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def missing(cls) -> str | None:
        """Why it can't run here."""
        return None if shutil.which(cls.program) else f"{cls.program} is not installed"

    def command(self) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    def is_up(self) -> bool:
        """Whether it answers."""
        return ask(f"{self.url}/health")[0] == 200

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        wait_until(self._answers, f"{self.program} answers")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def restart(self) -> None:
        """End it, and start it again."""
        self.__exit__()
        self.__enter__()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
        return self.is_up()

    def on_disk(self) -> int:
        """Bytes of its files; those of VictoriaMetrics without its index of names."""
        data = self.folder / "data" / "data" if self.program == "victoria-metrics" else self.folder / "data"
        return sum(file.stat().st_size for file in data.rglob("*") if file.is_file())


class VictoriaMetrics(Engine):
    """As in deploy/fleet."""

    program = "victoria-metrics"

    def command(self) -> list[str]:
        retention, _ = retention_of("victoria-metrics", "-retentionPeriod")
        return [
            self.program,
            retention,
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr={HOST}:{self.port}",
        ]

    def write(self, points: Sequence[Point], metric: str = METRIC, **labels: str) -> None:
        """Import points of one series."""
        line = {
            "metric": {"__name__": metric, **labels},
            "values": [value for _, value in points],
            "timestamps": [round(at * 1000) for at, _ in points],
        }
        status, text = ask(f"{self.url}/api/v1/import", json.dumps(line).encode())
        assert status == 204, text
        ask(f"{self.url}/internal/force_flush")

    def read(self, metric: str = METRIC) -> list[float]:
        """Times of all points of a metric."""
        _, text = ask(f"{self.url}/api/v1/export?match={metric}")
        return sorted(at / 1000 for line in text.splitlines() for at in json.loads(line)["timestamps"])

    def ignored(self) -> int:
        """Points that were refused since they are too old."""
        _, text = ask(f"{self.url}/metrics")
        found = re.search(r'vm_rows_ignored_total\{reason="small_timestamp"\} (\d+)', text)
        assert found is not None
        return int(found[1])


class Prometheus(Engine):
    """As in deploy/fleet; points of the past are put beside its files before it starts."""

    program = "prometheus"

    configuration = "global: {scrape_interval: 15s}\n"

    def command(self) -> list[str]:
        retention, _ = retention_of("prometheus", "--storage.tsdb.retention.time")
        (self.folder / "prometheus.yaml").write_text(self.configuration)
        places = [f"--storage.tsdb.path={self.folder / 'data'}", f"--web.listen-address={HOST}:{self.port}"]
        return [self.program, "--config.file=prometheus.yaml", retention, *places]

    def is_up(self) -> bool:
        return ask(f"{self.url}/-/ready")[0] == 200

    def write(self, points: Sequence[Point]) -> None:
        """Make blocks of points of one series; before it starts."""
        lines = [f"# TYPE {METRIC} gauge", *(f"{METRIC} {value} {at:.3f}" for at, value in sorted(points)), "# EOF"]
        (self.folder / "points").write_text("\n".join(lines) + "\n")
        words = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "points", "data"]
        subprocess.run(words, cwd=self.folder, check=True, capture_output=True)

    def read(self) -> list[float]:
        """Times of all points."""
        query = urllib.parse.urlencode({"query": f"{METRIC}[3y]", "time": f"{time.time():.0f}"})
        _, text = ask(f"{self.url}/api/v1/query?{query}")
        found = json.loads(text)["data"]["result"] if text else []
        return sorted(at for series in found for at, _ in series["values"])


class InfluxDB(Engine):
    """Version 1, whose retention belongs to the database; not part of deploy/fleet, but what some plants have."""

    program = "influxd"
    DAYS = 5 * 365

    def command(self) -> list[str]:
        lines = [
            "reporting-disabled = true",
            f'bind-address = "{HOST}:{free_port()}"',
            f'[meta]\n dir = "{self.folder}/meta"',
            f'[data]\n dir = "{self.folder}/data"\n wal-dir = "{self.folder}/wal"',
            f'[http]\n bind-address = "{HOST}:{self.port}"\n log-enabled = false',
            "[monitor]\n store-enabled = false",
        ]
        (self.folder / "influxdb.conf").write_text("\n".join(lines) + "\n")
        return [self.program, "-config", str(self.folder / "influxdb.conf")]

    def is_up(self) -> bool:
        return ask(f"{self.url}/ping")[0] == 204

    def create(self) -> None:
        """A database that keeps so many days."""
        query = urllib.parse.urlencode({"q": f"CREATE DATABASE asd WITH DURATION {self.DAYS}d SHARD DURATION 7d"})
        status, text = ask(f"{self.url}/query?{query}", b"")
        assert (status, "error" in text) == (200, False), text

    def measurements(self) -> str:
        """Names of all series, as it answers."""
        return ask(f"{self.url}/query?{urllib.parse.urlencode({'db': 'asd', 'q': 'SHOW MEASUREMENTS'})}")[1]

    def write(self, points: Sequence[Point]) -> tuple[int, str]:
        """Write points of one series; how it answers."""
        lines = "\n".join(f"{METRIC} value={value} {round(at)}" for at, value in points)
        return ask(f"{self.url}/write?db=asd&precision=s", lines.encode())

    def read(self) -> list[float]:
        """Times of all points."""
        query = urllib.parse.urlencode({"db": "asd", "epoch": "s", "q": f"SELECT value FROM {METRIC}"})
        _, text = ask(f"{self.url}/query?{query}")
        (result,) = json.loads(text)["results"]
        return sorted(float(at) for series in result.get("series", ()) for at, _ in series["values"])
