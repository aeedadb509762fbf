"""One microphone against two in simulated halls: what of the noise is taken away, and how right the judgement is. Prints tables.

    python benchmarks/two_microphones.py --to FOLDER                     # seven simulated machines, two seeds, four ratios
    python benchmarks/two_microphones.py --to FOLDER --real              # recordings of machines and noises, put into simulated halls
    python benchmarks/two_microphones.py --cases    # gain by how many noises there are, and whether they stand
    python benchmarks/two_microphones.py --cost                          # processor time of a window

Every part is kept in FOLDER as it is done; the same command goes on. A window's ratio of machine and noise lies up to 5 dB around the
figure; every sixth window that is learned is of a calm hall (+15 dB). A quarter of the noises pass by.

near            the near microphone alone, as with one microphone
cancelled       what the product does: least squares on what the far microphone hears besides the machine
least squares   the same on the far microphone as it is
leaky           as cancelled, with weights that know the past alone and forget it
nlms            the far microphone adaptively filtered (normalised LMS, 512 taps)
subtraction     the far microphone's power subtracted
residual        views of the near microphone less half of those of the far one
near + cancelled   the mean of both scores
chosen          cancelled where the hall makes a hundredth of most windows that are learned, else near: what enrolment does
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from halls import (
    SOUND_WAYS,
    Clip,
    Plan,
    clips,
    crosstalk_of,
    described,
    hall_share,
    recorded,
    scores_by_way,
    si_sdr_db,
    simulated,
    sounds_by_way,
)

from asd_daemon.hear.simulator import MACHINES
from asd_daemon.judge.hall.cancelling import without_hall
from asd_daemon.waveform import fit_length, read_waveform, rms_level_dbfs
from asd_trainer.data.dataset import read_dataset
from asd_trainer.evaluate.roc import area

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
REAL_SETS = (SHARED / "realbench", SHARED / "realbench2")
LEAST_SHARE = 0.01
SNRS_DB = (-5, 10, -10, 0)
SEEDS = (1, 2)
WINDOW_WAYS = (*SOUND_WAYS, "far")


Drawn = Callable[[np.random.Generator], list[Clip]]


def recordings_of(root: Path, machine: str, most: int = 40) -> Drawn:
    """A data set's machine in a simulated hall among everyday noises; of training and of test clips at most so many of each kind."""
    dataset = read_dataset([root])

    def drawn(rng: np.random.Generator) -> list[Clip]:
        own = dataset.select(machine=machine)
        groups = [[c for c in own if c.split == "train" and c.label != "anomaly"]]
        groups += [[c for c in own if c.split == "test" and c.label == label] for label in ("normal", "anomaly")]
        chosen = [group[int(n)] for group in groups for n in sorted(rng.permutation(len(group))[:most])]
        sounds = [(fit_length(read_waveform(c.path)), c.split, c.domain, c.label == "anomaly") for c in chosen]
        files = sorted((SHARED / "audio" / "general").glob("*.ogg"))
        picked = [files[int(n)] for n in rng.permutation(len(files))[:120]]
        halves = [read_waveform(file) for file in picked]
        noises = [fit_length(np.concatenate(pair)) for pair in zip(halves[::2], halves[1::2], strict=True)]
        return recorded(sounds, [noise for noise in noises if rms_level_dbfs(noise) > -60], rng)

    return drawn


