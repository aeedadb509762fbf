"""The documentation as a site: it builds strictly, every link and anchor leads somewhere, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {"", "__top"}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value is not None}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found["href"])


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    offered = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=offered, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_link_leads_somewhere_and_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 40
    for path, page in pages.items():
        assert not [load for load in page.loads if re.match(r"(https?:)?//", load)], path
        for link in (*page.links, *page.loads):
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            leads_to = (path.parent / unquote(target)).resolve() if target else path
            assert leads_to.exists(), f"{path.relative_to(site)}: {link}"
            assert leads_to not in pages or unquote(anchor) in pages[leads_to].anchors, f"{path.name}: {link}"


def test_the_site_begins_with_the_readme_and_has_the_docstrings_and_every_decision(site: Path) -> None:
    home = (site / "index.html").read_text()
    for part in ("Hears when a machine goes wrong", 'href="how-to/python-api.html"', 'src="pictures/now-desktop.png"'):
        assert part in home
    reference = (site / "reference.html").read_text()
    for name in ("listening.enrol", "listening.Machine.score", "research.compare", "simulation.simulate"):
        assert f'id="asd_edge.{name}"' in reference
    decisions = (site / "decisions" / "index.html").read_text()
    for path in (ROOT / "docs" / "decisions").glob("*.md"):
        assert f'href="{path.stem}.html"' in decisions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[nowhere](how-to/gone.md)", "gone.md"),
        ("[elsewhere](index.md#no-such-heading)", "no-such-heading"),
        ("::: asd_edge.listening.gone", "asd_edge.listening.gone"),
    ],
)
def test_what_leads_nowhere_ends_the_build(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n{text}\n")
    config = (ROOT / "mkdocs.yml").read_text().replace("hooks: [deploy/docs_pages.py]\n", "")
    (tmp_path / "mkdocs.yml").write_text(config.replace("paths: [api,", f"paths: [{ROOT / 'api'},"))
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
