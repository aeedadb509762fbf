"""Workers of a cluster: a dask scheduler or a ray cluster that somebody else started.

Owns the doors to dask (extra `dask`) and ray (extra `ray`). Workers need the same version of asd-edge and must find the clips: files under
the same paths, or shards. Both clusters run what they are sent: their ports belong into networks of one's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from asd_daemon.errors import AsdError, StageError
from asd_trainer.data.clip import Clip
from asd_trainer.data.workers import F32, PIECES_AHEAD, Work, pieces_of, worked

PACKAGE = "asd-edge"
WAIT_S = 15
"""For a scheduler to answer, and for its first worker."""


class DaskWorkers:
    """The workers of a dask scheduler; a piece whose worker dies is done by another one, as often as the scheduler allows."""

    def __init__(self, name: str, host: str) -> None:
        self._name, self._host = name, host
        self._client: Any = None

    def start(self) -> None:
        """Connect, and see that the workers are of this version.

        Raises:
            StageError: dask is not installed, the scheduler does not answer or has no worker, or a worker has another version.
        """
        if self._client is not None:
            return
        try:
            client_of = import_module("distributed").Client
        except ImportError as e:
            raise StageError(f"--workers {self._name}: needs dask: pip install 'asd-edge[dask]'") from e
        try:
            client = client_of(f"tcp://{self._host}", timeout=WAIT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as e:
            raise StageError(f"--workers {self._name}: no dask scheduler answers there: {_first_line(e)}") from e
        try:
            client.wait_for_workers(1, timeout=WAIT_S)
            found = client.run(version, PACKAGE)
        except (OSError, TimeoutError) as e:
            client.close()
            raise StageError(
                f"--workers {self._name}: the scheduler has no worker that answers: {_first_line(e)}"
            ) from e
        except PackageNotFoundError as e:
            client.close()
            raise StageError(f"--workers {self._name}: a worker has no {PACKAGE}; install it there") from e
        try:
            _refuse_other_versions(self._name, found)
        except StageError:
            client.close()
            raise
        self._client = client

    def each(self, work: Work, clips: Sequence[Clip], channel: int) -> Iterator[F32]:
        """Work on clips, in their order."""
        self.start()
        distributed: Any = import_module("distributed")
        pending: deque[Any] = deque()
        try:
            ahead = PIECES_AHEAD * max(1, sum(self._client.nthreads().values()))
            for piece in pieces_of(clips):
                pending.append(self._client.submit(worked, work, piece, channel, pure=False))
                if len(pending) >= ahead:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except distributed.KilledWorker as e:
            raise StageError(
                f"--workers {self._name}: workers die of the same clips again and again; is their memory enough? {_first_line(e)}"
            ) from e
        except (CancelledError, OSError, TimeoutError) as e:  # a connection that closed is an OSError
            raise StageError(
                f"--workers {self._name}: the scheduler is out of reach ({type(e).__name__}); the same command goes on"
            ) from e
        finally:
            for future in pending:
                future.release()

    def close(self) -> None:
        """Leave the scheduler; it goes on."""
        if self._client is not None:
            self._client.close(timeout=WAIT_S)
            self._client = None


class RayWorkers:
    """The workers of a ray cluster, by its client port; a piece whose worker dies is done by another one."""

    def __init__(self, name: str, host: str) -> None:
        self._name, self._host = name, host
        self._ray: Any = None

    def start(self) -> None:
        """Connect, and see that a worker is of this version.

        Raises:
            StageError: ray is not installed, no cluster answers, or a worker has another version.
        """
        if self._ray is not None:
            return
        try:
            import ray
        except ImportError as e:
            raise StageError(f"--workers {self._name}: needs ray: pip install 'asd-edge[ray]'") from e
        try:
            ray.init(address=f"ray://{self._host}", log_to_driver=False, logging_level="ERROR")
            found = ray.get(ray.remote(version).remote(PACKAGE), timeout=4 * WAIT_S)
        except (ConnectionError, TimeoutError, RuntimeError, ImportError, ray.exceptions.RayError) as e:
            ray.shutdown()
            raise StageError(
                f"--workers {self._name}: no ray cluster that can work answers there: {_first_line(e)}"
            ) from e
        _refuse_other_versions(self._name, {self._host: found})
        self._ray = ray

    def each(self, work: Work, clips: Sequence[Clip], channel: int) -> Iterator[F32]:
        """Work on clips, in their order."""
        self.start()
        ray = self._ray
        remote = ray.remote(worked)
        pending: deque[Any] = deque()
        try:
            ahead = PIECES_AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
            for piece in pieces_of(clips):
                pending.append(remote.remote(work, piece, channel))
                if len(pending) >= ahead:
                    yield from ray.get(pending.popleft())
            while pending:
                yield from ray.get(pending.popleft())
        except ray.exceptions.RayTaskError as e:
            if isinstance(e.cause, AsdError):
                raise e.cause from e
            raise
        except (ConnectionError, ray.exceptions.RayError) as e:
            raise StageError(
                f"--workers {self._name}: workers die again and again, or the cluster is out of reach: {_first_line(e)}"
            ) from e

    def close(self) -> None:
        """Leave the cluster; it goes on."""
        if self._ray is not None:
            self._ray.shutdown()
            self._ray = None


def _refuse_other_versions(name: str, found: dict[str, str]) -> None:
    own = version(PACKAGE)
    for worker, other in sorted(found.items()):
        if other != own:
            raise StageError(f"--workers {name}: {worker} has {PACKAGE} {other}, here is {own}; give all the same")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
