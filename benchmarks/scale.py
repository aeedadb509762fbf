"""Large data sets: memory and time of the table of shards, shards against files, log-mels by workers.

usage: python benchmarks/scale.py table [--clips N]      the table alone, of made-up clips, in a process of its own
       python benchmarks/scale.py sound [--clips N]      log-mels of clips in files, in shards here, in shards through the local cache
       python benchmarks/scale.py workers [--clips N]    log-mels by threads of this process, and by 1, 2 and 4 processes
       python benchmarks/scale.py plan [--clips N]       `asd-train run paper --dry-run` for an H100 on a table of so many clips

Times are of the clock, of `sound` of the processor; figures of one call are to be read against each other.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from asd_daemon.hear.simulator import MACHINES, SimulatedMachine
from asd_daemon.waveform import SAMPLE_RATE_HZ, WINDOW_S
from asd_trainer.cli.program import main as asd_train
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import read_dataset
from asd_trainer.data.features import clip_log_mels
from asd_trainer.data.naming import Supplement
from asd_trainer.data.shard_index import INDEX, TABLE, ShardIndex, arrow_schema, entry_of, row_of
from asd_trainer.data.shard_sound import FOLDER_VARIABLE
from asd_trainer.data.shard_writing import _columns, _options, _table, write_shards
from asd_trainer.data.worker_choice import chosen_workers
from asd_trainer.data.workers import at_work

CLIPS_A_SHARD = 1000


def made_up_clip(number: int) -> Clip:
    """A clip of one of 100 machines with three attributes, as long a name as the challenge's."""
    machine, domain = f"machine{number % 100:02d}", "target" if number % 100 == 99 else "source"
    attributes = (("vel", str(number % 12)), ("loc", "ABCD"[number % 4]), ("load", str(number % 7)))
    words = "_".join(f"{name}_{value}" for name, value in attributes)
    if number // 100 % 50 == 7:
        kind: Supplement = "machine" if number % 2 else "noise"
        path = Path(f"raw/{machine}/supplemental/section_00_{kind}_{number:08d}.wav")
        return Clip(path, machine, "00", "supplemental", "source", "normal", (), kind, 2025)
    path = Path(f"raw/{machine}/train/section_00_{domain}_train_normal_{number:08d}_{words}.wav")
    return Clip(path, machine, "00", "train", domain, "normal", attributes, None, 2025)


