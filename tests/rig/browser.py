"""Debian's Chromium, driven by Playwright, and what is asked of every page: no errors, nothing serious that axe finds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from rig.waiting import PATIENT_S

AXE = Path(__file__).parent / "axe" / "axe-4.14.1.min.js"
expect.set_options(timeout=1000 * PATIENT_S)
NOWHERE = "/nowhere"
DESKTOP, PHONE = (1280, 800), (390, 844)


def chromium() -> str | None:
    """Where the browser is."""
    return shutil.which("chromium")


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def window(
    started: Browser, size: tuple[int, int], scheme: Literal["light", "dark"] = "light", scale: float = 1
) -> Iterator[Page]:
    """A window of a size; errors of scripts end the test."""
    errors: list[str] = []
    # without transitions: a colour that is on its way from one to the other has no contrast to speak of
    context = started.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        device_scale_factor=scale,
        reduced_motion="reduce",
    )
    context.set_default_timeout(1000 * PATIENT_S)
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" and is_defect(said) else None)
    try:
        yield page
        assert not errors, errors
    finally:
        context.close()


def is_defect(said: ConsoleMessage) -> bool:
    """Whether what a browser complains of is the page's fault: not that a process was ended, or that an address is none."""
    return "ERR_" not in said.text and not said.location.get("url", "").endswith(NOWHERE)


def findings(page: Page) -> list[str]:
    """What axe finds that is serious: colours, names, roles, order."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))  # by the debugger: the page's own policy lets no other script in
    found: dict[str, Any] = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}): {one['nodes'][0]['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def is_wider_than_the_screen(page: Page) -> bool:
    """Whether one must scroll sideways."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth > document.documentElement.clientWidth"))
