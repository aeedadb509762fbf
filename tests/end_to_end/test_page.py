"""The way of somebody new: an empty box, a machine that is learned, an alert that is seen and heard, another limit that is tried."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, FloatRect, Page, Route, expect

from asd_daemon.judge.alarm.alarm import AlertKind
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.run.score_replay import replay_scores
from asd_daemon.tell.storage.score_log import LoggedScore, ScoreLog
from asd_daemon.web.sessions import OPERATOR, set_password
from rig.browser import DESKTOP, NOWHERE, PHONE, browser, chromium, findings, is_wider_than_the_screen, window
from rig.daemon import RunningDaemon, ask
from rig.page import EVENT_ID, RunningPage, leave_state
from rig.waiting import wait_until

pytestmark = pytest.mark.skipif(chromium() is None, reason="chromium is not installed")
HEALTHY, FAILING = "fan?speed=30", "simulate:fan?fail=rubbing&fail_after=300&speed=30"
NAME, TITLE = "fan-3", "Fan 3"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    """A page of what an earlier run has left."""
    home = tmp_path_factory.mktemp("kept")
    leave_state(home)
    with RunningPage(home) as page:
        yield page


def test_from_an_empty_box_to_a_learned_machine_and_an_alert_that_is_normal(chrome: Browser, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "c.json").write_text(json.dumps({"machines": {}}))
    with RunningPage(tmp_path) as page, window(chrome, PHONE) as tab:
        tab.goto(page.origin)
        expect(tab.get_by_role("heading", name="No machine is heard yet")).to_be_visible()
        with RunningDaemon("run", "--config", tmp_path / "c.json", home=tmp_path) as daemon:
            tab.get_by_role("link", name="Learn a machine").focus()  # it appears by itself
            tab.keyboard.press("Enter")
            add_by_keyboard(tab)
            learn(tab)
            tab.set_viewport_size({"width": DESKTOP[0], "height": DESKTOP[1]})
            tab.goto(page.origin)
            card = tab.locator(".machine")
            expect(card.get_by_role("heading", name=TITLE)).to_be_visible()
            expect(card.get_by_text("Listening", exact=True)).to_be_visible()
            tab.wait_for_function("() => Number(document.querySelector('.meter').getAttribute('aria-valuenow')) > -89")
            expect(card.locator(".badge")).to_have_text("Normal")
            begin_to_fail = ask("settings", "set", "source", FAILING, "--machine", NAME, home=tmp_path)
            assert begin_to_fail.returncode == 0, begin_to_fail.stderr
            expect(card.locator(".badge")).to_have_text("Alert")
            card.get_by_role("link", name="Look at the alert").focus()
            tab.keyboard.press("Enter")
            look_at_alert(tab)
            say_that_it_is_normal(tab)
            tab.goto(page.origin)
            expect(card.locator(".badge")).to_have_text("Normal")
            heard = windows_judged(tab)
            wait_until(lambda: windows_judged(tab) > heard + 12, "twelve windows more")
            expect(card.locator(".badge")).to_have_text("Normal")  # it does not come back
            expect(tab.locator(".alert-row")).to_have_count(1)
            expect(tab.get_by_text("Live", exact=True)).to_be_visible()
            assert page.resident_mb < 60
            daemon.process.send_signal(signal.SIGKILL)
            killed_s = time.monotonic()
            expect(tab.get_by_text("Not listening")).to_be_visible()
            assert time.monotonic() - killed_s < 5
            expect(card.locator(".badge")).to_have_text("Not running")


def add_by_keyboard(tab: Page) -> None:
    """Choose what to hear by listening to it, on a phone and without a mouse, and give it a name."""
    tab.get_by_role("radio", name="a simulated machine").focus()
    tab.keyboard.press("Space")
    which = tab.get_by_role("textbox", name="Simulated machine")
    expect(which).to_be_visible()
    which.focus()
    tab.keyboard.press("ControlOrMeta+a")
    tab.keyboard.type(HEALTHY)
    tab.keyboard.press("Tab")
    expect(tab.locator(".advice .good")).to_contain_text("nothing disturbs")
    tab.wait_for_function("() => Number(document.querySelector('.meter').getAttribute('aria-valuenow')) > -89")
    assert findings(tab) == []
    assert not is_wider_than_the_screen(tab)
    tab.get_by_label("What do people call the machine?").fill(TITLE)
    tab.keyboard.press("Enter")
    expect(tab.locator(".notice")).to_have_text(f"Fan 3 is heard now; it is called {NAME} in messages.")


def learn(tab: Page) -> None:
    """Let it learn, with a look at how far it is after the page was loaded again; what was learned, and a knock that is none."""
    tab.get_by_label("How long?").select_option("3 minutes")
    tab.get_by_role("button", name="Begin to learn").click()
    expect(tab.get_by_text("Learning has begun.")).to_be_visible()
    tab.reload()
    expect(tab.locator("#verdict")).to_have_text("Fair")  # it appears by itself
    expect(tab.get_by_text("learned from 18 windows of 10 s only")).to_be_visible()
    tab.get_by_role("button", name="I knock now").click()
    expect(tab.locator("#knocked")).to_contain_text("Not heard: the most was")
    assert findings(tab) == []
    assert not is_wider_than_the_screen(tab)


def test_a_limit_that_was_tried_is_used_and_given_back(chrome: Browser, tmp_path: Path) -> None:
    leave_state(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps({"machines": {"fan": {"source": {"simulate": "fan?speed=10"}}}}))
    with (
        RunningPage(tmp_path) as page,
        RunningDaemon("run", "--config", tmp_path / "c.json", home=tmp_path) as daemon,
        window(chrome, DESKTOP) as tab,
    ):
        wait_until(lambda: any("listening to" in line for line in daemon.log), "it listens")
        wait_until(lambda: "Learn it" in tab.request.get(f"{page.origin}/machines").text(), "the page knows it")
        tab.goto(f"{page.origin}/history?machine=fan")
        slider = tab.get_by_role("slider")
        expect(slider).to_be_enabled()
        slider.focus()
        tab.keyboard.press("End")
        wanted = float(tab.locator("#limit-value").inner_text())
        tab.get_by_role("button", name="Use this limit").click()
        expect(tab.locator(".notice")).to_have_text(f"The limit of fan is {wanted:.4g} from its next window on.")
        wait_until(lambda: limit_that_held(tab) == pytest.approx(wanted), "windows are judged by it")
        tab.get_by_role("button", name="Return to what was learned").click()
        expect(tab.locator(".notice")).to_contain_text("is the learned one again")
        wait_until(lambda: limit_that_held(tab) < wanted / 1.02, "windows are judged by the learned one")


def test_what_was_typed_and_refused_is_there_to_be_mended_by_keyboard(chrome: Browser, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "c.json").write_text(json.dumps({"machines": {"fan": {"source": {"simulate": "fan"}}}}))
    with (
        RunningPage(tmp_path) as page,
        RunningDaemon("run", "--config", tmp_path / "c.json", home=tmp_path),
        window(chrome, PHONE) as tab,
    ):
        wait_until(lambda: "Use this budget" in tab.request.get(f"{page.origin}/machines").text(), "the page knows it")
        tab.goto(f"{page.origin}/machines")
        tab.get_by_text("Change, back up, remove").click()
        field = tab.get_by_label("False alarms a week, at most")
        field.fill("-1")
        field.press("Enter")
        expect(tab.locator(".notice")).to_contain_text(
            "“False alarms a week, at most” is not changed: it must be greater"
        )
        expect(field).to_be_focused()
        expect(field).to_have_value("-1")
        expect(field).to_have_accessible_description("it must be greater than 0, got -1.0")
        assert findings(tab) == []
        assert not is_wider_than_the_screen(tab)
        field.fill("0.5")
        field.press("Enter")
        expect(tab.locator(".notice")).to_have_text("fan: “False alarms a week, at most” is 0.5 from now on.")
        assert tab.locator("[aria-invalid]").count() == 0


def test_scores_that_are_ahead_of_the_clock_are_shown(chrome: Browser, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "c.json").write_text(json.dumps({"machines": {"fan": {"source": {"simulate": "fan?speed=60"}}}}))
    with (
        RunningPage(tmp_path) as page,
        RunningDaemon("run", "--config", tmp_path / "c.json", home=tmp_path),
        window(chrome, DESKTOP) as tab,
    ):
        wait_until(lambda: latest_s(tab, page) > time.time() + 100, "what is simulated is ahead of the clock")
        ahead_s = latest_s(tab, page)
        with tab.expect_request(lambda request: "/api/scores" in request.url) as asked:
            tab.goto(page.origin)
        assert float(re.findall(r"to=([\d.]+)", asked.value.url)[0]) >= ahead_s
        expect(tab.locator(".chart.small canvas")).to_be_visible()
        tab.goto(f"{page.origin}/history?machine=fan")
        expect(tab.locator("#summary")).to_contain_text("windows in this day")
        shown = int(tab.locator("#summary").inner_text().split()[0])
        assert shown >= 10  # by the clock there was not one yet


def latest_s(tab: Page, page: RunningPage) -> float:
    """When the last window of the fan ended, as the page knows."""
    html = tab.request.get(f"{page.origin}/").text()
    found = re.search(r'data-machine="fan"[^>]* data-latest="([\d.]+)"', html)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("path", ["/history", "/alerts"])
def test_of_forty_machines_one_is_chosen_from_a_list_by_keyboard(chrome: Browser, tmp_path: Path, path: str) -> None:
    scores = leave_scores_of(tmp_path, [f"press-{number}" for number in range(1, 41)])
    with RunningPage(tmp_path) as page, window(chrome, PHONE) as tab:
        tab.goto(f"{page.origin}{path}")
        chosen = tab.get_by_label("Machine", exact=True)
        assert tab.get_by_role("navigation", name="Machine").count() == 0
        assert chosen.locator("option").count() == scores + (path == "/alerts")
        assert findings(tab) == []
        assert not is_wider_than_the_screen(tab)
        chosen.focus()
        tab.keyboard.type("press-37")
        expect(chosen).to_have_value("press-37")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        expect(tab).to_have_url(f"{page.origin}{path}?machine=press-37")
        expect(chosen).to_have_value("press-37")


def leave_scores_of(home: Path, machines: list[str]) -> int:
    """A state folder with a score of each machine; how many there are."""
    (home / "state" / "locks").mkdir(parents=True)
    log = ScoreLog(home / "state" / "scores.sqlite", every_s=3600, days=90)
    for machine in machines:
        log.add(LoggedScore(machine, datetime.now(UTC), 0.5, 1.0, None))
    log.close()
    return len(machines)


def limit_that_held(tab: Page) -> float:
    """The last one in the history; a simulation that runs faster than time is ahead of the clock."""
    return float(
        tab.evaluate(
            "async () => { const now = Date.now() / 1000; return (await asd.scores('fan', now - 3600, now + 86400)).threshold.at(-1); }"
        )
    )


def look_at_alert(tab: Page) -> None:
    """The alert's page as it is once its clip is complete: both sounds to see and to hear."""
    expect(tab.locator("#alert-audio[src]")).to_be_visible()
    for name in ("alert", "normal"):
        tab.wait_for_function(f"() => {brightness(f'{name}-canvas')} > 20")
    tab.wait_for_function("() => document.getElementById('alert-audio').readyState >= 1")
    assert tab.evaluate("() => document.getElementById('alert-audio').duration") > 15
    tab.evaluate(
        "() => { document.getElementById('normal-audio').preload = 'auto'; document.getElementById('normal-audio').load(); }"
    )
    tab.wait_for_function("() => document.getElementById('normal-audio').duration === 10")
    assert tab.locator("#alert-canvas ~ svg .band").count() == tab.locator("#normal-canvas ~ svg .band").count() > 0


