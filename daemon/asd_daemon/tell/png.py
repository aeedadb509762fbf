"""Images of a palette → PNG (ISO/IEC 15948), with zlib and nothing else: the daemon carries no image library for one picture.

Owns the form of the file and a few letters. It knows nothing of what is shown.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
GLYPH_HEIGHT, GLYPH_WIDTH = 7, 5
# Five columns a letter, the lowest bit on top: as many letters as the pictures need
_GLYPHS = {
    "0": (62, 81, 73, 69, 62), "1": (0, 66, 127, 64, 0), "2": (66, 97, 81, 73, 70), "3": (33, 65, 69, 75, 49),
    "4": (24, 20, 18, 127, 16), "5": (39, 69, 69, 69, 57), "6": (60, 74, 73, 73, 48), "7": (1, 113, 9, 5, 3),
    "8": (54, 73, 73, 73, 54), "9": (6, 73, 73, 41, 30), ".": (0, 96, 96, 0, 0), "H": (127, 8, 8, 8, 127),
    "a": (32, 84, 84, 84, 120), "d": (56, 68, 68, 72, 127), "e": (56, 84, 84, 84, 24), "h": (127, 8, 4, 4, 120),
    "k": (127, 16, 40, 68, 0), "l": (0, 65, 127, 64, 0), "m": (124, 4, 24, 4, 120), "n": (124, 8, 4, 4, 120),
    "o": (56, 68, 68, 68, 56), "r": (124, 8, 4, 4, 8), "s": (72, 84, 84, 84, 36), "z": (68, 100, 84, 76, 68),
}  # fmt: skip


def png(indices: U8, palette: U8) -> bytes:
    """An image as a file.

    Args:
        indices: uint8 (H, W), each a row of the palette.
        palette: uint8 (N, 3), red, green and blue, N ≤ 256.
    """
    height, width = indices.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: 0 is none
    rows[:, 1:] = indices
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_words(indices: U8, words: str, row: int, column: int, colour: int, scale: int = 2) -> None:
    """Write letters into an image, uint8 (H, W); what lies outside is left out, and so are letters that there are none of.

    Args:
        indices: the image.
        words: what to write.
        row: of the upper edge.
        column: of the left edge.
        colour: row of the palette.
        scale: image elements for each dot of a letter.
    """
    for letter in words:
        dots = np.array([[column_ >> n & 1 for column_ in _GLYPHS.get(letter, (0,) * 5)] for n in range(GLYPH_HEIGHT)])
        large = np.kron(dots, np.ones((scale, scale), int)).astype(bool)
        place = indices[max(row, 0) : row + large.shape[0], max(column, 0) : column + large.shape[1]]
        place[large[: place.shape[0], : place.shape[1]]] = colour
        column += (GLYPH_WIDTH + 1) * scale


def words_width(words: str, scale: int = 2) -> int:
    """How many columns letters need."""
    return len(words) * (GLYPH_WIDTH + 1) * scale
