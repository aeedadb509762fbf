"""Sound files: which files are some, what their headers promise, and their samples, block by block, in memory that does not grow.

Owns libsndfile (by soundfile, imported where it is used) and every word about a file that can't be read. It knows no rate but the
file's own, no window and no machine.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asd_daemon.errors import RecordingError
from asd_daemon.wording import counted

if TYPE_CHECKING:
    import numpy as np
    import soundfile
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

SOUND_SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".voc", ".sph", ".nist"),
)
"""Files that are taken for sound by their names; others by their first bytes."""
FOREIGN_SUFFIXES = (".aac", ".ac3", ".amr", ".dsf", ".m4a", ".mka", ".mp4", ".wma", ".webm", ".wv")
"""Recordings that libsndfile does not read: never passed over in silence, always refused by name."""
_OTHER_SUFFIXES = (
    *(
        ".csv",
        ".tsv",
        ".txt",
        ".md",
        ".json",
        ".jsonl",
        ".yaml",
        ".yml",
        ".toml",
        ".ini",
        ".xml",
        ".html",
        ".pdf",
        ".log",
    ),
    *(
        ".png",
        ".jpg",
        ".jpeg",
        ".py",
        ".m",
        ".npy",
        ".npz",
        ".h5",
        ".zip",
        ".gz",
        ".tar",
        ".7z",
        ".db",
        ".sqlite",
        ".part",
    ),
)  # what lies beside recordings is not opened: tables of hidden truth must not be
_MAGIC = re.compile(
    rb"RIFF....WAVE|RIFX....WAVE|RF64....WAVE|riff\x2e\x91\xcf\x11|fLaC|OggS|ID3[\x02-\x04]|FORM....AIF[FC]|\.snd\x00\x00|caff\x00\x01"
    rb"|Creative Voice File|NIST_1A",
    re.DOTALL,
)
HEAD_BYTES = 20
"""So many are enough to know a header."""
_RATES_HZ = (1_000, 768_000)
_BLOCK_VALUES = 2**16  # of all channels together: 256 KiB, and no more is lost before a damage
_UNKNOWN_LENGTH = 2**40  # libsndfile says SF_COUNT_MAX, or whatever a damaged header holds
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def printable(path: Path | str) -> str:
    """A path as words for people: control characters and bytes that are no UTF-8 are escaped, so that no name moves a cursor."""
    return _CONTROL.sub(_escaped, str(path))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def starts_as_sound(head: bytes) -> bool:
    """Whether these first bytes of something are the header of a sound file."""
    return _MAGIC.match(head) is not None


def is_sound(path: Path) -> bool:
    """Whether a file is to be read as sound: by its name, or else by its first bytes. Hidden files never are (`._x.wav` of macOS)."""
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    if suffix in SOUND_SUFFIXES or suffix in FOREIGN_SUFFIXES:
        return path.is_file()
    if suffix in _OTHER_SUFFIXES:
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return starts_as_sound(file.read(HEAD_BYTES))
    except OSError:
        return False


def sound_files(folder: Path) -> list[Path]:
    """The sound files below a folder, in the order of their paths; hidden files and folders are left out, links are followed once."""
    found: list[Path] = []
    seen: set[Path] = set()

    def walk(inside: Path) -> None:
        real = inside.resolve()
        if real in seen:
            return
        seen.add(real)
        try:
            entries = sorted(os.scandir(inside), key=lambda entry: entry.name)
        except OSError:
            return
        for entry in entries:
            path = inside / entry.name
            if entry.name.startswith("."):
                continue
            if path.is_dir():
                walk(path)
            elif is_sound(path):
                found.append(path)

    walk(folder)
    return sorted(found)


class SoundFile:
    """One channel of an open sound file.

    Args:
        path: any format of libsndfile that has a header.
        channel: which one, counted from 0; chosen, never averaged: averaging microphones cancels what they hear out of phase.
        content: what the file holds, where it does not lie at the path, which then only names it.

    Raises:
        RecordingError: missing, unreadable, empty, without such a channel, or with a header that can't be right.
    """

    def __init__(self, path: Path, channel: int = 0, content: bytes | None = None) -> None:
        self.path = path
        self.name = printable(path)
        self._channel = channel
        self._content = content
        self._file = _open(path, content)
        try:
            self._check(self._file)
        except RecordingError:
            self._file.close()
            raise
        self.rate_hz = int(self._file.samplerate)
        self.promised_samples: int | None = None
        """By the header; None where it does not say."""
        if 0 < self._file.frames < _UNKNOWN_LENGTH:
            self.promised_samples = int(self._file.frames)
        self.read_samples = 0

    def __enter__(self) -> SoundFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def shortfall(self) -> str | None:
        """After the last block: in words, that the file ends before its header says; None where it does not."""
        promised = _promised_by_log(self._file.extra_info, self._file.frames) or self.promised_samples
        if promised is None or self.read_samples >= promised - max(self.rate_hz // 10, promised // 50):
            return None
        return (
            f"{self.name}: ends after {self.read_samples / self.rate_hz:.1f} s, but its header promises"
            f" {promised / self.rate_hz:.1f} s: it was cut off or is still being written"
        )

    def blocks(self) -> Iterator[F32]:
        """The samples in order, float32 (N,) at the file's rate, N > 0.

        Raises:
            RecordingError: the file is damaged from here on, or holds a sample that is not finite.
        """
        import numpy as np
        import soundfile

        frames = max(1, _BLOCK_VALUES // self._file.channels)
        while True:
            try:
                block = self._file.read(frames, dtype="float32", always_2d=True)
            except (soundfile.LibsndfileError, OSError, RuntimeError, ValueError, MemoryError) as e:
                at = f" after {self.read_samples / self.rate_hz:.1f} s" if self.read_samples else ""
                raise RecordingError(f"{self.name}: can't be read as sound{at}: {_plain(e)}") from e
            if block.shape[0] == 0:
                break
            mono = np.ascontiguousarray(block[:, self._channel])
            if not np.isfinite(mono).all():
                bad = int(np.flatnonzero(~np.isfinite(mono))[0])
                raise RecordingError(
                    f"{self.name}: sample {self.read_samples + bad} is {mono[bad]}; a recording must hold finite numbers only"
                )
            self.read_samples += block.shape[0]
            yield mono
        if self.read_samples == 0:
            raise RecordingError(f"{self.name}: holds no sound (0 samples)")

    def _check(self, file: Any) -> None:
        least, most = _RATES_HZ
        if not least <= file.samplerate <= most:
            raise RecordingError(f"{self.name}: its header says {file.samplerate} Hz; {least} to {most} can be right")
        if file.frames == 0:
            size = self.path.stat().st_size if self._content is None else len(self._content)
            also = f" in its header, but {size} bytes: it is still being written, or was cut off" if size > 1024 else ""
            raise RecordingError(f"{self.name}: holds no sound (0 samples){also}")
        if not 0 <= self._channel < file.channels:
            raise RecordingError(
                f"{self.name}: has {counted(file.channels, 'channel')}, no channel {self._channel} (counted from 0)"
            )


def header_objection(path: Path, channel: int = 0, content: bytes | None = None) -> str | None:
    """Why a file can't be read as sound, as far as its header tells, without its name; None where it can."""
    try:
        with SoundFile(path, channel, content):
            return None
    except RecordingError as e:
        return str(e).removeprefix(f"{printable(path)}: ")


