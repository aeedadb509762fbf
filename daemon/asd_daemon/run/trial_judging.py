"""The process in which a new bundle judges beside the present one.

    python -m asd_daemon.run.trial_judging      a job as a line of JSON on standard input, then for each window a line of JSON and its
                                                samples, float32; says a line of JSON for each window on standard output

It judges as the daemon would, with what people have taught (`alerts/`), at low priority, and within the memory that the bundle's self-test
may take. It writes nothing to disk, and ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from asd_daemon.errors import AsdError, RecordingError
from asd_daemon.judge.scoring.bounded_self_test import ResourceBounds, limit_memory
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.rollout.returning import JudgedMachine
from asd_daemon.run.alert_teaching import AlertTeaching
from asd_daemon.run.shared_bundle import SharedBundle
from asd_daemon.run.stores import alerts_folder
from asd_daemon.run.taught_judge import TaughtJudge
from asd_daemon.settings.file import state_folder
from asd_daemon.settings.keys import AlarmSettings
from asd_daemon.settings.plan import Plan
from asd_daemon.tell.storage.alert_archive import AlertArchive

MODULE = "asd_daemon.run.trial_judging"


def job_of(plan: Plan, folder: Path, key: Path, machines: Sequence[JudgedMachine]) -> dict[str, Any]:
    """What the process is told first."""
    asked = {
        machine.name: {
            "model": plan.model_of(machine.name),
            "alarm": plan.machines[machine.name].alarm.model_dump(mode="json"),
            "hop_s": plan.machines[machine.name].hop_s,
            "scoring": plan.scoring_of(machine.name),
        }
        for machine in machines
        if machine.name in plan.machines
    }
    return {"folder": str(folder), "key": str(key), "machines": asked}


def main() -> None:
    """The process."""
    with contextlib.suppress(OSError):
        os.nice(19)
    pipe = sys.stdin.buffer
    job = json.loads(pipe.readline())
    try:
        _judge(pipe, _judges(job))
    except (AsdError, MemoryError) as e:
        _say(error=str(e) or "no memory is left")
    except Exception as e:  # noqa: BLE001  # whatever a model does: the daemon is told, and the bundle stays out
        _say(error=f"{type(e).__name__}: {e}")


def _judges(job: dict[str, Any]) -> dict[str, Judge]:
    """Each machine's judge, as the daemon would make it."""
    shared = SharedBundle(Path(job["folder"]), Path(job["key"]))
    bundle = shared.bundle()
    files = sum(entry.bytes for entry in bundle.manifest.files.values())
    limit_memory(ResourceBounds(ResourceBounds.of(bundle.manifest).memory_bytes + 2 * files))
    return {
        name: TaughtJudge(
            name,
            shared.scorer(
                asked["model"], AlarmSettings.model_validate(asked["alarm"]), asked["hop_s"], asked["scoring"]
            ),
            AlertTeaching(name, AlertArchive(alerts_folder(state_folder()), name)),
        )
        for name, asked in job["machines"].items()
    }


def _judge(pipe: IO[bytes], judges: dict[str, Judge]) -> None:
    while line := pipe.readline():
        head = json.loads(line)
        size = 4 * int(np.prod(head["shape"]))
        waveform = np.frombuffer(pipe.read(size), np.float32).reshape(head.pop("shape"))
        before_s = time.process_time()
        try:
            verdict = judges[head["machine"]].score(waveform)
        except RecordingError:
            continue
        cpu_s = time.process_time() - before_s
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _say(**head, score=float(verdict.score), threshold=float(verdict.threshold), cpu_s=cpu_s, peak_mb=peak_mb)


def _say(**words: Any) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201  # to the daemon


if __name__ == "__main__":
    main()
