"""Fitted views in a byte a number: half of what half precision takes, for scores that differ by less than 1 %.

    <view>/bank            int8 (N, D), times <view>/bank.step (D,)
    <view>/whitening.axes  float16, the axes that change a distance most
    <view>/whitening.more  int8 (R, D), the others, times <view>/whitening.more.step (R,); left out are axes that change nothing

Owns this form. Rounding noise of a byte is spread over a hundred and more components of a distance, so that it hardly moves their sum; what
an axis does is its gain's to say, so the largest keep two bytes. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asd_daemon.errors import BundleError

Array = NDArray[Any]
Floats = NDArray[np.floating]
MOST_IN_HALF_PRECISION = 1e4
LEAST_GAIN = 0.02
"""Axes along which a distance changes by less than this fraction are left out."""
FINE_AXES = 4
LEVELS = 127
TINY = 1e-12
USUAL_DENSITY = {"offset": 0.0, "scale": 1.0}
"""Of references that are all measured alike; left out."""
BANK, STEP, AXES, GAIN, OUTSIDE, MORE = (
    "bank",
    ".step",
    "whitening.axes",
    "whitening.gain",
    "whitening.outside",
    "whitening.more",
)


def compact(array: Array) -> Array:
    """Half precision for matrices, which changes a score by 1e-4; single for the rest, and for what is too large; bytes stay."""
    if array.dtype == np.int8:
        return array
    is_small = array.ndim == 2 and array.size and float(np.abs(array).max()) < MOST_IN_HALF_PRECISION
    return np.asarray(array, np.float16 if is_small else np.float32)


def packed_arrays(arrays: Mapping[str, Floats]) -> dict[str, Array]:
    """A fusion's arrays, <position>/<name>, with banks and axes in bytes."""
    packed: dict[str, Array] = dict(arrays)
    for view in sorted({name.split("/", 1)[0] for name in arrays}):
        bank = arrays[f"{view}/{BANK}"]
        packed[f"{view}/{BANK}"], packed[f"{view}/{BANK}{STEP}"] = _in_bytes(bank, axis=0)
        for name, usual in USUAL_DENSITY.items():
            if (arrays[f"{view}/{name}"] == usual).all():
                del packed[f"{view}/{name}"]
        if f"{view}/{AXES}" not in arrays:
            continue
        axes, gain, outside = (arrays[f"{view}/{name}"] for name in (AXES, GAIN, OUTSIDE))
        order = np.argsort(-np.abs(gain), kind="stable")
        order = order[np.abs(gain[order]) >= LEAST_GAIN * float(outside[0])]
        packed[f"{view}/{GAIN}"], packed[f"{view}/{AXES}"] = gain[order], axes[order[:FINE_AXES]]
        packed[f"{view}/{MORE}"], packed[f"{view}/{MORE}{STEP}"] = _in_bytes(axes[order[FINE_AXES:]], axis=1)
    return packed


def unpacked_arrays(arrays: Mapping[str, Array], file: Path) -> dict[str, Floats]:
    """What `packed_arrays` packed, as floating-point numbers; other arrays as they are.

    Raises:
        BundleError: `file` holds something else.
    """
    plain: dict[str, Floats] = {}
    for name, array in arrays.items():
        if array.dtype == np.int8 and name.endswith((f"/{BANK}", f"/{MORE}")) and array.ndim == 2:
            axis = 0 if name.endswith(f"/{BANK}") else 1
            step = arrays.get(f"{name}{STEP}")
            if step is None or step.dtype.kind != "f" or step.shape != (array.shape[1 - axis],):
                raise BundleError(f"{file}: {name}: its steps are missing or misshapen; make the bundle again")
            plain[name] = array.astype(np.float32) * (step[None] if axis == 0 else step[:, None])
        elif array.dtype.kind != "f":
            raise BundleError(f"{file}: must hold floating-point arrays, or bytes with steps; make the bundle again")
        elif not name.endswith(STEP):
            plain[name] = np.asarray(array)
    for view, bank in [(name.split("/", 1)[0], x) for name, x in plain.items() if name.endswith(f"/{BANK}")]:
        for name, usual in USUAL_DENSITY.items():
            if f"{view}/{BANK}{STEP}" in arrays:
                plain.setdefault(f"{view}/{name}", np.full(bank.shape[0], usual, np.float32))
    for name in [name for name in plain if name.endswith(f"/{MORE}")]:
        axes, more = plain.get(name.replace(MORE, AXES)), plain.pop(name)
        if axes is None or axes.ndim != 2 or axes.shape[1] != more.shape[1]:
            raise BundleError(f"{file}: {name}: does not fit the other axes; make the bundle again")
        plain[name.replace(MORE, AXES)] = np.concatenate([axes, more])
    return plain


def _in_bytes(matrix: Floats, *, axis: int) -> tuple[NDArray[np.int8], Floats]:
    """A matrix in 255 levels with a step for each column (axis 0) or row (axis 1)."""
    step = np.maximum(np.abs(matrix).max(axis=axis, initial=0), TINY) / LEVELS
    return np.round(matrix / np.expand_dims(step, axis)).astype(np.int8), step
