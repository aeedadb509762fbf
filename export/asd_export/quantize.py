"""fp32 ONNX → int8, within a budget: what misses it is refused, and what is kept is the fastest that holds it.

Both ways of `rounding` are tried for each model. Where one misses its accuracy, every operator is rounded alone and its error measured;
the worst stay fp32, as many as it takes. What is measured, and on what, is a yardstick's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import ExportError
from asd_export.rounding import WAYS, Rounding, Way

F32 = NDArray[np.float32]
MOST_KEPT = 0.5  # share of the operators that may stay fp32; with more there is no int8 model to speak of


@dataclass(frozen=True)
class Budget:
    """What a quantised model must hold."""

    score_error: float = 0.25
    """Largest difference of any leave-one-out score from fp32's, as a share of fp32's 95th percentile score."""
    size: float = 0.5
    """Largest share of the fp32 file's bytes."""
    omega_points: float = 0.5
    """What Ω of the test split may fall by, in points."""
    loss_db: float = 0.5
    """Separators: largest mean loss of SI-SDR against fp32."""


@dataclass(frozen=True)
class Candidate:
    """One model file, as measured."""

    way: str
    bytes: int
    window_ms: float
    """Milliseconds of the processor for one window on one thread: the fastest of a few runs."""
    score_error: float
    """Largest absolute difference of a leave-one-out score from fp32's."""
    score_error_share: float
    """The same as a share of fp32's 95th percentile score."""
    loss_db: float | None = None
    """Separators: mean SI-SDR lost against fp32."""
    omega: float | None = None
    """Ω of the test split in percent, by the nearest neighbour; None where there is none or it was not asked for."""
    kept_fp32: tuple[tuple[str, float], ...] = ()
    """Operators that stay fp32, and the error that each makes when it alone is rounded."""
    refused: str | None = None
    """Why it may not be used; None where it may."""


class AccuracyMeasure(Protocol):
    """Measures files of one model against its fp32 file."""

    @property
    def inputs(self) -> Sequence[F32]:
        """Calibration inputs, each with its batch axis."""

    def measure(self, way: str, file: Path) -> Candidate:
        """Everything but Ω.

        Raises:
            ExportError: the file gives numbers that are not finite.
        """

    def error(self, file: Path) -> float:
        """How far a file is off, on a few clips; to rank operators by."""

    def objection(self, candidate: Candidate) -> str | None:
        """What of its accuracy misses the budget."""


Omegas = Callable[[Mapping[str, Path]], Mapping[str, float]]
"""way → file becomes way → Ω of the test split in percent; empty where there is no test split. Raises nothing of its own."""
Told = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


def quantize(
    fp32: Path,
    target: Path,
    yardstick: AccuracyMeasure,
    budget: Budget,
    *,
    omegas: Omegas = lambda _: {},
    holds_omega: bool = True,
    told: Told = lambda _done, _total: None,
) -> tuple[Candidate, tuple[Candidate, ...]]:
    """Try each way, measure, and write the fastest that holds the budget.

    Args:
        fp32: the ONNX graph to quantise.
        target: where the chosen model is written.
        yardstick: what measures it.
        budget: what must hold.
        omegas: Ω of the test split by files.
        holds_omega: whether there are enough test clips to hold Ω to its budget.
        told: told of each operator that is measured.

    Returns:
        the chosen candidate, and all of them with fp32 first.

    Raises:
        ExportError: none holds the budget; says by how much each missed.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        rounding = Rounding(fp32, folder, yardstick.inputs)
        table = [yardstick.measure("fp32", fp32)]
        files = {"fp32": fp32}
        for way in WAYS:
            files[way] = folder / f"{way}.onnx"
            candidate = _within(rounding, way, files[way], yardstick, told)
            share = candidate.bytes / table[0].bytes
            if candidate.refused is None and share > budget.size:
                candidate = replace(candidate, refused=f"{share:.0%} of the fp32 size, allowed {budget.size:.0%}")
            table.append(candidate)
        found = omegas({c.way: files[c.way] for c in table if c.refused is None})
        table = [_with_omega(c, found, budget.omega_points if holds_omega else np.inf) for c in table]
        held = [c for c in table[1:] if c.refused is None]
        if not held:
            reasons = "; ".join(f"{c.way}: {c.refused}" for c in table[1:])
            raise ExportError(f"no int8 model holds its budget ({reasons}); export with --fp32, or train longer")
        chosen = min(held, key=lambda c: c.window_ms)
        target.write_bytes(files[chosen.way].read_bytes())
    return chosen, tuple(table)


def _within(rounding: Rounding, way: Way, file: Path, yardstick: AccuracyMeasure, told: Told) -> Candidate:
    """One way, with as few operators in fp32 as its accuracy needs; refused where even half of them are too few."""
    operators = rounding.operators(way)
    rounding.write(way, file, operators)
    candidate = yardstick.measure(way, file)
    objection = yardstick.objection(candidate)
    if objection is None or not operators:
        return replace(candidate, refused=objection)
    ranked = _ranked(rounding, way, file.with_suffix(".one.onnx"), yardstick, told)
    for count in _counts(int(MOST_KEPT * len(operators))):
        kept = tuple(ranked[:count])
        rounding.write(way, file, [name for name, _ in ranked[count:]])
        candidate = replace(yardstick.measure(way, file), kept_fp32=kept)
        objection = yardstick.objection(candidate)
        if objection is None:
            return candidate
    return replace(candidate, refused=f"{objection}, even with {len(candidate.kept_fp32)} of {len(operators)} in fp32")


def _ranked(
    rounding: Rounding, way: Way, file: Path, yardstick: AccuracyMeasure, told: Told
) -> list[tuple[str, float]]:
    """Every operator with the error that it makes when it alone is rounded, the worst first."""
    operators = rounding.operators(way)
    errors = []
    for number, name in enumerate(operators):
        told(number, len(operators))
        rounding.write(way, file, [name])
        errors.append((name, float(f"{yardstick.error(file):.4g}")))
    told(len(operators), len(operators))
    return sorted(errors, key=lambda each: -each[1])


def _counts(most: int) -> list[int]:
    """1, 2, 4, … and the most."""
    doubled = [1 << n for n in range(most.bit_length()) if 1 << n < most]
    return [*doubled, most] if most else []


def _with_omega(candidate: Candidate, omegas: Mapping[str, float], allowed: float) -> Candidate:
    """The candidate with its Ω, refused where that fell too far."""
    if candidate.way not in omegas:
        return candidate
    own, full = omegas[candidate.way], omegas["fp32"]
    refused = None
    if not full - own <= allowed:
        refused = f"Ω of the test split falls from {full:.1f} to {own:.1f}, allowed {allowed:g} points"
    return replace(candidate, omega=round(own, 3), refused=refused)