def write_made_up(folder: Path, clips: int) -> None:
    """An index and a table of so many clips; all shards are one file."""
    folder.mkdir(parents=True, exist_ok=True)
    sound = SimulatedMachine("fan").render(WINDOW_S, np.random.default_rng(0))
    recording = folder / "sound.flac"
    soundfile.write(recording, sound, SAMPLE_RATE_HZ)
    first = [made_up_clip(number) for number in range(CLIPS_A_SHARD)]
    schema = arrow_schema(pa).append(pa.field("sound", pa.binary()))
    rows = [row_of(clip, clip.path.as_posix()) for clip in first]
    arrays = [*_columns(rows), [recording.read_bytes()] * len(rows)]
    content = pa.table([pa.array(a, f.type) for a, f in zip(arrays, schema, strict=True)], schema=schema)
    shard = folder / "shard-00000.parquet"
    pq.write_table(content, shard, row_group_size=4, **_options(with_sound=True))
    sha256 = hashlib.sha256(shard.read_bytes()).hexdigest()
    entries = []
    for number in range(clips // CLIPS_A_SHARD):
        name = f"shard-{number:05d}.parquet"
        if number:
            os.link(shard, folder / name)
        entries.append(entry_of(name, first, shard.stat().st_size, sha256))
    rows = [row_of(clip, clip.path.as_posix()) for clip in map(made_up_clip, range(clips))]
    table = _table(pa, rows, CLIPS_A_SHARD)
    (folder / TABLE).write_bytes(table)
    digest = hashlib.sha256(table).hexdigest()
    index = ShardIndex(
        clips=clips,
        clips_a_shard=CLIPS_A_SHARD,
        simulated=True,
        table_bytes=len(table),
        table_sha256=digest,
        rows_sha256=digest,
        shards=tuple(entries),
    )
    (folder / INDEX).write_bytes(index.as_bytes())


def resident_mb() -> float:
    """Of this process now."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def child(work: Callable[[], object]) -> float:
    """Do it in a process of its own, which began with nothing; its largest resident memory in MB."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            sys.stdout.flush()
            os._exit(0)
    return os.wait4(pid, 0)[2].ru_maxrss / 1024


def table(clips: int) -> None:
    """Memory of the table."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        child(lambda: write_made_up(folder, clips))
        sizes = {name: (folder / name).stat().st_size / 1e6 for name in (INDEX, TABLE)}
        print(f"{clips} clips: {INDEX} {sizes[INDEX]:.1f} MB, {TABLE} {sizes[TABLE]:.1f} MB")

        def read() -> None:
            before, begun = resident_mb(), time.perf_counter()
            found = read_dataset([folder])
            took, after = time.perf_counter() - begun, resident_mb()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            each = (after - before) * 2**20 / len(found)
            print(
                f"read in {took:.1f} s, {took / len(found) * 1e6:.1f} µs a clip; {each:.0f} B a clip, at most {peak:.0f} MB"
            )

        child(read)


def sound(clips: int) -> None:
    """Files against shards; each once before it counts, so that all lie in the memory of the disk."""
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_recordings(root / "raw", clips)
        table = read_dataset([root / "raw"])
        begun = time.perf_counter()
        done = write_shards(table, [root / "raw"], root / "shards", clips_a_shard=200, progress=lambda *_: None)
        took = time.perf_counter() - begun
        size = sum(entry.bytes for entry in done.index.shards) / len(table)
        print(f"written: {len(table) / took:.0f} clips/s, {size / 1e3:.0f} kB a clip")
        os.environ[FOLDER_VARIABLE] = str(root / "cache")
        for clip in table.clips:
            flac = root / "flac" / clip.path.relative_to(root / "raw").with_suffix(".flac")
            flac.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(flac, *soundfile.read(clip.path, dtype="int16"))
        places = {
            "files (wav)": table.clips,
            "files (flac)": read_dataset([root / "flac"]).clips,
            "shards here": read_dataset([root / "shards"]).clips,
            "shards through the cache": read_dataset([f"local://{root}/shards"]).clips,
        }
        told_costs({name: lambda clips=clips: clip_log_mels(clips) for name, clips in places.items()}, len(table))
        order = np.random.default_rng(0).permutation(len(table))
        mixed = {name: [clips[row] for row in order] for name, clips in places.items()}
        print("in random order:")
        told_costs({name: lambda clips=clips: clip_log_mels(clips) for name, clips in mixed.items()}, len(table))


def workers(clips: int) -> None:
    """Threads against processes, which are started before the clock is."""
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_recordings(root / "raw", clips)
        table = read_dataset([root / "raw"]).clips
        rates: dict[str, float] = {}
        for _ in range(2):
            for words in (None, "1", "2", "4"):
                with at_work(chosen_workers(words)):
                    for _ in clip_log_mels(table[:64]):
                        pass
                    begun = time.perf_counter()
                    count = sum(1 for _ in clip_log_mels(table))
                    name = f"{words} process(es)" if words else f"threads, {os.cpu_count()} cores"
                    rates[name] = max(rates.get(name, 0.0), count / (time.perf_counter() - begun))
        told(rates)


def plan(clips: int) -> None:
    """The paper's plan."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        child(lambda: write_made_up(folder, clips))
        call = ["run", "paper", "--data", str(folder), "--out", str(folder / "run"), "--dry-run", "--device", "h100"]
        for more in ((), ("--set", "features=compute")):
            begun = time.perf_counter()
            peak = child(lambda more=more: asd_train([*call, *more], standalone_mode=False))
            print(f"in {time.perf_counter() - begun:.0f} s, at most {peak:.0f} MB\n")


def write_recordings(root: Path, clips: int) -> None:
    """16-bit wav of simulated machines, each clip a file of its own."""
    sounds = [SimulatedMachine(machine).render(WINDOW_S, np.random.default_rng(0)) for machine in MACHINES]
    for number in range(clips):
        folder = root / MACHINES[number % len(MACHINES)] / "train"
        folder.mkdir(parents=True, exist_ok=True)
        heard = np.roll(sounds[number % len(MACHINES)], 997 * number)
        soundfile.write(
            folder / f"section_00_source_train_normal_{number:05d}.wav", heard, SAMPLE_RATE_HZ, subtype="PCM_16"
        )


def told_costs(works: dict[str, Callable[[], object]], clips: int) -> None:
    """Time of the processor a clip, the least of three turns of each: others who are at work change it little."""
    costs: dict[str, float] = {}
    for _ in range(3):
        for name, work in works.items():
            begun = time.process_time()
            for _ in work():  # type: ignore[attr-defined]
                pass
            costs[name] = min(costs.get(name, float("inf")), (time.process_time() - begun) / clips)
    first = next(iter(costs.values()))
    for name, cost in costs.items():
        print(f"{name:<28}{cost * 1e3:>8.2f} ms a clip {cost / first:>6.2f}")


def told(rates: dict[str, float]) -> None:
    """Each, and beside the first."""
    first = next(iter(rates.values()))
    for name, rate in rates.items():
        print(f"{name:<28}{rate:>8.1f} clips/s {rate / first:>6.2f}")


def main(words: Sequence[str]) -> None:
    """One of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["table", "sound", "workers", "plan"])
    parser.add_argument("--clips", type=int)
    given = parser.parse_args(words)
    sizes = {"table": 1_000_000, "sound": 700, "workers": 700, "plan": 1_000_000}
    {"table": table, "sound": sound, "workers": workers, "plan": plan}[given.what](given.clips or sizes[given.what])


if __name__ == "__main__":
    main(sys.argv[1:])
