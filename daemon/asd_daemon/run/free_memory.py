"""How much memory this process may still take, by the machine and by its control group; and a word where that is too little to listen.

A process that takes more is killed without a word of its own, so that the word comes before.
"""

from __future__ import annotations

import resource
from pathlib import Path

MB = 2**20
# By soak.small_board, with some to spare: the daemon, and a recorder for each microphone
LISTENING_MB, MICROPHONE_MB = 75, 25


def free_ram_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that this process may still take: what the machine has available, and no more than its control group allows."""
    limits = [_available_bytes(proc)]
    try:
        own = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        own = []
    for line in own:
        number, kinds, path = line.split(":", 2)
        inner = path.lstrip("/")
        if number == "0" and not kinds:
            limits += [_left(folder, "memory.max", "memory.current") for folder in _upwards(groups, inner)]
        elif "memory" in kinds.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            limits += [_left(folder, *names) for folder in _upwards(groups / "memory", inner)]
    return max(0.0, min(limits))


def taken_bytes() -> float:
    """Memory that this process has taken for itself, without files that it shares with others."""
    _, resident, shared = Path("/proc/self/statm").read_text(encoding="ascii").split()[:3]
    return float((int(resident) - int(shared)) * resource.getpagesize())


def too_little_memory(microphones: int, there_bytes: float) -> str | None:
    """What to say where so many microphones have too little memory; None where there is enough.

    Args:
        microphones: how many are listened to.
        there_bytes: what the daemon and its recorders may take altogether.
    """
    needed = (LISTENING_MB + MICROPHONE_MB * microphones) * MB
    if there_bytes >= needed:
        return None
    return (
        f"this process may take {there_bytes / MB:.0f} MB of memory, and listening to {microphones} microphone"
        f"{'' if microphones == 1 else 's'} takes about {needed / MB:.0f} MB: the system may kill it (MemoryMax of its unit, or others)"
    )


def _available_bytes(proc: Path) -> float:
    try:
        lines = (proc / "meminfo").read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, IndexError, ValueError):
        return float("inf")


def _upwards(root: Path, inner: str) -> list[Path]:
    own = root / inner
    return [own, *(folder for folder in own.parents if folder == root or root in folder.parents)]


def _left(folder: Path, limit: str, used: str) -> float:
    """What a control group has left; pages of files that the kernel would give back count as free."""
    try:
        allowed = float((folder / limit).read_text(encoding="utf-8"))  # "max" is none
        taken = float((folder / used).read_text(encoding="utf-8"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):
        return float("inf")
    return allowed - taken + float(counts.get("inactive_file", counts.get("total_inactive_file", 0)))