def _open(path: Path, content: bytes | None) -> soundfile.SoundFile:
    import soundfile

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
        """Reads on without seeking, which libsndfile can't in a FLAC that does not say how long it is."""

        def seekable(self) -> bool:
            """Not for us."""
            return False

    name = printable(path)
    if path.suffix.lower() in FOREIGN_SUFFIXES:
        raise RecordingError(f"{name}: can't be read as sound: {path.suffix} is not read; convert it to wav or flac")
    try:
        if content is not None:
            return Sequential(io.BytesIO(content))
        if not path.is_file():
            raise RecordingError(f"{name}: can't be read as sound: {_missing(path)}")
        return Sequential(os.fsencode(path))  # bytes: a name need not be UTF-8
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError, MemoryError) as e:  # TypeError: .raw, no header
        reason = "no right to read it" if content is None and not os.access(path, os.R_OK) else _plain(e)
        raise RecordingError(f"{name}: can't be read as sound: {reason}") from e


def _missing(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    return "it is no ordinary file" if path.exists() else "there is no such file"


def _plain(error: Exception) -> str:
    """The library's words without the file's name, which ours begin with."""
    text = re.sub(r"^Error opening .*?: (?=[A-Z])", "", str(error)).rstrip(".")
    if "not a regular file" in text:  # what it says of an MP3 without a single frame
        text = "it holds no sound that can be decoded"
    return printable(text) or type(error).__name__


def _promised_by_log(log: str, frames: int) -> int | None:
    """How many samples a header promised that libsndfile found to be fewer: its log says `data : 96000 (should be 47978)`."""
    found = re.search(r"(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", log)
    if found is None or int(found[1]) >= 0x7FFF0000:  # programs that write to pipes promise all there can be
        return None
    promised, there = int(found[1]), int(found[2])
    return round(frames * promised / there) if promised > there > 0 else None
