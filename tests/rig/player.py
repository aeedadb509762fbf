"""A program that says a file of sound over and over, some twenty times as fast as it was: a live source that needs no sound server."""

from __future__ import annotations

from pathlib import Path

_PROGRAM = """
import sys, threading
wait = threading.Event()
while True:
    sound = open(sys.argv[1], 'rb').read()
    for at in range(0, len(sound), 32000):
        sys.stdout.buffer.write(sound[at : at + 32000]); sys.stdout.buffer.flush(); wait.wait(0.05)
"""


def write_player(folder: Path) -> Path:
    """Write it; `python3 PLAYER SOUND` plays s16le at 16 kHz. Another file in the place of SOUND is taken up when it begins anew."""
    player = folder / "play.py"
    player.write_text(_PROGRAM)
    return player
