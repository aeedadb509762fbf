"""Views of a window that need no training: by name, each a vector that says something about the machine.

Owns which views there are, and how a window is taken to them: whole, and in thirds where the thirds tell how much noise moves a view while
the machine stays the same. By which of them a machine is judged is decided in learn/; how far windows lie apart is distances/.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.earlier_views import EARLIER_VIEW_NAMES, earlier_view_vectors
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.moving_views import MOVING_VIEWS, Movement
from asd_daemon.judge.features.steady_part import LevelledLogMels
from asd_daemon.judge.features.steady_views import STEADY_VIEWS
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]
PARTS = 3
"""Thirds of a window, which the steady views are also taken of."""
VIEW_NAMES = (*STEADY_VIEWS, *MOVING_VIEWS)
"""Those that machines are learned by."""
ALL_VIEW_NAMES = (*VIEW_NAMES, *EARLIER_VIEW_NAMES)
"""With those of machines that earlier versions learned."""
_FEW_SAMPLES = 3 * SAMPLE_RATE_HZ  # a view is as large of three seconds as of a window, and found five times as fast
FRAMES_NEEDED = 100  # of a log-mel, so that each third still holds a third of a second


def view_vectors(
    waveform: F32, features: F32 | None = None, *, views: Collection[str] = VIEW_NAMES, parts: bool = True
) -> dict[str, F32]:
    """Views of a window: name → (1 + P, D), the whole window first and then, where `parts` are wanted and the view has any, its P thirds.

    Args:
        waveform: float32 (N,) at 16 kHz.
        features: its log-mel (T, 128), where it is at hand; only earlier views need it.
        views: which, all of them in ALL_VIEW_NAMES.
        parts: whether the thirds are wanted.

    Raises:
        ValueError: shorter than FRAMES_NEEDED frames of 10 ms.
    """
    described: dict[str, F32] = {}
    if any(name in views for name in VIEW_NAMES):
        mels = LevelledLogMels.of(waveform)
        _check_length(mels.window)
        pieces = [mels, *(_thirds(mels) if parts else ())]
        described = {n: np.stack([view(piece) for piece in pieces]) for n, view in STEADY_VIEWS.items() if n in views}
        if any(name in views for name in MOVING_VIEWS):
            movement = Movement.of(mels)
            described |= {n: view(movement)[None] for n, view in MOVING_VIEWS.items() if n in views}
    earlier = [name for name in EARLIER_VIEW_NAMES if name in views]
    if earlier:
        mel = log_mel(waveform) if features is None else features
        _check_length(mel)
        described |= earlier_view_vectors(waveform, mel, earlier, parts=parts)
    return described


@cache
def view_sizes() -> Mapping[str, int]:
    """D of every view."""
    noise = np.random.default_rng(0).normal(size=_FEW_SAMPLES).astype(np.float32)
    vectors = view_vectors(noise, views=ALL_VIEW_NAMES, parts=False)
    return {name: int(own.shape[1]) for name, own in vectors.items()}


def _thirds(mels: LevelledLogMels) -> list[LevelledLogMels]:
    third = mels.window.shape[0] // PARTS
    return [mels.between(n * third, (n + 1) * third) for n in range(PARTS)]


def _check_length(mel: F32) -> None:
    if mel.shape[0] < FRAMES_NEEDED:
        raise ValueError(f"a view needs {FRAMES_NEEDED} frames of 10 ms, got {mel.shape[0]}")
