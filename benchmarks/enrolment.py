"""What the first user meets: machines that the bundle never heard, enrolled from their normal clips alone, then scored. Prints Ω.

usage: python benchmarks/enrolment.py [--bundle DIR] [--data DIR ...] [--machine NAME ...] [--json FILE]

Everything goes through the programs' own doors: `asd-daemon enroll --source folder:TRAIN` and `asd-daemon score --json TEST`, each
machine in a state folder of its own. Without --data: the realbench recordings beside the checkout; a folder that is not there is
skipped with a word. Without --bundle: the bundle that comes with the program.
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

from asd_daemon.judge.bundle.bundle import default_bundle, load_bundle
from asd_trainer.data.dataset import Clip, read_dataset
from asd_trainer.evaluate.backend import ScoredClip
from asd_trainer.evaluate.evaluation import machine_results, omega

REALBENCH = Path(__file__).resolve().parents[1].parent / "shared" / "realbench"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
BEST_SIMPLE = "best simple method on realbench: 86.1 (droneEight 95.3, droneSquare 92.5, fan 65.9, lathe 100.0)"


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
) -> tuple[list[ScoredClip], dict[str, object]]:
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


def table(root: Path, bundle: Path, only: list[str]) -> dict[str, object]:
    """Print the table of one data set; its figures."""
    clips = read_dataset([root])
    scored: list[ScoredClip] = []
    print(f"\n{root} with bundle {load_bundle(bundle).name} {load_bundle(bundle).version}")
    print(
        f"{'machine':14s}{'windows':>8s}{'Ω':>7s}{'pseudo':>8s}{'drift':>7s}{'false':>8s}{'found':>8s}{'s':>7s}  views"
    )
    for name in sorted({c.machine for c in clips.clips if c.split == "test" and (not only or c.machine in only)}):
        with TemporaryDirectory() as state:
            own, facts = enrolled_and_scored(bundle, name, clips.select(machine=name), Path(state))
        scored += own
        views = ", ".join(f"{view} {weight:.2f}" for view, weight in facts["weights"])  # type: ignore[attr-defined]
        print(
            f"{name:14s}{facts['windows']:>8}{100 * omega(machine_results(own)):>7.1f}{100 * facts['pseudo_auc']:>8.1f}"  # type: ignore[operator]
            f"{facts['drift']:>7.2f}{facts['false_alarms']:>8}{facts['found']:>8}{facts['seconds']:>7}  {views}",
            flush=True,
        )
    results = machine_results(scored)
    value = 100 * omega(results)
    print(f"{'overall':22s}{value:>7.1f}   (false and found: test clips above the threshold of one false alarm a week)")
    if root == REALBENCH and not only:
        print(BEST_SIMPLE)
    return {"data": root.name, "omega": value, "machines": {n: 100 * omega({n: r}) for n, r in results.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="a bundle's folder")
    parser.add_argument("--data", type=Path, action="append", help="a data set's root (repeatable)")
    parser.add_argument("--machine", action="append", default=[], help="this machine only (repeatable)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    figures = []
    for root in arguments.data or [REALBENCH]:
        if root.is_dir():
            figures.append(table(root, arguments.bundle, arguments.machine))
        else:
            print(f"skipped: there is no {root}", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
