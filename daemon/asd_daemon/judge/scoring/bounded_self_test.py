"""The self-test of a bundle in a process of its own, within bounds of memory and time: a model may ask for 40 GB, or never end.

    python -m asd_daemon.judge.scoring.bounded_self_test FOLDER EXTENT [LISTENED]     the child; one JSON object a line on standard output

The child limits its own address space to what it has when everything is loaded plus what the models may take, and its CPU time step by
step; the parent limits the clock on the wall and says which model it was. What the bundle does within these bounds is its own fault; that
the box gave the child no time or no memory, or ended it, is not. Owns these bounds, the child and that difference.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from asd_daemon.errors import BundleError, CannotStartError, UntriedBundleError
from asd_daemon.judge.bundle.bundle import MANIFEST, Bundle
from asd_daemon.judge.bundle.manifest import Manifest, ModelEntry, SeparatorEntry

if TYPE_CHECKING:
    from asd_daemon.judge.scoring.self_test import Extent

USUAL_MB, USUAL_FILES = 512, 5
USUAL_WINDOW_S, USUAL_LOAD_S = 10.0, 60.0
START_S = 120.0  # seconds on the wall until the child has loaded its libraries, on a small board that is busy
_LOOK_S = 0.2
_START = "its start"  # nothing of the bundle has run yet
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that end a process for no fault of what it runs."""
_SLACK, _SLACK_S = 6.0, 30.0  # a box that is busy gives a process a sixth of its time


@dataclass(frozen=True)
class ResourceBounds:
    """What the self-test of a bundle may take."""

    memory_bytes: int
    """Beyond the program's own."""

    @classmethod
    def of(cls, manifest: Manifest) -> ResourceBounds:
        """What its manifest says, or the usual."""
        most = USUAL_MB * 2**20 if not _models(manifest) else 0
        for entry in _models(manifest):
            usual = USUAL_MB * 2**20 + USUAL_FILES * manifest.files[entry.file].bytes
            most = max(most, usual if entry.memory_mb is None else entry.memory_mb * 2**20)
        return cls(most)


def step_seconds(manifest: Manifest, entry: ModelEntry | SeparatorEntry | None, what: str) -> float:
    """Seconds of CPU that a step may take; without an entry, that of all models together."""
    entries = _models(manifest) if entry is None else [entry]
    if what == "load":
        return sum(USUAL_LOAD_S if e.load_s is None else e.load_s for e in entries)
    if not entries:  # views alone
        return USUAL_WINDOW_S
    factor = 2 if entry is None else 1  # with a separator, two embeddings
    return factor * sum(USUAL_WINDOW_S if e.window_s is None else e.window_s for e in entries)


def _models(manifest: Manifest) -> list[ModelEntry | SeparatorEntry]:
    models = (manifest.embedder, manifest.embedder_fp32, manifest.separator)
    return [entry for entry in models if entry is not None]


