"""The message by which people try whether they are told."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from asd_daemon.tell.alert_picture import AlertPicture
from asd_daemon.tell.notifications.notice import Message


def trial_message(node: str, now_s: float, *, pictures: bool) -> Message:
    """A message that says that it is none.

    Args:
        node: this box's name.
        now_s: Unix time.
        pictures: whether it has a picture, of sound that was never heard.
    """
    at = datetime.fromtimestamp(now_s, UTC).astimezone()
    body = f"This is what a message looks like; nothing is wrong.\n{at:%Y-%m-%d %H:%M:%S} {at.tzname()}\n{node}"
    return Message(f"{node}: a test", body, is_good=True, picture=_picture() if pictures else None)


def _picture() -> bytes:
    random = np.random.default_rng(0)
    normal = random.integers(70, 90, (249, 128)).astype(np.uint8)
    heard = normal.copy()
    heard[100:175, 70:76] += 60
    return AlertPicture(heard, normal, ((2300.0, 2750.0),), (4, 5, 6)).png()
