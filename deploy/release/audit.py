"""What is known against the libraries of the edge: `python deploy/release/audit.py`; the versions are those of constraints.txt.

Ends with 1 where something is known, and with 3 where a library could not be asked about, which is no clean bill.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
EXTRAS = "web,notify,hnsw"


def edge_requirements() -> str:
    """The edge's libraries with their versions, a line each, as pip would install them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ["--dry-run", "--ignore-installed", "--quiet", "--constraint", str(REPOSITORY / "constraints.txt")]
        command = [sys.executable, "-m", "pip", "install", *words, "--report", str(report), f"{REPOSITORY}[{EXTRAS}]"]
        subprocess.run(command, check=True)
        found = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return "".join(f"{one['name']}=={one['version']}\n" for one in found if one["name"] != "asd-edge")


def asked_about(requirements: str) -> list[dict[str, Any]]:
    """What the index says of each library of a list of requirements; one that it could not be asked about has a `skip_reason`.

    Raises:
        ValueError: it says nothing at all; why.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        words = [
            "--requirement",
            file.name,
            "--no-deps",
            "--disable-pip",
            "--format",
            "json",
            "--progress-spinner",
            "off",
        ]
        done = subprocess.run([sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, check=False)
    try:
        libraries: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as e:
        raise ValueError(done.stderr.strip() or "pip-audit said nothing") from e
    return libraries


def main() -> int:
    """As on the command line."""
    try:
        libraries = asked_about(edge_requirements())
    except ValueError as e:
        print(e, file=sys.stderr)
        return 3
    known = known_faults(libraries)
    unasked = [one for one in libraries if "skip_reason" in one]
    for one, vuln in known:
        print(
            f"{one['name']} {one['version']}: {vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'no version'}"
        )
    for one in unasked:
        print(f"{one['name']}: not asked about: {one['skip_reason']}", file=sys.stderr)
    print(in_words(libraries))
    return 1 if known else 3 if unasked else 0


def known_faults(libraries: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each library of which something is known, with what."""
    return [(one, vuln) for one in libraries for vuln in one.get("vulns", ())]


def in_words(libraries: list[dict[str, Any]]) -> str:
    """How many were asked about at all, and how much is known."""
    asked = sum("skip_reason" not in one for one in libraries)
    return f"{asked} of {len(libraries)} libraries asked about, {len(known_faults(libraries))} known faults"


if __name__ == "__main__":
    sys.exit(main())
