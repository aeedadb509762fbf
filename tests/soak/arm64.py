"""`python -m soak.arm64`: the edge on arm64 as a Pi has it, under qemu-user: its tests, and the scores of this computer (wants root).

Sounds that come with the program's bundle are scored here and there, by views and by the int8 models, on an imitated Cortex-A53 (Pi Zero
2 W, Pi 3), a Cortex-A76 (Pi 5) and one with all that qemu knows of arm64, whose int8 kernels are others. How far scores may differ is said
below. Tests are those of `deploy/edge-tests.sh`. qemu-user says nothing of speed.

    PYTHONPATH=tests python -m soak.arm64 [--root FOLDER] [--scores-only | --tests PATH…]

With a FOLDER the Debian stays there and is used again.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rig.arm64_root import REPOSITORY, Arm64Root, missing
from rig.daemon import ask

MEASURES_QEMU = (
    "tests/daemon/judge/scoring/test_bounded_self_test.py::test_memory_that_the_manifest_asks_for_is_allowed",
    "tests/daemon/judge/scoring/test_models_that_nobody_needs.py::test_self_test_takes_no_more_memory_than_a_small_board_has",
)
"""Tests of how much memory a process takes: here it would be the emulator's too, to which the limits do not apply."""
PROCESSORS = ("cortex-a53", "cortex-a76", "max")
REFERENCES = Path("daemon/asd_daemon/bundles/default/reference")
JUDGED = (("fan", "auto"), ("valve", "auto"), ("fan", "paper"), ("gearbox", "paper"))
"""Machines, and by what: views, or embeddings of the heard and the separated sound."""
TOLERANCES = {"fan auto": 1e-4, "valve auto": 1e-4, "fan paper": 0.005, "gearbox paper": 0.005}
"""How far a score may differ from this computer's, times the score where that is above 1. By the views that need no model sums are taken
in another order; by the models in int8 a value may be rounded to the next step: as much as the bundle's self-test allows."""
_WORDS = ("from asd_daemon.cli.program import main; main()",)


def say(text: str) -> None:
    """A line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def words_of(machine: str, scoring: str, folder: Path) -> list[str]:
    """What scores the reference sounds."""
    files = sorted(path.name for path in (REPOSITORY / REFERENCES).glob("*.flac"))
    return ["score", *(str(folder / name) for name in files), "--machine", machine, "--scoring", scoring, "--json"]


def scores(said: str) -> dict[str, float]:
    """File → score, of lines of JSON among others."""
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {Path(each["path"]).name: float(each["score"]) for each in found}


def compare_scores(arm64: Arm64Root, home: Path) -> list[str]:
    """Score here and there; what differs too much."""
    faults = []
    for machine, scoring in JUDGED:
        here = scores(ask(*words_of(machine, scoring, REPOSITORY / REFERENCES), home=home).stdout)
        assert here, "this computer scores nothing"
        for processor in PROCESSORS:
            what, words = f"{machine} {scoring}", words_of(machine, scoring, REFERENCES)
            done = arm64.run("/usr/bin/python3", "-c", *_WORDS, *words, processor=processor)
            there = scores(done.stdout)
            if there.keys() != here.keys():
                faults.append(f"{what}, {processor}: ends with {done.returncode}: {done.stdout[-500:]}")
                continue
            most = max(abs(there[name] - here[name]) / max(1.0, here[name]) for name in here)
            say(f"{what}, {processor}: {len(here)} scores, at most {most:.2e} apart")
            if most > TOLERANCES[what]:
                faults.append(f"{what}, {processor}: {most:.2e} apart; here {here}, there {there}")
    return faults


def edge_tests() -> list[str]:
    """Those that `deploy/edge-tests.sh` runs."""
    found = re.search(r'^tests="([^"]+)"', (REPOSITORY / "deploy/edge-tests.sh").read_text(), re.MULTILINE)
    assert found is not None
    return found[1].split()


def run_tests(arm64: Arm64Root, tests: Sequence[str]) -> list[str]:
    """Run them; what failed."""
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *tests]
    words += [word for test in MEASURES_QEMU for word in ("--deselect", test)]
    done = arm64.run("/usr/bin/python3", *words)
    say(done.stdout.strip().splitlines()[-1])
    return [] if done.returncode == 0 else [f"tests end with {done.returncode}:\n{done.stdout[-6000:]}"]


def main() -> int:
    """Everything in turn; 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, help="where the Debian lies, or shall lie and stay")
    parser.add_argument("--scores-only", action="store_true", help="without the tests")
    parser.add_argument("--tests", nargs="+", help="other tests than all of the edge")
    wanted = parser.parse_args()
    if (why := missing()) is not None:
        say(f"skipped: {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="asd-arm64-") as name:
        arm64 = Arm64Root((wanted.root or Path(name) / "root").absolute())
        arm64.make()
        done = arm64.run("/usr/bin/python3", "-c", "import platform; print(platform.machine())")
        say(f"a Debian for {done.stdout.strip()}")
        faults = compare_scores(arm64, Path(name))
        if not wanted.scores_only:
            faults += run_tests(arm64, wanted.tests or edge_tests())
    for fault in faults:
        say(f"FAULT: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
