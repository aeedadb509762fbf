"""What a release consists of besides the Debian packages: `python deploy/release/distributions.py [--out dist] [--no-install]`.

Builds wheel and source distribution, checks both as the package index does, and installs the wheel into an environment that holds nothing
else: there it hears a simulated machine, and what lies in it becomes the bill of materials (CycloneDX). Needs the extra `release`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
EXTRAS = "web,notify"
WINDOWS = 3


def build(out: Path) -> tuple[Path, Path]:
    """Build wheel and source distribution, the wheel from the source distribution, into a folder; gives both files.

    Raises:
        subprocess.CalledProcessError: building fails, or the index would not take what was built.
    """
    before = set(out.glob("asd_edge-*")) if out.exists() else set()
    for file in before:
        file.unlink()
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(REPOSITORY))
    (wheel,), (source,) = out.glob("asd_edge-*.whl"), out.glob("asd_edge-*.tar.gz")
    _run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", str(wheel), str(source))
    return wheel, source


def install_and_hear(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a new environment in a folder and have it hear a simulated machine; gives the environment's Python.

    Raises:
        subprocess.CalledProcessError: it can't be installed, or does not hear.
    """
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    constraints = str(REPOSITORY / "constraints.txt")
    _run(str(python), "-m", "pip", "install", "--quiet", "--constraint", constraints, f"{wheel}[{EXTRAS}]")
    with tempfile.TemporaryDirectory() as state:
        simulated = ["--machine", "fan", "--source", f"simulate:fan?speed=50&seconds={10 * WINDOWS}", "--no-mqtt"]
        environment = {**os.environ, "ASD_STATE_DIR": state, "HOME": state, "ASD_CONFIG": ""}
        heard = subprocess.run(
            [str(folder / "bin" / "asd-daemon"), "run", *simulated, "--events", "json"],
            cwd=state,
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
    scores = [line for line in heard.splitlines() if '"score"' in line]
    if len(scores) < WINDOWS:
        raise SystemExit(f"{wheel.name}: heard {len(scores)} of {WINDOWS} windows in an environment of its own")
    return python


def bill_of_materials(python: Path, file: Path) -> None:
    """Write what an environment holds as CycloneDX JSON, checked against its schema.

    Raises:
        subprocess.CalledProcessError: it can't be written, or is not what the schema wants.
    """
    words = ["--output-format", "JSON", "--output-reproducible", "--pyproject", str(REPOSITORY / "pyproject.toml")]
    _run(sys.executable, "-m", "cyclonedx_py", "environment", *words, "--output-file", str(file), str(python))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, cwd=REPOSITORY)


def main() -> None:
    """As on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist")
    parser.add_argument("--no-install", action="store_true", help="build and check alone")
    said = parser.parse_args()
    out = said.out.absolute()
    wheel, source = build(out)
    print(wheel, source, sep="\n")
    if not said.no_install:
        with tempfile.TemporaryDirectory(prefix="asd-wheel-") as folder:
            python = install_and_hear(wheel, Path(folder))
            bill = out / f"{wheel.name.split('-py3')[0]}.cdx.json"
            bill_of_materials(python, bill)
        print(bill)


if __name__ == "__main__":
    main()