def bounded_self_test(
    bundle: Bundle,
    *,
    extent: Extent = "all",
    listened: Collection[str] | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> int:
    """Run a bundle's self-test in a process of its own.

    Args:
        bundle: what `load_bundle` gave.
        extent: what is tried.
        listened: as `self_test`.
        is_over: asked now and then whether nobody waits for the result any more.

    Returns:
        how many reference scores were compared.

    Raises:
        BundleError: what `self_test` finds; or a model takes more memory or CPU time than it may, and which.
        UntriedBundleError: the box had too little time or memory for it, or ended it: nothing is known of the bundle.
        CannotStartError: nobody waits any more; nothing is known of the bundle.
    """
    words = [sys.executable, "-m", __name__, str(bundle.path.absolute()), extent]
    if listened is not None:
        words.append(json.dumps(sorted(listened)))
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        child = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as e:
        raise _untried(bundle, _START, f"can't be started: {e.strerror}") from e
    with child:
        try:
            return _watch(bundle, child, is_over)
        finally:
            with contextlib.suppress(OSError):
                child.kill()


def _watch(bundle: Bundle, child: subprocess.Popen[str], is_over: Callable[[], bool]) -> int:
    """Read what the child says until it has a result, is over, or takes too long."""
    said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    errors: list[str] = []
    threads = [
        threading.Thread(target=_read, args=(child.stdout, said), name="self-test", daemon=True),
        threading.Thread(target=_keep_last, args=(child.stderr, errors), name="self-test-errors", daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        step, left_s = _START, START_S
        while True:
            words = _next(said, left_s, is_over)
            if words == {}:
                raise _untried(bundle, step, f"is not done after {left_s:.0f} s, for want of CPU time")
            if words is None:
                raise _early_end(bundle, step, child.wait(), errors)
            if "untried" in words:
                raise _untried(bundle, step, str(words["untried"]))
            if "error" in words:
                raise BundleError(str(words["error"]))
            if "compared" in words:
                return int(words["compared"])
            step, left_s = str(words["step"]), _SLACK * float(words["seconds"]) + _SLACK_S
    finally:
        child.kill()
        for thread in threads:
            thread.join()


def _next(
    said: queue.SimpleQueue[dict[str, Any] | None], wait_s: float, is_over: Callable[[], bool]
) -> dict[str, Any] | None:
    """What the child says next, None at its end; empty where it says nothing for so long."""
    end_s = time.monotonic() + wait_s
    while (left_s := end_s - time.monotonic()) > 0:
        if is_over():
            raise CannotStartError("the self-test of the bundle was broken off")
        try:
            return said.get(timeout=min(left_s, _LOOK_S))
        except queue.Empty:
            continue
    return {}


def _untried(bundle: Bundle, step: str, what: str) -> UntriedBundleError:
    """Nothing is known of the bundle."""
    return UntriedBundleError(f"{bundle.path}: could not be tried now: {step}: {what}")


def _early_end(bundle: Bundle, step: str, code: int, errors: list[str]) -> BundleError:
    """Why the child is over without a result."""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    said = f": {errors[-1]}" if errors else ""
    if code == -signal.SIGKILL:
        return _untried(bundle, step, "was killed, for want of memory probably")
    if -code in FROM_OUTSIDE or step == _START:
        return _untried(bundle, step, f"ended with {how}{said}")
    what = "takes more CPU time than it may" if code == -signal.SIGXCPU else f"ends the self-test with {how}{said}"
    return BundleError(f"{bundle.path}: {step}: {what}; do not use this bundle")


def _read(pipe: IO[str] | None, said: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    for line in pipe or ():
        with contextlib.suppress(ValueError):
            words = json.loads(line)
            if isinstance(words, dict):
                said.put(words)
    said.put(None)


def _keep_last(pipe: IO[str] | None, lines: list[str]) -> None:
    for line in pipe or ():
        if line.strip():
            lines[:] = [line.strip()[:300]]


def main(words: list[str]) -> None:
    """The child: limits itself, runs the self-test, says what came of it."""
    from asd_daemon.judge.scoring.self_test import self_test

    folder, extent = Path(words[0]), cast("Extent", words[1])
    listened = json.loads(words[2]) if len(words) > 2 else None
    try:
        manifest = Manifest.parse((folder / MANIFEST).read_bytes(), folder / MANIFEST)
    except (BundleError, OSError) as e:
        _say({"error": str(e)})
        return
    bounds = ResourceBounds.of(manifest)
    limit_memory(bounds)
    try:
        compared = self_test(
            Bundle(folder, manifest), lambda e, what: _begin(manifest, e, what), extent=extent, listened=listened
        )
    except BundleError as e:
        _say(_failure(str(e), bounds))
    except MemoryError as e:
        _say(_failure(f"{folder}: no memory is left: {e}", bounds))
    else:
        _say({"compared": compared})


def _failure(text: str, bounds: ResourceBounds) -> dict[str, object]:
    """What went wrong; where it was memory, whether it was the bundle's own bound, and how much that is."""
    if not any(word in text.lower() for word in ("alloc", "memory")):
        return {"error": text}
    left = promised_memory_left()
    if left is not None and left < bounds.memory_bytes:
        return {"untried": f"the system promises {left / 2**20:.0f} MB more at most (vm.overcommit_memory = 2): {text}"}
    bound = f"(more than the {bounds.memory_bytes / 2**20:.0f} MB that it may take; do not use this bundle)"
    return {"error": f"{text} {bound}"}


def promised_memory_left(proc: Path = Path("/proc")) -> int | None:
    """Bytes that the kernel would promise still; None where it promises more than there is, so that only the bound refuses memory.

    Linux, Documentation/mm/overcommit-accounting.
    """
    try:
        if (proc / "sys/vm/overcommit_memory").read_text(encoding="ascii").strip() != "2":
            return None
        lines = (proc / "meminfo").read_text(encoding="ascii").splitlines()
        found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        return max(0, found["CommitLimit"] - found["Committed_AS"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _begin(manifest: Manifest, entry: ModelEntry | SeparatorEntry | None, what: str) -> None:
    """Say what comes next, and allow it so much CPU time from now on."""
    seconds = step_seconds(manifest, entry, what)
    name = "the reference sounds" if entry is None else entry.file
    _say({"step": f"{name}: {'opening it' if what == 'load' else 'a window'}", "seconds": seconds})
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    with contextlib.suppress(OSError, ValueError):  # a service that may not: the parent's clock remains
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def limit_memory(bounds: ResourceBounds) -> None:
    """No more address space than there is in use now and the bounds together; no core files."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + bounds.memory_bytes
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _say(words: dict[str, object]) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201  # to the parent


if __name__ == "__main__":
    main(sys.argv[1:])
