"""`python -m rig.screenshots FOLDER`: the pictures of the README, of simulated machines.

First 25 minutes of sound at twenty times its speed, then the same machines at their own, one of them failing, and a browser that looks.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Page

from rig.browser import DESKTOP, PHONE, browser, window
from rig.daemon import RunningDaemon
from rig.page import RunningPage
from rig.waiting import wait_until

SPEED, WINDOWS = 20, 150
PAST = {
    "fan": f"fan?seed=5&fail=rubbing&fail_after=500&repair_after=900&speed={SPEED}",
    "gearbox": f"gearbox?seed=3&speed={SPEED}",
    "slider": f"slider?seed=2&speed={SPEED}",
}
PRESENT = {"fan": "fan?seed=5&fail=rubbing&fail_after=65", "gearbox": "gearbox?seed=3", "slider": "slider?seed=2"}


def configure(home: Path, sources: dict[str, str]) -> Path:
    """A configuration of simulated machines."""
    machines = {name: {"source": {"simulate": source}} for name, source in sources.items()}
    file = home / "c.json"
    file.write_text(json.dumps({"node": "line-3", "machines": machines, "keep": {"scores_every_s": 5}}))
    return file


def scored(home: Path) -> int:
    """Windows of the machine that has the fewest."""
    files = list((home / "state" / "status").glob("status-*.json"))
    if not files:
        return 0
    machines = json.loads(files[0].read_text())["machines"].values()
    return min(int(machine["counts"]["scored"]) for machine in machines)


def date_anew(home: Path) -> None:
    """Windows that were heard faster than they sound have times of the future: as if the last had come just now."""
    with closing(sqlite3.connect(home / "state" / "scores.sqlite")) as scores, scores:
        last_ms = scores.execute("select max(at_ms) from score").fetchone()[0]
        ahead_ms = last_ms - round(time.time() * 1000)
        scores.execute("update score set at_ms = at_ms - ?", (ahead_ms,))
    with closing(sqlite3.connect(home / "state" / "history.sqlite")) as alerts, alerts:
        alerts.execute("update event set opened_ms = opened_ms - ?1, closed_ms = closed_ms - ?1", (ahead_ms,))


def look(tab: Page, origin: str, folder: Path, size: str) -> None:
    """The pages, one picture each."""
    tab.goto(origin)
    tab.wait_for_function("() => document.querySelector('.machine[data-state=alert]')")
    tab.wait_for_timeout(31_000)  # until the spectrograms are full
    tab.screenshot(path=folder / f"now-{size}.png")
    tab.get_by_role("link", name="Look at the alert").click()
    tab.wait_for_function(
        "() => !document.querySelector('#normal-canvas ~ [data-note]').textContent && document.querySelector('.band')"
    )
    tab.screenshot(path=folder / f"alert-{size}.png")
    tab.goto(f"{origin}/history?machine=fan")
    tab.get_by_role("button", name="6 hours").click()
    tab.wait_for_function("() => document.getElementById('summary').textContent.includes('6 hours')")
    tab.get_by_role("slider").focus()
    for _ in range(12):
        tab.keyboard.press("ArrowRight")
    tab.screenshot(path=folder / f"history-{size}.png")


def look_at_learning(tab: Page, origin: str, folder: Path, size: str) -> None:
    """A machine that is added, placed, and being learned."""
    title = "Compressor"
    tab.goto(f"{origin}/learn")
    tab.get_by_role("radio", name="a simulated machine").check()
    tab.get_by_role("textbox", name="Simulated machine").fill("gearbox?seed=9")
    tab.get_by_label("What do people call the machine?").fill(title)
    tab.get_by_role("button", name="Add it").click()
    tab.get_by_label("How long?").select_option("20 minutes")
    tab.get_by_role("button", name="Begin to learn").click()
    tab.wait_for_function(
        "() => Number(document.getElementById('progress').value) >= 2 && document.querySelector('.advice .good')"
    )
    tab.evaluate("() => document.querySelector('.notice')?.remove()")
    tab.screenshot(path=folder / f"learn-{size}.png")
    tab.get_by_role("button", name="Hear it no more").click()


def main(words: list[str]) -> int:
    """Take them."""
    folder = Path(words[0])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        home = Path(made)
        with RunningDaemon("run", "--config", configure(home, PAST), home=home) as daemon:
            for part in range(1, 11):  # each within the patience of a test
                wait_until(lambda least=part: scored(home) >= WINDOWS * least // 10, f"{part} tenths of the past")  # type: ignore[misc]
            daemon.stop()
        date_anew(home)
        with (
            RunningDaemon("run", "--config", configure(home, PRESENT), home=home) as daemon,
            RunningPage(home) as page,
            browser() as started,
        ):
            with window(started, DESKTOP) as tab:
                look(tab, page.origin, folder, "desktop")
                look_at_learning(tab, page.origin, folder, "desktop")
            with window(started, PHONE, "dark", 2) as tab:
                look(tab, page.origin, folder, "phone")
                look_at_learning(tab, page.origin, folder, "phone")
            daemon.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
