"""What the first user meets: machines that the bundle never heard, enrolled from their normal clips alone, then scored. Prints Ω.

usage: python benchmarks/enrolment.py [--bundle DIR] [--data DIR ...] [--machine NAME ...] [--json FILE]

Everything goes through the programs' own doors: `asd-daemon enroll --source folder:TRAIN` and `asd-daemon score --json TEST`, each
machine in a state folder of its own. Without --data: both sets of real recordings beside the checkout; a folder that is not there is
skipped with a word. Without --bundle: the bundle that comes with the program.

simple    the best simple method for this machine, and overall the best one for all (loudness, moments, 5th percentile, 1st + 10th)
contrast  how far sounds of other machines lie from this one's in the views of movement: what tells the family of views that it is judged by
false, found  test clips above the threshold of one false alarm a week
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from asd_daemon.judge.bundle.bundle import default_bundle, load_bundle
from asd_trainer.data.dataset import Clip, read_dataset
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.evaluation import machine_results, omega

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
REAL_SETS = (SHARED / "realbench", SHARED / "realbench2")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
BEST_SIMPLE = {
    "droneEight": 95.3,
    "droneSquare": 92.5,
    "fan": 65.9,
    "lathe": 100.0,
    "pump": 53.7,
    "slider": 70.2,
    "smallMotor": 83.5,
    "valve": 51.1,
}
"""Of loudness, moments, 5th percentile and whitened 1st + 10th: the best of each machine, as the sets' own tables have it."""
BEST_SIMPLE_OVERALL = {"realbench": 86.1, "realbench2": 56.5}
"""The best one of them for all machines of a set."""


def daemon(*words: str, state: Path) -> str:
    """What an `asd-daemon` command prints; its words on failure end the benchmark."""
    done = subprocess.run(
        [sys.executable, "-c", "from asd_daemon.cli.program import main; main()", *words],
        env={**os.environ, **ONE_THREAD, "ASD_STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"asd-daemon {' '.join(words[:3])}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def linked(clips: list[Clip], folder: Path) -> Path:
    """A folder of links to these clips and no others."""
    folder.mkdir(parents=True)
    for clip in clips:
        (folder / clip.path.name).symlink_to(clip.path)
    return folder


def enrolled_and_scored(
    bundle: Path, name: str, clips: tuple[Clip, ...], state: Path
) -> tuple[list[ScoredClip], dict[str, Any]]:
    """Enrol a machine with its normal training clips, score its test clips; scores and what enrolment said."""
    train = [c for c in clips if c.split == "train" and c.label != "anomaly"]
    test = {c.path.name: c for c in clips if c.split == "test"}
    source = f"folder:{linked(train, state / 'train')}"
    begin = time.perf_counter()
    facts = json.loads(
        daemon("enroll", "--machine", name, "--bundle", str(bundle), "--source", source, "--json", state=state)
    )
    facts["seconds"] = round(time.perf_counter() - begin, 1)
    folder = linked(list(test.values()), state / "test")
    lines = daemon("score", str(folder), "--machine", name, "--bundle", str(bundle), "--json", state=state).splitlines()
    scored = [ScoredClip(test[Path(line["path"]).name], float(line["score"])) for line in map(json.loads, lines)]
    decided = [(line["anomalous"], test[Path(line["path"]).name].label) for line in map(json.loads, lines)]
    for word, label in (("false_alarms", "normal"), ("found", "anomaly")):
        some = [anomalous for anomalous, of in decided if of == label]
        facts[word] = f"{sum(some)}/{len(some)}"
    return scored, facts


def contrast_words(facts: dict[str, Any]) -> str:
    """How far other machines' movement lies from this one's."""
    return "" if facts["contrast"] is None else f"{facts['contrast']:.2f}"


def views_words(facts: dict[str, Any]) -> str:
    """What the machine is judged by."""
    return ", ".join(f"{view} {weight:.2f}" for view, weight in facts["weights"])


def table(root: Path, bundle: Path, only: list[str]) -> dict[str, object]:
    """Print the table of one data set; its figures."""
    clips = read_dataset([root])
    scored: list[ScoredClip] = []
    print(f"\n{root} with bundle {load_bundle(bundle).name} {load_bundle(bundle).version}")
    print(
        f"{'machine':14s}{'windows':>8s}{'Ω':>7s}{'simple':>8s}{'contrast':>10s}{'drift':>7s}{'false':>8s}{'found':>8s}{'s':>7s}  views"
    )
    is_known = root.name in BEST_SIMPLE_OVERALL
    for name in sorted({c.machine for c in clips.clips if c.split == "test" and (not only or c.machine in only)}):
        with TemporaryDirectory() as state:
            own, facts = enrolled_and_scored(bundle, name, clips.select(machine=name), Path(state))
        scored += own
        simple = f"{BEST_SIMPLE[name]:.1f}" if is_known and name in BEST_SIMPLE else ""
        print(
            f"{name:14s}{facts['windows']:>8}{100 * omega(machine_results(own)):>7.1f}{simple:>8s}{contrast_words(facts):>10s}"
            f"{facts['drift']:>7.2f}{facts['false_alarms']:>8}{facts['found']:>8}{facts['seconds']:>7}  {views_words(facts)}",
            flush=True,
        )
    results = machine_results(scored)
    value = 100 * omega(results)
    simple = f"{BEST_SIMPLE_OVERALL[root.name]:.1f}" if is_known and not only else ""
    print(f"{'overall':22s}{value:>7.1f}{simple:>8s}")
    return {"data": root.name, "omega": value, "machines": {n: 100 * omega({n: r}) for n, r in results.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="a bundle's folder")
    parser.add_argument("--data", type=Path, action="append", help="a data set's root (repeatable)")
    parser.add_argument("--machine", action="append", default=[], help="this machine only (repeatable)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    figures = []
    for root in arguments.data or REAL_SETS:
        if root.is_dir():
            figures.append(table(root, arguments.bundle, arguments.machine))
        else:
            print(f"skipped: there is no {root}", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
