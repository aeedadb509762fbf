"""Whether everything that bears the version agrees with a tag: `python deploy/release/check_version.py v0.2.0`.

The changelog has a dated section of it with notes for who upgrades, and the add-on and its image have the same number.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ADDON = Path("deploy/home-assistant-addon/asd_edge")


def complaints(tag: str, root: Path = REPOSITORY) -> list[str]:
    """What does not agree with a tag, a line each; empty where all does."""
    version = tag.removeprefix("v")
    found = []
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        found.append(f"{tag}: a tag is v and three numbers, such as v{project}")
    if project != version:
        found.append(f"pyproject.toml: version is {project}, the tag says {version}")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(version)} · \d{{4}}-\d\d-\d\d$(.*?)(?=^## |\Z)", changelog, re.M | re.S)
    if section is None:
        found.append(f"CHANGELOG.md: no section '## {version} · YYYY-MM-DD'")
    elif "### Upgrading" not in section[1]:
        found.append(f"CHANGELOG.md: {version} has no part 'Upgrading'")
    if f'version: "{version}"' not in (root / ADDON / "config.yaml").read_text(encoding="utf-8"):
        found.append(f"{ADDON}/config.yaml: version is not {version}")
    if f"asd-edge:{version}" not in (root / ADDON / "Dockerfile").read_text(encoding="utf-8"):
        found.append(f"{ADDON}/Dockerfile: is not made from asd-edge:{version}")
    return found


if __name__ == "__main__":
    wrong = complaints(sys.argv[1])
    print("\n".join(wrong) or f"{sys.argv[1]}: agrees with everything that bears a version")
    sys.exit(bool(wrong))