def trial(found: list[Clip], snr_db: float, ways: Sequence[str]) -> dict[str, Any]:
    """One machine at one ratio: by each way its SI-SDR gain over normal test windows and its three figures."""
    windows = [clip.at(snr_db) for clip in found]
    train = np.array([clip.split == "train" for clip in found])
    crosstalk = crosstalk_of([heard.both for heard, learned in zip(windows, train, strict=True) if learned])
    vectors: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    gains: dict[str, list[float]] = {way: [] for way in ways if way != "far"}
    shares = []
    for clip, heard in zip(found, windows, strict=True):
        truth = heard.machine[:, 0]
        if clip.split == "train":
            shares.append(hall_share(heard.both, crosstalk))
        before = si_sdr_db(heard.both[:, 0], truth)
        for way, sound in sounds_by_way(heard.both, crosstalk, ways):
            vectors[way].append(described(sound))
            if way in gains and clip.split == "test":
                gains[way].append(si_sdr_db(sound, truth) - before)
    share = float(np.median(shares))
    domains = np.array([int(clip.domain == "target") for clip in found])
    scores = scores_by_way(vectors, train, domains)
    scores["chosen"] = scores["cancelled" if share >= LEAST_SHARE else "near"]
    test = [clip for clip in found if clip.split == "test"]
    truth_of = np.array([clip.anomalous for clip in test])
    is_target = np.array([clip.domain == "target" for clip in test])
    figures = {}
    for way, own in scores.items():
        score, normal = own.astype(np.float64), ~truth_of
        figures[way] = [
            area(score, normal & ~is_target, truth_of),
            area(score, normal & is_target, truth_of),
            area(score, normal, truth_of, 0.1),
        ]
    return {
        "snr_db": snr_db,
        "crosstalk_db": crosstalk.level_db,
        "share": share,
        "gain_db": {way: float(np.mean(own)) for way, own in gains.items()},
        "least_gain_db": {way: float(np.min(own)) for way, own in gains.items()},
        "figures": figures,
    }