def say_that_it_is_normal(tab: Page) -> None:
    """Mute and unmute, look after it, call it a fault, take that back, and say what it was."""
    tab.get_by_role("button", name="Mute 1 h").click()
    expect(tab.get_by_role("status")).to_have_text(f"No alert of {TITLE} is told now.")
    tab.get_by_role("button", name="Tell alerts again").click()
    tab.get_by_role("button", name="I look after it").click()
    expect(tab.get_by_text("Acknowledged: nothing but its end is told.")).to_be_visible()
    tab.get_by_label("Name of the fault").fill("<b>rubbing</b>")
    tab.get_by_role("button", name="A fault").click()
    expect(tab.get_by_text("You called it a fault: <b>rubbing</b>")).to_be_visible()
    tab.get_by_role("button", name="Take it back").click()
    tab.get_by_role("button", name="That was normal").click()
    expect(tab.locator(".notice")).to_contain_text("windows are taken for normal from now on")
    expect(tab.locator(".heading .badge")).to_have_text("Called normal")
    expect(tab.locator(".lead")).not_to_contain_text("like")  # itself


def windows_judged(tab: Page) -> int:
    """As the page of the system counts them."""
    text = tab.request.get(tab.evaluate("() => location.origin") + "/system").text()
    found = re.search(r"(\d+) judged", text)
    assert found is not None
    return int(found[1])


