"""Features of clips as rows: an array that was computed once, or rows that are computed whenever they are asked for.

Owns the second kind, for data sets whose features fit on no disk (511 kB a clip). Whoever is at work (`workers`) computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from asd_trainer.data.clip import Clip

F32 = NDArray[np.float32]


class FeatureRows(Protocol):
    """(N, …), row after row; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and the shape of a row."""

    @property
    def ndim(self) -> int:
        """How many numbers that is."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, row: Any, /) -> Any:
        """A row."""


class ComputedRows:
    """Rows that are computed when they are asked for, each time anew.

    Args:
        clips: a row each.
        compute: clips → their rows, in order.
        of_clip: shape of a row.
    """

    def __init__(
        self, clips: Sequence[Clip], compute: Callable[[Sequence[Clip]], Iterator[F32]], of_clip: tuple[int, ...]
    ) -> None:
        self._clips, self._compute = clips, compute
        self.shape = (len(clips), *of_clip)
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, row: Any, /) -> F32:
        return self.together([row])[int(row)]

    def together(self, rows: Sequence[Any]) -> dict[int, F32]:
        """Several rows by their numbers.

        Raises:
            RecordingError: a clip can't be read.
            StageError: the workers are out of reach.
        """
        wanted = sorted({int(row) for row in rows})
        return dict(zip(wanted, self._compute([self._clips[row] for row in wanted]), strict=True))


class _RowsAtHand:
    """A few rows of all, by the numbers that they have there."""

    def __init__(self, rows: Mapping[int, F32], shape: tuple[int, ...]) -> None:
        self._rows, self.shape, self.ndim = rows, shape, len(shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: Any, /) -> F32:
        return self._rows[int(row)]


def at_hand(rows: FeatureRows, wanted: Sequence[Any] | NDArray[np.int64]) -> FeatureRows:
    """The rows, of which these are about to be used: those that must be computed are, all together.

    Raises:
        RecordingError, StageError: as `ComputedRows.together`.
    """
    return _RowsAtHand(rows.together(list(wanted)), rows.shape) if isinstance(rows, ComputedRows) else rows