def trials(
    folder: Path, name: str, kinds: dict[str, Drawn], snrs: Iterable[float], seeds: Iterable[int], ways: Sequence[str]
) -> list[dict[str, Any]]:
    """Every machine, seed and ratio; what is done is read."""
    file = folder / f"{name}.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {(row["machine"], row["seed"], row["snr_db"]) for row in done}
    for seed in seeds:
        for machine, drawn in kinds.items():
            wanted = [snr for snr in snrs if (machine, seed, snr) not in known]
            if not wanted:
                continue
            number = list(kinds).index(machine)
            found = drawn(np.random.default_rng([seed, number]))
            for snr in wanted:
                begin = time.perf_counter()
                row = {"machine": machine, "seed": seed, **trial(found, snr, ways)}
                done.append(row)
                with file.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(
                    f"{machine}, seed {seed}, {snr:+g} dB: {time.perf_counter() - begin:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    return done


def omega(figures: Iterable[list[float]]) -> float:
    """Harmonic mean of all figures, in %."""
    values = np.array([value for own in figures for value in own])
    return 100 * float(values.shape[0] / np.sum(1 / np.maximum(values, np.finfo(float).eps)))


def report(rows: list[dict[str, Any]]) -> None:
    """Print gains and Ω by ratio and way, with what two microphones gain over one, its interval over machines and seeds."""
    ways = list(dict.fromkeys(way for row in rows for way in row["figures"]))
    snrs = sorted({row["snr_db"] for row in rows})
    print("\nSI-SDR gained in dB, mean over machines and seeds (the least of a machine)")
    print(f"{'':18s}" + "".join(f"{snr:>+16g} dB" for snr in snrs))
    for way in dict.fromkeys(way for row in rows for way in row["gain_db"]):
        own = [[row["gain_db"][way] for row in rows if row["snr_db"] == snr and way in row["gain_db"]] for snr in snrs]
        print(f"{way:18s}" + "".join(f"{np.mean(v):>11.1f} ({min(v):5.1f})" for v in own))
    print("\nΩ in % (gain over near, 95 % interval by resampling machines and seeds)")
    print(f"{'':18s}" + "".join(f"{snr:>+22g} dB" for snr in snrs))
    for way in ways:
        cells = []
        for snr in snrs:
            own = [row for row in rows if row["snr_db"] == snr and way in row["figures"]]
            rng = np.random.default_rng(0)
            draws = [rng.integers(0, len(own), len(own)) for _ in range(400)]
            differences = [
                omega(own[i]["figures"][way] for i in draw) - omega(own[i]["figures"]["near"] for i in draw)
                for draw in draws
            ]
            low, high = np.percentile(differences, (2.5, 97.5))
            gain = omega(row["figures"][way] for row in own) - omega(row["figures"]["near"] for row in own)
            cells.append(f"{omega(row['figures'][way] for row in own):>8.1f} {gain:>+5.1f} [{low:+.1f} {high:+.1f}]")
        print(f"{way:18s}" + "".join(f"{cell:>25s}" for cell in cells))
    for seed in sorted({row["seed"] for row in rows}):
        cells = [
            f"{omega(row['figures'][way] for row in rows if row['snr_db'] == snr and row['seed'] == seed):>7.1f}"
            for way in ("near", "cancelled")
            for snr in snrs
        ]
        print(f"seed {seed}: near {' '.join(cells[: len(snrs)])}   cancelled {' '.join(cells[len(snrs) :])}")


def cases() -> None:
    """SI-SDR gained where one noise stands, two stand, or one passes by."""
    for name, number, moving in (("one stands", 1, 0.0), ("two stand", 2, 0.0), ("one passes by", 1, 1.0)):
        cells = []
        for snr_db in sorted(SNRS_DB):
            gains = []
            for seed in SEEDS:
                for number_of_machine, machine in enumerate(MACHINES):
                    rng = np.random.default_rng([seed, number_of_machine, number])
                    found = clips(simulated(machine, (number, number)), rng, Plan((18, 0), (2, 0), (0, 0), moving))
                    crosstalk = crosstalk_of([clip.at(snr_db).both for clip in found if clip.split == "train"])
                    for clip in found:
                        if clip.split == "test":
                            heard = clip.heard.mixed(snr_db)
                            truth, near = heard.machine[:, 0], heard.both[:, 0]
                            [(_, sound)] = sounds_by_way(heard.both, crosstalk, ("cancelled",))
                            gains.append(si_sdr_db(sound, truth) - si_sdr_db(near, truth))
            cells.append(f"{np.mean(gains):>8.1f} ({min(gains):5.1f})")
        print(f"{name:16s}" + "".join(cells), flush=True)


def cost() -> None:
    """Processor time of taking the hall out of a window."""
    from stopwatch import median_ms

    [clip] = clips(simulated("fan"), np.random.default_rng(0), Plan((1, 0), (0, 0), (0, 0)))
    both = clip.at(0.0).both
    crosstalk = crosstalk_of([both] * 4)
    near, far = (np.ascontiguousarray(both[:, column]) for column in (0, 1))
    ms = median_ms(lambda: without_hall(near, far, crosstalk))
    views_ms = median_ms(lambda: described(near))
    print(
        f"cancelling: {ms:.1f} ms for a window of 10 s, {ms / 100:.3f} % of real time; {ms / views_ms:.2f} of its views with thirds"
    )


def real_kinds() -> dict[str, Drawn]:
    """Every machine of the real sets beside the checkout; what is not there is named and left out."""
    found: dict[str, Drawn] = {}
    for root in REAL_SETS:
        if not root.is_dir() or not (SHARED / "audio" / "general").is_dir():
            print(f"skipped: there is no {root} or no {SHARED / 'audio' / 'general'}", file=sys.stderr)
            continue
        machines = sorted({c.machine for c in read_dataset([root]).clips if c.split == "test"})
        found |= {f"{machine} ({root.name})": recordings_of(root, machine) for machine in machines}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, help="folder that keeps what is done")
    parser.add_argument("--snr", type=float, action="append", help="this ratio in dB only (repeatable)")
    parser.add_argument("--machine", action="append", help="this machine only (repeatable)")
    parser.add_argument("--seed", type=int, action="append", help="this seed only (repeatable)")
    parser.add_argument("--short", action="store_true", help="near and cancelled alone: a quarter of the time")
    parser.add_argument("--real", action="store_true", help="recordings in simulated halls")
    parser.add_argument("--cases", action="store_true", help="gain by kind of noise alone")
    parser.add_argument("--cost", action="store_true", help="processor time alone")
    arguments = parser.parse_args()
    if arguments.cost or arguments.cases:
        cost() if arguments.cost else cases()
        return
    if arguments.to is None:
        parser.error("--to FOLDER is needed")
    arguments.to.mkdir(parents=True, exist_ok=True)
    name, kinds = "simulated", {machine: partial(clips, simulated(machine), plan=Plan()) for machine in MACHINES}
    if arguments.real:
        name, kinds = "real", real_kinds()
    chosen = {machine: own for machine, own in kinds.items() if not arguments.machine or machine in arguments.machine}
    if chosen:
        ways = WINDOW_WAYS if not arguments.short else ("near", "cancelled")
        report(trials(arguments.to, name, chosen, arguments.snr or SNRS_DB, arguments.seed or SEEDS, ways))


if __name__ == "__main__":
    main()
