"""What a source's child process can say, once its bytes are understood: sound, or something about itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ChildSound:
    """Samples that came out of the child."""

    samples: NDArray[np.float32]
    """float32 (N,), or (N, C) from a recorder of several channels."""
    lost_samples: int
    ended_s: float
    """Monotonic time of the last sample."""


@dataclass(frozen=True)
class ChildMessage:
    """Something the child said about itself."""

    text: str
    gives_up: bool = False
    identity: str | None = None
    """The device that it hears from now on, where that can be known."""


class Decoder(Protocol):
    """Makes sense of the child's standard output."""

    def feed(self, data: bytes) -> Iterator[ChildSound | ChildMessage]:
        """What the bytes say, in order; ValueError when they make no sense."""
