"""The clips that a run decided most wrongly, to be looked at and listened to.

Owns which they are and in what form they travel inside a page. It decides nothing: the thresholds come with the clips.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.report.figures import Picture, spectrogram

if TYPE_CHECKING:
    from asd_trainer.data.clip import Clip
    from asd_trainer.evaluate.backend import ScoredClip
    from asd_trainer.evaluate.threshold import SectionDecisions

F32 = NDArray[np.float32]

PLAYED_PEAK_DB = -3.0  # quiet recordings are lifted to it, so that they are heard; the page says by how much


@dataclass(frozen=True)
class Mistake:
    """A clip that was decided wrongly."""

    name: str
    machine: str
    facts: tuple[str, ...]
    score: float
    threshold: float
    deviations: float
    """How far the score is on the wrong side, in standard deviations of its section's scores."""
    picture: Picture
    sound: str
    """FLAC as a data address."""
    lifted_db: float


def worst_mistakes(
    sections: Sequence[SectionDecisions], kind: Literal["miss", "false alarm"], most: int, load: Callable[[Clip], F32]
) -> tuple[Mistake, ...]:
    """The clips that were decided most wrongly over all machines, worst first.

    Scores of machines are not comparable, so the distance to the threshold is measured in deviations of the section's scores.

    Raises:
        RecordingError: one of them can't be read.
    """
    found: list[tuple[float, ScoredClip, SectionDecisions]] = []
    label, decided = ("anomaly", False) if kind == "miss" else ("normal", True)
    for section in sections:
        deviation = float(np.std([one.score for one in section.scored])) or 1.0
        for one, anomalous in zip(section.scored, section.anomalous, strict=True):
            if one.clip.label == label and anomalous == decided:
                found.append((abs(one.score - section.threshold) / deviation, one, section))
    found.sort(key=lambda mistake: (-mistake[0], str(mistake[1].clip.path)))
    return tuple(_mistake(one, section, far, load(one.clip)) for far, one, section in found[:most])


def _mistake(one: ScoredClip, section: SectionDecisions, deviations: float, waveform: F32) -> Mistake:
    clip = one.clip
    facts = [f"{clip.domain} domain"] if clip.domain else []
    facts += [f"{name} {value}" for name, value in clip.attributes]
    sound, lifted_db = _sound(waveform)
    picture = Picture.of(spectrogram(log_mel(waveform)), f"Spectrogram of {clip.path.name}")
    return Mistake(
        clip.path.stem, section.title, tuple(facts), one.score, section.threshold, deviations, picture, sound, lifted_db
    )


def _sound(waveform: F32) -> tuple[str, float]:
    """FLAC as a data address, lifted (or lowered) to a common peak, and by how many decibels."""
    peak = float(np.abs(waveform).max()) or 1.0
    gain = 10 ** (PLAYED_PEAK_DB / 20) / peak
    flac = io.BytesIO()
    soundfile.write(flac, waveform * np.float32(gain), SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(flac.getvalue()).decode()}", 20 * float(np.log10(gain))
