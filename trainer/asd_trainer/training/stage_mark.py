"""The done mark of a stage: a file that is there when the stage is done, and says how long it took, when, and with what.

Owns its form and the time of a stage over several sessions. It does no stage.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from asd_daemon.errors import StageError
from asd_trainer.training.whole_file import write_whole

SCHEMA = 1
MARK, ELAPSED = "done", "elapsed.json"
_NAMED_PACKAGES = ("asd-edge", "torch", "accelerate", "numpy", "safetensors")


@dataclass(frozen=True)
class StageMark:
    """What a done mark says."""

    stage: str
    seconds: float | None
    """Time that the stage took, over all sessions but those that were killed; None where the mark does not say."""
    finished_at: str | None
    """UTC, ISO 8601."""
    device: str | None = None
    processes: int = 1
    versions: dict[str, str] = field(default_factory=dict)


def write_mark(folder: Path, seconds: float, device: str, processes: int) -> StageMark:
    """Mark a stage as done; its folder bears its name.

    Raises:
        StageError: the mark can't be written.
    """
    mark = StageMark(
        stage=folder.name,
        seconds=round(seconds, 3),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        processes=processes,
        versions={"python": platform.python_version(), **{name: version(name) for name in _NAMED_PACKAGES}},
    )
    try:
        write_whole(folder / MARK, json.dumps({"schema": SCHEMA, **asdict(mark)}, indent=1) + "\n")
        (folder / ELAPSED).unlink(missing_ok=True)
    except OSError as e:
        raise StageError(f"{folder / MARK}: can't be written: {e.strerror}") from e
    return mark


def read_mark(folder: Path) -> StageMark | None:
    """The mark of a stage, None where it is not done; an empty mark, as earlier versions wrote it, tells nothing but that.

    Raises:
        StageError: the mark is broken or of a newer version.
    """
    path = folder / MARK
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        if not text.strip():
            return StageMark(folder.name, None, None)
        content = json.loads(text)
        if content.pop("schema") != SCHEMA:
            raise StageError(f"{path}: schema is not {SCHEMA}; this program is too old or too new for the run")
        return StageMark(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise StageError(f"{path}: the mark is broken ({e}); remove it to do the stage again") from e


@contextmanager
def timed(folder: Path, *, writes: bool = True) -> Iterator[Stopwatch]:
    """Time a session of a stage; when it ends without the stage being done, the time is kept for the next session."""
    watch = Stopwatch(_elapsed_before(folder))
    try:
        yield watch
    except BaseException:
        if writes and folder.is_dir():
            write_whole(folder / ELAPSED, json.dumps({"seconds": round(watch.seconds, 3)}) + "\n")
        raise


class Stopwatch:
    """Seconds since it was made, added to those of earlier sessions."""

    def __init__(self, before_s: float) -> None:
        self._before_s, self._started = before_s, time.monotonic()

    @property
    def seconds(self) -> float:
        """All of them until now."""
        return self._before_s + time.monotonic() - self._started


def _elapsed_before(folder: Path) -> float:
    try:
        return float(json.loads((folder / ELAPSED).read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0  # the first session, or one that was killed