def brightness(canvas: str) -> str:
    """How bright a canvas is on average, in JavaScript."""
    return (
        f"(() => {{ const c = document.getElementById('{canvas}'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let sum = 0; for (let i = 0; i < d.length; i += 4) sum += d[i]; return sum / (d.length / 4); })()"
    )


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "dark"), (PHONE, "light"), (PHONE, "dark")])
def test_every_page_is_fit_for_screen_readers_and_for_a_phone(
    chrome: Browser, kept: RunningPage, size: tuple[int, int], scheme: str
) -> None:
    with window(chrome, size, "dark" if scheme == "dark" else "light") as tab:
        for path in (
            "/",
            "/history?machine=fan",
            "/alerts",
            "/learn",
            f"/alerts/{EVENT_ID}",
            "/machines",
            "/system",
            "/login",
            NOWHERE,
        ):
            tab.goto(kept.origin + path)
            assert findings(tab) == [], path
            assert not is_wider_than_the_screen(tab), path
            assert tab.locator(".top nav ul").bounding_box()["height"] < 60, f"{path}: the menu has two rows"  # type: ignore[index]
            tab.evaluate("() => document.querySelector('h1').textContent = 'W'.repeat(60)")
            assert not is_wider_than_the_screen(tab), f"{path}: a long title"


