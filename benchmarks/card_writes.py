"""What a day of scores writes to a disk, by how long they are collected: `python benchmarks/card_writes.py FOLDER [--hop-s 10]`.

Every batch is written as the daemon writes it and then pushed out (`sync`), so that pages which a batch touches twice count once, as on a
box whose kernel writes back every half minute. FOLDER lies on a real disk; other writing to it meanwhile is not counted. The process's own
`write_bytes` are what the table says.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog

DAY_S = 86_400.0
BEGIN = datetime(2026, 11, 27, tzinfo=UTC)


def written() -> int:
    """Bytes that this process has had written."""
    found = re.search(r"^write_bytes: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def day(folder: Path, every_s: float, hop_s: float) -> tuple[int, int]:
    """Bytes of a day's scores of one machine, and of the files that are there at its end."""
    now = [0.0]
    log = ScoreLog(
        folder / "scores.sqlite",
        every_s=every_s,
        days=90,
        clock_s=lambda: now[0],
        now_s=lambda: BEGIN.timestamp() + now[0],
    )
    before, batches = written(), 0
    while now[0] < DAY_S:
        now[0] += hop_s
        log.add(LoggedScore("fan", BEGIN + timedelta(seconds=now[0]), 1.0123456 + now[0] % 7, 1.5))
        if now[0] // every_s > batches:
            batches = int(now[0] // every_s)
            os.sync()
    log.close()
    os.sync()
    return written() - before, sum(file.stat().st_size for file in folder.iterdir())


def main() -> None:
    """As on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hop-s", type=float, default=10.0)
    said = parser.parse_args()
    print("collected  written a day  file")
    for every_s in (60, 300, 900, 1800, 3600):
        with tempfile.TemporaryDirectory(dir=said.folder) as folder:
            wrote, size = day(Path(folder), every_s, said.hop_s)
        print(f"{every_s:>6} s  {wrote / 1e6:>10.2f} MB  {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
