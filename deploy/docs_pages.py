"""Pages of the site that do not lie in docs/: README as the first page, CONTRIBUTING, CHANGELOG, the table of figures, a list of decisions.

A hook of MkDocs. Links between these and docs/ are written for whoever reads the repository; here they are turned to where the
pages lie in the site. What leads to a file that is no page (code, units, rules) becomes its name alone.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/results.md": "figures.md",
}
"""Path in the repository → path in the site."""
DECISIONS, DECISIONS_PAGE = "docs/decisions", "decisions/index.md"
_LINK = re.compile(r"\[([^\]\n]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside of docs/."""
    for path, page in PAGES.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=site_links(text, path)))
    files.append(File.generated(config, DECISIONS_PAGE, content=_decisions()))
    return files


def _decisions() -> str:
    """Every decision by its title."""
    lines = ["# Decisions", "", "Why things are as they are, in the order in which they were decided.", ""]
    for path in sorted((ROOT / DECISIONS).glob("*.md")):
        title = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"* [{title.replace('. ', ' · ', 1)}]({path.name})")
    return "\n".join(lines) + "\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links of pages in docs/ that leave it."""
    own = page.file.src_uri in (*PAGES.values(), DECISIONS_PAGE)
    return markdown if own else site_links(markdown, f"docs/{page.file.src_uri}")


def site_links(text: str, path: str) -> str:
    """A page's text with its links turned for the site.

    Args:
        text: Markdown.
        path: where it lies in the repository.
    """
    at = posixpath.dirname(PAGES.get(path, path.removeprefix("docs/")))

    def turned(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        if not target or re.match(r"[a-z]+:", target):
            return found[0]
        lies = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if lies in PAGES:
            page = PAGES[lies]
        elif lies == DECISIONS:
            page = DECISIONS_PAGE
        elif lies.startswith("docs/") and (ROOT / lies).is_file():
            page = lies.removeprefix("docs/")
        elif (ROOT / lies).exists():
            return words
        else:
            return found[0]  # leads nowhere: MkDocs says so
        return f"[{words}]({os.path.relpath(page, at or '.')}{anchor})"

    return _LINK.sub(turned, text)