def test_a_page_that_is_left_open_asks_to_log_in_again_where_the_session_has_ended(
    chrome: Browser, tmp_path: Path
) -> None:
    leave_state(tmp_path)
    set_password(tmp_path / "passwords", OPERATOR, "correct horse battery")
    with RunningPage(tmp_path, password_file=str(tmp_path / "passwords")) as page:
        tab = chrome.new_page()
        tab.goto(page.origin)
        tab.get_by_label("Password").fill("correct horse battery")
        tab.keyboard.press("Enter")
        expect(tab.locator("#link")).to_have_text("Live")
        page.__exit__()
        expect(tab.locator("#link")).to_have_text("No word from the box")
        page.__enter__()  # on the same port; it knows no session
        expect(tab.get_by_label("Password")).to_be_visible()
        tab.close()


def test_a_button_that_was_pressed_says_so_and_is_pressed_once(chrome: Browser, kept: RunningPage) -> None:
    asked: list[Route] = []

    def hold(route: Route) -> None:  # answered at the end only
        asked.append(route)

    def is_sent() -> bool:
        tab.wait_for_timeout(20)
        return bool(asked)

    with window(chrome, DESKTOP) as tab:
        tab.route("**/machines/forget", hold)
        tab.goto(f"{kept.origin}/machines")
        tab.get_by_text("Change, back up, remove").click()
        tab.get_by_label("Remove it with all that was learned").fill("fan")
        busy = tab.get_by_role("button", name="Remove").evaluate(
            "button => { const sent = []; window.addEventListener('submit', (e) => sent.push(!e.defaultPrevented));"
            " button.click(); button.click(); return [button.getAttribute('aria-busy'), ...sent]; }"
        )
        assert busy == ["true", True, False]
        wait_until(is_sent, "the form is sent")
        asked[0].fulfill(status=204)
        assert len(asked) == 1


