"""The picture of an alert is a PNG that others read, with what differs marked."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.spectrogram_image import row_of, spectrogram_image
from asd_daemon.run.alert_explanation import AlertExplanation
from asd_daemon.tell.alert_picture import AlertPicture
from asd_daemon.tell.png import png

U8 = NDArray[np.uint8]
MARK = (0, 229, 255)


def decoded(content: bytes) -> U8:
    """Red, green and blue of an image with a palette and no filter; (H, W, 3)."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + size]
        assert struct.unpack(">I", content[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 3, 0, 0, 0]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    return np.asarray(palette[rows[:, 1:]])


def test_image_is_what_was_put_in() -> None:
    indices = np.random.default_rng(0).integers(0, 3, (7, 11)).astype(np.uint8)
    palette = np.array([(0, 0, 0), (255, 0, 0), (1, 2, 3)], np.uint8)
    assert np.array_equal(decoded(png(indices, palette)), palette[indices])


def test_image_is_read_by_others() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="only the training has Pillow")
    content = AlertPicture(np.zeros((249, 128), np.uint8)).png()
    assert np.array_equal(np.asarray(pillow.open(io.BytesIO(content)).convert("RGB")), decoded(content))


def test_loud_tone_is_light_where_its_frequency_is_and_lies_in_the_marked_band() -> None:
    random = np.random.default_rng(0)
    noise = [random.normal(0, 0.01, 160_000).astype(np.float32) for _ in range(5)]
    explanation = AlertExplanation()
    for window in noise[:4]:
        explanation.add_normal(window)
    tone = 0.1 * np.sin(2 * np.pi * 3000 * np.arange(160_000) / 16_000).astype(np.float32)
    explanation.begin(noise[4] + tone)
    picture = explanation.picture
    assert picture is not None
    assert picture.normal is not None
    assert picture.heard.shape == picture.normal.shape == (249, 128)
    assert abs(int(picture.heard.mean(axis=0).argmax()) - row_of(3000)) <= 1
    image = decoded(picture.png())
    heard = image[24:-30, 70 : 70 + 498]
    lightness = heard.astype(float).sum(axis=(1, 2))
    lightest = int(lightness.argmax())
    marked = np.flatnonzero((heard[:, 250] == MARK).all(axis=1))
    assert marked.min() < lightest < marked.max()
    assert len(picture.png()) < 150_000


def test_picture_without_a_normal_window_is_half_as_wide() -> None:
    heard = spectrogram_image(log_mel(np.random.default_rng(0).normal(0, 0.1, 160_000).astype(np.float32)))
    alone, beside = decoded(AlertPicture(heard).png()), decoded(AlertPicture(heard, heard).png())
    assert alone.shape[0] == beside.shape[0]
    assert beside.shape[1] - alone.shape[1] == 498 + 22


def test_silence_and_what_is_too_short_make_a_picture_too() -> None:
    silent = spectrogram_image(log_mel(np.zeros(16_000, np.float32)))
    assert silent.shape == (24, 128)
    assert decoded(AlertPicture(silent, None, ((0.0, 20_000.0),), (0, 9)).png()).shape[2] == 3
