"""The picture of an alert: what was heard beside the nearest normal sound, both as spectrograms, with the bands and seconds that differ.

Owns what is shown where. It is computed when somebody wants it, from images of 32 kB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asd_daemon.judge.features.spectrogram_image import COLUMN_S, row_of
from asd_daemon.tell.png import GLYPH_HEIGHT, png, words_width, write_words

U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]
_LEVELS = 64  # colours of sound: more would make a larger file of the same look
_BACKGROUND, _INK, _MARK = _LEVELS, _LEVELS + 1, _LEVELS + 2
_ANCHORS = (
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)
_SCALE = 2  # image elements of one picture element, each way
_LEFT, _TOP, _BOTTOM, _GAP = 70, 24, 30, 22
_KILOHERTZ = (0.5, 1, 2, 4, 8)
_SECONDS_BAR = 4


@dataclass(frozen=True, eq=False)
class AlertPicture:
    """One alert's."""

    heard: U8 = field(repr=False)
    """The worst window; uint8 (T, 128), as `spectrogram_image` makes it."""
    normal: U8 | None = field(default=None, repr=False)
    """A normal one."""
    bands: tuple[tuple[float, float], ...] = ()
    """Lowest and highest frequency in Hz of what differs."""
    seconds: tuple[int, ...] = ()
    """Seconds of the window, counted from 0, that differ most."""

    def png(self) -> bytes:
        """The picture as a file."""
        return self._png

    @cached_property
    def _png(self) -> bytes:
        shown = [("heard", self.heard), *([("normal", self.normal)] if self.normal is not None else [])]
        low, high = self._range([image for _, image in shown])
        panels = [self._panel(words, image, low, high, is_heard=words == "heard") for words, image in shown]
        gap = np.full((panels[0].shape[0], _GAP), _BACKGROUND, np.uint8)
        parts = [self._scale(panels[0].shape[0])]
        for panel in panels:
            parts += [panel, gap]
        return png(np.hstack(parts), _palette())

    @staticmethod
    def _range(images: list[U8]) -> tuple[float, float]:
        """From which level to which the colours reach, the same for both."""
        low = min(float(np.percentile(image, 5)) for image in images)
        high = max(float(np.percentile(image, 99.7)) for image in images)
        return low, max(high, low + 30)  # 13 dB at least: silence is not blown up to noise

    def _panel(self, words: str, image: U8, low: float, high: float, *, is_heard: bool) -> U8:
        levels = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) * (_LEVELS - 1)
        dots = np.kron(levels.astype(np.uint8).T[::-1], np.ones((_SCALE, _SCALE), np.uint8))
        height, width = dots.shape
        panel = np.full((_TOP + height + _BOTTOM, width), _BACKGROUND, np.uint8)
        panel[_TOP : _TOP + height] = dots
        write_words(panel, words, 4, 2, _INK)
        for low_hz, high_hz in self.bands:
            upper, lower = (_TOP + height - round(row_of(hz) * _SCALE) for hz in (high_hz, low_hz))
            lower = min(max(lower, upper + 4), _TOP + height)
            for row in (upper, lower - 2):
                panel[max(row, _TOP) : max(row, _TOP) + 2, :] = _MARK
            panel[upper:lower, :2] = panel[upper:lower, -2:] = _MARK
        columns_of_second = _SCALE / COLUMN_S
        for second in self.seconds if is_heard else ():
            begin, end = round(second * columns_of_second), round((second + 1) * columns_of_second)
            panel[_TOP + height + 1 : _TOP + height + 1 + _SECONDS_BAR, begin:end] = _MARK
        for second in (0, 5, 10):
            text = f"{second} s" if second == 10 else str(second)
            column = min(round(second * columns_of_second), width - words_width(text))
            write_words(panel, text, _TOP + height + 10, column, _INK)
        return panel

    @staticmethod
    def _scale(height: int) -> U8:
        """Frequencies at the left edge."""
        scale, bottom = np.full((height, _LEFT), _BACKGROUND, np.uint8), height - _BOTTOM
        for kilohertz in _KILOHERTZ:
            row = bottom - round(row_of(1000 * kilohertz) * _SCALE)
            text = f"{kilohertz:g}"
            write_words(scale, text, max(row - GLYPH_HEIGHT, 0), _LEFT - 10 - words_width(text), _INK)
            scale[row : row + 2, _LEFT - 7 :] = _INK
        write_words(scale, "kHz", bottom + 10, _LEFT - 12 - words_width("kHz"), _INK)
        return scale


def _palette() -> U8:
    """The colours of sound from dark to light, then background, ink and mark; uint8 (67, 3)."""
    anchors: F64 = np.array(_ANCHORS, np.float64)
    at = np.linspace(0, len(anchors) - 1, _LEVELS)
    colours = np.stack([np.interp(at, np.arange(len(anchors)), anchors[:, c]) for c in range(3)], axis=1)
    marks = np.array([(255, 255, 255), (34, 40, 49), (0, 229, 255)], np.float64)
    return np.asarray(np.vstack([colours, marks]).round(), np.uint8)