def test_another_limit_is_tried_by_keyboard_and_by_dragging(chrome: Browser, kept: RunningPage) -> None:
    with window(chrome, DESKTOP) as tab:
        tab.goto(f"{kept.origin}/history?machine=fan")
        slider, verdict, root = tab.get_by_role("slider"), tab.locator("#verdict"), tab.locator("#history")
        expect(verdict).to_have_text("At 1: 1 alert. With the limit as it was: 1.")
        slider.focus()
        tab.keyboard.press("End")
        expect(root).to_have_attribute("data-would", "0")
        for _ in range(250):
            tab.keyboard.press("ArrowLeft")
        expect(root).to_have_attribute("data-would", "1")
        over = tab.locator(".u-over").bounding_box()
        assert over is not None
        limit = float(tab.locator("#limit-value").inner_text())
        assert drag_limit_up(tab, over) > limit


def drag_limit_up(tab: Page, over: FloatRect) -> float:
    """Take the line where the pointer becomes a handle, and pull it to the top."""
    x = over["x"] + over["width"] / 2
    for step in range(int(over["height"])):
        tab.mouse.move(x, over["y"] + step)
        if tab.evaluate("() => document.querySelector('.u-over').style.cursor") == "ns-resize":
            tab.mouse.move(x, over["y"] + step + 5)
            tab.mouse.down()
            tab.mouse.move(x, over["y"] + 8, steps=4)
            tab.mouse.up()
            return float(tab.locator("#limit-value").inner_text())
    raise AssertionError("the line is nowhere")


def test_what_would_have_fired_is_what_the_daemon_says(chrome: Browser, kept: RunningPage) -> None:
    draw = random.Random(3)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    with window(chrome, DESKTOP) as tab:
        tab.goto(f"{kept.origin}/history?machine=fan")
        for number in range(40):
            rule = AlarmRule(
                open_after=(k := draw.randint(1, 4)), of=k + draw.randint(0, 4), close_after=draw.randint(1, 8),
                hysteresis=draw.choice([0, 0.05, 0.3]), cool_down_s=draw.choice([0, 60, 600]), relapse_s=draw.choice([0, 3600, 86_400]),
            )  # fmt: skip
            level = np.cumsum(np.random.default_rng(number).normal(0, 0.2, 600))
            scores = [None if draw.random() < 0.05 else float(np.float32(v + draw.gauss(0, 0.3))) for v in level]
            limit = draw.choice([None, 0.0, 0.75, -0.5])
            table = {
                "time": [start.timestamp() + 10 * i for i in range(len(scores))],
                "score": scores,
                "threshold": [0.5] * len(scores),
            }
            ours = tab.evaluate(
                "([table, rule, limit]) => asd.replay({ ...table, score: table.score.map((s) => s ?? NaN) }, rule, limit)",
                [table, asdict(rule), limit],
            )
            logged = [
                LoggedScore("fan", start + timedelta(seconds=10 * i), score, None if score is None else 0.5)
                for i, score in enumerate(scores)
            ]
            events = replay_scores(logged, rule, limit).events
            opened = [event.started_at.timestamp() for event in events if event.kind is AlertKind.OPEN]
            closed = [event.at.timestamp() for event in events if event.kind is AlertKind.CLOSE]
            assert [alert["opened"] for alert in ours] == opened, rule
            assert [alert["closed"] for alert in ours if alert["closed"] is not None] == closed, rule
