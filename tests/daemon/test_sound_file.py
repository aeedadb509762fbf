"""Sound files of every kind: read in blocks by content, whatever their names and headers say, or refused in one line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from asd_daemon.errors import RecordingError
from asd_daemon.sound_file import SoundFile, is_sound, printable, sound_files
from asd_daemon.waveform import read_blocks, read_waveform

SOUND = np.random.default_rng(1).uniform(-0.3, 0.3, 32_000).astype(np.float32)
DAEMON = Path(__file__).resolve().parents[2] / "daemon"


def encoded(fmt: str = "WAV", subtype: str | None = None, rate_hz: int = 16_000) -> bytearray:
    memory = io.BytesIO()
    soundfile.write(memory, SOUND, rate_hz, format=fmt, subtype=subtype)
    return bytearray(memory.getvalue())


@pytest.mark.parametrize(
    ("name", "fmt", "subtype"),
    [
        ("a.wav", "WAV", "PCM_24"),
        ("a.wave", "WAVEX", "PCM_16"),
        ("a.rf64", "RF64", "PCM_16"),
        ("a.w64", "W64", "PCM_16"),
        ("a.flac", "FLAC", "PCM_16"),
        ("a.aiff", "AIFF", "PCM_16"),
        ("a.au", "AU", "PCM_16"),
        ("a.caf", "CAF", "PCM_16"),
        ("a.ogg", "OGG", "VORBIS"),
        ("a.opus", "OGG", "OPUS"),
        ("a.mp3", "MP3", "MPEG_LAYER_III"),
        ("recording", "WAV", "PCM_16"),
        ("segment.0001", "FLAC", "PCM_16"),
        ("a.bin", "OGG", "VORBIS"),
    ],
)
def test_every_format_is_found_in_a_folder_and_read(tmp_path: Path, name: str, fmt: str, subtype: str) -> None:
    (tmp_path / name).write_bytes(encoded(fmt, subtype))
    (tmp_path / "notes.txt").write_bytes(encoded())  # by its name it is something else, and is not opened
    assert sound_files(tmp_path) == [tmp_path / name]
    assert read_waveform(tmp_path / name).shape[0] == pytest.approx(32_000, abs=2400)


def test_folder_leaves_out_what_is_hidden_and_follows_links_once(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / ".cache").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for file in (inside / "b.wav", inside / "._b.wav", inside / ".cache" / "c.wav", tmp_path / "elsewhere" / "d.wav"):
        file.write_bytes(encoded())
    (inside / "a.wav").symlink_to(inside / "b.wav")
    (inside / "more").symlink_to(tmp_path / "elsewhere")
    (inside / "round").symlink_to(inside)
    (inside / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    os.mkfifo(inside / "pipe.wav")
    assert [str(p.relative_to(inside)) for p in sound_files(inside)] == ["a.wav", "b.wav", "more/d.wav"]


def test_recordings_that_cannot_be_read_are_found_all_the_same_and_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    assert is_sound(tmp_path / "phone.m4a")
    with pytest.raises(RecordingError, match=r"phone\.m4a: .*\.m4a is not read; convert it to wav or flac"):
        read_waveform(tmp_path / "phone.m4a")


@pytest.mark.parametrize("total", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_flac_whose_header_does_not_say_how_long_it_is_is_read_to_its_end(tmp_path: Path, total: bytes) -> None:
    content = encoded("FLAC")
    content[21] = (content[21] & 0xF0) | (total[0] & 0x0F)
    content[22:26] = total
    (tmp_path / "segment.flac").write_bytes(content)
    assert np.abs(read_waveform(tmp_path / "segment.flac") - SOUND).max() < 1e-4


def test_name_that_is_no_utf8_is_read_and_printed_escaped(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.wav")
    file.write_bytes(encoded())
    assert sound_files(tmp_path) == [file]
    assert read_waveform(file).shape == (32_000,)
    file.write_bytes(b"RIFF")
    with pytest.raises(RecordingError, match=r"caf\\xe9\.wav: can't be read as sound") as refused:
        read_waveform(file)
    str(refused.value).encode()


def test_control_characters_of_a_name_are_printed_escaped() -> None:
    assert printable("a\x1b[2J\n\x9b1.wav") == r"a\x1b[2J\x0a\x9b1.wav"
    assert printable(Path("Lüfter – 3 Ω.wav")) == "Lüfter – 3 Ω.wav"


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (24, (4_000_000).to_bytes(4, "little"), "its header says 4000000 Hz"),
        (24, (12).to_bytes(4, "little"), "its header says 12 Hz"),
        (24, b"\xf0\xff\xff\xff", "can't be read as sound"),
        (22, b"\x60\xea", "can't be read as sound"),
        (40, bytes(4), "0 samples.*64044 bytes: it is still being written, or was cut off"),
    ],
)
def test_header_that_cannot_be_right_is_refused_before_anything_is_allocated(
    tmp_path: Path, offset: int, value: bytes, message: str
) -> None:
    content = encoded()
    content[offset : offset + len(value)] = value
    (tmp_path / "odd.wav").write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        read_waveform(tmp_path / "odd.wav")


def test_file_that_was_cut_off_is_read_as_far_as_it_goes_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = encoded()
    (tmp_path / "cut.wav").write_bytes(content[: len(content) // 2])
    assert read_waveform(tmp_path / "cut.wav").shape[0] == pytest.approx(16_000, abs=30)
    assert (
        "cut.wav: ends after 1.0 s, but its header promises 2.0 s: it was cut off or is still being written"
        in caplog.text
    )


def test_file_written_to_a_pipe_promises_everything_and_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = encoded()
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "piped.wav").write_bytes(content)
    assert read_waveform(tmp_path / "piped.wav").shape == (32_000,)
    assert caplog.text == ""


def test_damage_further_on_is_told_with_its_place_after_what_was_whole(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.tile(SOUND, 40), 16_000)
    content = (tmp_path / "long.flac").read_bytes()
    (tmp_path / "long.flac").write_bytes(content[: len(content) // 2])
    given: list[int] = []
    with pytest.raises(RecordingError, match=r"can't be read as sound after \d\d\.\d s"):
        given.extend(block.shape[0] for block in read_blocks(tmp_path / "long.flac"))
    assert sum(given) > 20 * 16_000


def test_channel_and_header_are_known_before_a_sample_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(rate_hz=48_000))
    with SoundFile(tmp_path / "a.wav") as file:
        assert (file.rate_hz, file.promised_samples, file.read_samples) == (48_000, 32_000, 0)
    with pytest.raises(RecordingError, match="has 1 channel, no channel 2"):
        SoundFile(tmp_path / "a.wav", 2)


def test_an_hour_in_stereo_at_48_khz_takes_no_more_memory_than_a_second(tmp_path: Path) -> None:
    """In a process of its own: how much memory one has ever had can't be set back."""
    file = tmp_path / "hour.wav"
    with soundfile.SoundFile(file, "w", 48_000, 2, "PCM_16") as writing:
        minute = np.random.default_rng(0).integers(-3000, 3000, (48_000 * 60, 2)).astype(np.int16)
        for _ in range(60):
            writing.write(minute)
    code = (
        "import resource, sys; from pathlib import Path; from asd_daemon.waveform import read_blocks\n"
        "blocks = read_blocks(Path(sys.argv[1])); next(blocks)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(sum(b.shape[0] for b in blocks), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, file],
        env={**os.environ, "PYTHONPATH": str(DAEMON)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    samples, more_kib = map(int, done.stdout.split())
    assert samples > 3590 * 16_000
    assert more_kib < 20 * 1024
