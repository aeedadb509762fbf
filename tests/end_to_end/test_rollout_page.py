"""What the System page shows of a rollout, in a browser; the daemon is its live socket alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from asd_daemon.hear.source import SourceHealth
from asd_daemon.tell.commands import Answer
from asd_daemon.tell.payloads import Condition, MachineState
from asd_daemon.tell.storage.score_log import ScoreLog
from asd_daemon.watch.counters import Counts
from asd_daemon.watch.live_socket import LiveSocket
from asd_daemon.watch.live_sound import LiveSound
from asd_daemon.watch.report import MachineReport
from rig.browser import DESKTOP, PHONE, browser, chromium, findings, is_wider_than_the_screen, window
from rig.page import ROLLOUT_FACTS, RunningPage, leave_state
from rig.waiting import wait_until

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed")
IN_TRIAL: dict[str, Any] = {
    **ROLLOUT_FACTS,
    "version": "plant 2026.10.02",
    "offered": "plant 2026.11.27",
    "phase": "trial",
    "reason": "beside the present one for 3d",
    "ring": "plant",
    "trial": {"seconds": 183_600, "of_s": 259_200, "windows": 18_360, "left_out": 0, "present": 1, "new": 0},
}
LONG = "https://" + "bundles-of-the-plant." * 12 + "example/asd: answers 503 Service Unavailable"


class Daemon:
    """Says what the test wants to be told of a rollout."""

    def __init__(self, home: Path) -> None:
        self.facts: dict[str, Any] | None = IN_TRIAL
        self.hangs = False
        self._scores = ScoreLog(home / "state" / "none.sqlite", every_s=3600, days=1)
        self.live = LiveSocket(
            home / "state" / "status",
            LiveSound(),
            self._scores,
            dict,
            self.give,
            node="box",
            version="1",
            bundle=lambda: "plant 2026.10.02",
            rollout=lambda: self.facts,
        )
        state = MachineState(Condition.NORMAL, datetime.now(UTC), 0.5, 1.0)
        report = MachineReport(state, Counts(), SourceHealth())
        self.live.start(lambda: {"fan": report, "press": report, "pump": report})

    def give(self, _machine: object, _command: object, reply: Callable[[Answer], None], *_: object) -> None:
        """Answer every question, its log among them."""
        if not self.hangs:
            reply(Answer(ok=True, text="listening to fan"))

    def close(self) -> None:
        self.live.close()
        self._scores.close()


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, RunningPage]]:
    home = tmp_path_factory.mktemp("box")
    leave_state(home, windows=5)
    daemon = Daemon(home)
    with RunningPage(home) as page:
        yield daemon, page
    daemon.close()


def models(tab: Page, page: RunningPage, badge: str) -> Locator:
    """The part of the page that tells of bundles, once it shows a badge."""
    wait_until(lambda: f">{badge}</span>" in page.ask("/system").text, f"the page says {badge}")
    tab.goto(f"{page.origin}/system")
    return tab.get_by_role("heading", name="Models").locator("xpath=following-sibling::article[1]")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_trial_is_told_in_words_that_fit_every_screen(
    chrome: Browser, box: tuple[Daemon, RunningPage], size: tuple[int, int], scheme: str
) -> None:
    daemon, page = box
    daemon.facts = IN_TRIAL
    with window(chrome, size, "dark" if scheme == "dark" else "light") as tab:
        told = models(tab, page, "In trial")
        expect(told).to_contain_text("plant 2026.11.27 judges beside the present one, for 2 d 3 h of 3 d")
        expect(told).to_contain_text("False alarms: 0 of it, 1 of the present one, in 18360 windows.")
        expect(told).to_contain_text("fan; 2 other machines learned here, whatever the bundle")
        expect(told).to_contain_text("channel stable, ring plant; installed in the window 02:00-04:00")
        expect(told.locator("time")).to_have_attribute("datetime", IN_TRIAL["checked_at"])
        assert findings(tab) == []
        assert not is_wider_than_the_screen(tab)


def test_share_of_what_is_fetched_is_a_bar_with_a_name(chrome: Browser, box: tuple[Daemon, RunningPage]) -> None:
    daemon, page = box
    daemon.facts = IN_TRIAL | {"phase": "fetching", "reason": None, "percent": 43, "trial": None, "is_asking": True}
    with window(chrome, PHONE) as tab:
        told = models(tab, page, "Being fetched")
        expect(told.get_by_role("progressbar", name="Share of the bundle that is here")).to_have_attribute(
            "value", "43"
        )
        expect(told).to_contain_text("; it is being asked")
        assert findings(tab) == []


def test_server_that_is_not_reached_and_its_long_address_fit_a_phone(
    chrome: Browser, box: tuple[Daemon, RunningPage]
) -> None:
    daemon, page = box
    daemon.facts = IN_TRIAL | {"phase": "idle", "reason": LONG, "failures": 3, "trial": None, "checked_at": None}
    with window(chrome, PHONE) as tab:
        told = models(tab, page, "Not reached")
        expect(told).to_contain_text("did not answer as it should 3 times in a row: https://bundles-of-the-plant.")
        expect(told).to_contain_text("none yet")
        assert not is_wider_than_the_screen(tab)


def test_without_a_server_only_the_bundle_is_named(chrome: Browser, box: tuple[Daemon, RunningPage]) -> None:
    daemon, page = box
    daemon.facts = None
    wait_until(lambda: "Offered to this box" not in page.ask("/system").text, "nothing is said of an offer")
    with window(chrome, DESKTOP) as tab:
        tab.goto(f"{page.origin}/system")
        expect(tab.get_by_text("plant 2026.10.02", exact=True)).to_be_visible()


def test_page_of_a_daemon_that_hangs_comes_all_the_same(box: tuple[Daemon, RunningPage]) -> None:
    daemon, page = box
    assert "listening to fan" in page.ask("/system").text
    daemon.hangs = True
    assert "The daemon does not answer" in page.ask("/system").text
