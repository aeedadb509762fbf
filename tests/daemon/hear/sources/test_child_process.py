"""The supervisor of a source that is a process, with small programs for children."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from asd_daemon.errors import SourceError, UsageError
from asd_daemon.hear.source import Block, SourceEvent, SourceLost
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.child_decoders import RecorderDecoder
from asd_daemon.hear.sources.child_process import SupervisedChild
from asd_daemon.hear.sources.child_timeouts import ChildTimeouts
from asd_daemon.hear.sources.microphone import open_command
from asd_daemon.hear.sources.process_family import MARK_VARIABLE
from asd_daemon.hear.sources.recorder_protocol import Frame, FrameKind, FrameReader
from rig.waiting import PATIENT_S, is_over, wait_until

QUICK = ChildTimeouts(
    boot_s=PATIENT_S,
    start_s=PATIENT_S,
    stall_s=PATIENT_S,
    backoff_least_s=0.01,
    backoff_most_s=0.05,
    lost_every_s=0.1,
)
"""Quick to start a child again, and patient with one that is slow because the machine is busy."""


def command(script: str, *, wait: bool = True, timeouts: ChildTimeouts = QUICK) -> SupervisedChild:
    return open_command(SourceSpec("command", f"sh -c {shlex.quote(script)}"), wait=wait, timeouts=timeouts)


@contextmanager
def hearing(source: SupervisedChild) -> Iterator[Iterator[SourceEvent]]:
    heard = source.events()
    try:
        yield heard
    finally:
        source.close()
        assert list(heard) == []


def python_child(code: str, decoder: type = RecorderDecoder, timeouts: ChildTimeouts = QUICK) -> SupervisedChild:
    return SupervisedChild(
        "child", [sys.executable, "-c", code], decoder, wait=True, announces_itself=True, timeouts=timeouts
    )


def until(heard: Iterator[SourceEvent], kind: type, most: int = 1000) -> SourceEvent:
    return next(item for item, _ in zip(heard, range(most), strict=False) if isinstance(item, kind))


def test_command_when_it_writes_raw_samples_gives_them_exactly(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32768, 32767, 50_001).astype("<i2")
    (tmp_path / "raw").write_bytes(samples.tobytes())
    # one byte, then the rest: a sample may come in halves
    script = f"head -c 1 {tmp_path}/raw; tail -c +2 {tmp_path}/raw; exec sleep 60"
    with hearing(command(script)) as heard:
        parts: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
        while sum(map(len, parts)) < samples.shape[0]:
            item = next(heard)
            assert isinstance(item, Block)
            assert item.gap_samples == 0
            parts.append(item.samples)
    assert np.array_equal(np.concatenate(parts) * 32768, samples)


def test_command_that_ends_is_started_again_and_the_gap_is_counted() -> None:
    with hearing(command("head -c 3200 /dev/zero")) as heard:
        until(heard, Block)
        lost = until(heard, SourceLost)
        back = until(heard, Block)
    assert isinstance(lost, SourceLost)
    assert lost.reason == "ended after 0.1 s of sound"
    assert isinstance(back, Block)
    assert back.gap_samples > 0


def test_command_that_falls_silent_is_killed_and_started_again(tmp_path: Path) -> None:
    hasty = replace(QUICK, stall_s=0.3)
    source = command(f"echo $$ >> {tmp_path}/pids; head -c 3200 /dev/zero; exec sleep 600", timeouts=hasty)
    with hearing(source) as heard:
        until(heard, Block)
        lost = until(heard, SourceLost)
        assert isinstance(lost, SourceLost)
        assert lost.reason == "no sound for 0.3 s"
        until(heard, Block)
        assert source.restarts == 1
    pids = [int(p) for p in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    wait_until(lambda: all(map(is_over, pids)), "both are dead")


def test_command_with_descendants_takes_them_along(tmp_path: Path) -> None:
    with hearing(command(f"sleep 600 & echo $! > {tmp_path}/pid; cat /dev/zero")) as heard:
        until(heard, Block)
        pid = int((tmp_path / "pid").read_text())
        assert psutil.pid_exists(pid)
    wait_until(lambda: is_over(pid), "the descendant is dead")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo the device is on fire >&2; exit 4", "ended with code 4: the device is on fire"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
        ("exec 2>&-; exit 0", "ended"),
    ],
)
def test_command_that_fails_at_the_start_is_a_source_error_with_its_last_words(script: str, reason: str) -> None:
    with pytest.raises(SourceError) as raised:
        next(command(script, wait=False).events())
    assert str(raised.value) == f"command 'sh': {reason}"


def test_command_that_does_not_exist_is_a_source_error_or_waited_for() -> None:
    spec = SourceSpec("command", "no-such-program-here")
    with pytest.raises(SourceError, match="can't start no-such-program-here: No such file"):
        next(open_command(spec, wait=False).events())
    with hearing(open_command(spec, wait=True, timeouts=QUICK)) as heard:
        first, second = next(heard), next(heard)
    assert isinstance(first, SourceLost)
    assert isinstance(second, SourceLost)
    assert second.for_s > first.for_s


def test_standard_error_in_masses_neither_blocks_nor_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    with hearing(command("yes noise 2>/dev/null | head -n 200000 >&2; head -c 3200 /dev/zero; exec sleep 60")) as heard:
        assert isinstance(next(heard), Block)
    assert caplog.text.count("noise") <= 1


def test_close_from_another_thread_ends_a_silent_source() -> None:
    source = command("exec sleep 600", timeouts=ChildTimeouts())
    thread = threading.Thread(target=lambda: list(source.events()))
    thread.start()
    source.close()
    thread.join(PATIENT_S)
    assert not thread.is_alive()


def test_fifty_lives_leak_no_descriptor_and_no_zombie() -> None:
    process = psutil.Process()
    with hearing(command("head -c 320 /dev/zero")) as heard:
        until(heard, SourceLost)
        before = process.num_fds()
        for _ in range(50):
            until(heard, Block)
        assert process.num_fds() <= before + 6  # those of the child that is alive just now
    assert [child for child in process.children() if child.status() == psutil.STATUS_ZOMBIE] == []
    assert process.num_fds() < before + 6


def test_child_that_never_speaks_is_given_up_after_its_boot_time() -> None:
    timeouts = replace(QUICK, boot_s=0.2)
    with hearing(python_child("import time; time.sleep(600)", timeouts=timeouts)) as heard:
        lost = next(heard)
    assert lost == SourceLost("does not start in 0.2 s", getattr(lost, "for_s", 0.0))


def test_child_that_talks_nonsense_is_lost_and_not_believed() -> None:
    with hearing(python_child("print('Hello, I am no recorder at all, but I have much to say.')")) as heard:
        lost = next(heard)
    assert isinstance(lost, SourceLost)
    assert "talks nonsense" in lost.reason


def test_child_that_gives_up_says_why() -> None:
    code = (
        "import sys; from asd_daemon.hear.sources.recorder_protocol import *\n"
        'sys.stdout.buffer.write(Frame(FrameKind.READY).pack() + Frame(FrameKind.FAILED, b\'{"reason": "busy"}\').pack())'
    )
    with hearing(python_child(code)) as heard:
        lost = next(heard)
    assert isinstance(lost, SourceLost)
    assert lost.reason == "busy"


def test_loss_inside_a_life_is_a_gap_of_that_many_samples() -> None:
    code = (
        "import sys, time; from asd_daemon.hear.sources.recorder_protocol import *\n"
        "sound = bytes(4 * 160)\n"
        "for lost in (0, 0, 77):\n"
        "    sys.stdout.buffer.write(Frame(FrameKind.SOUND, sound, 0, lost, time.monotonic_ns()).pack())\n"
        "sys.stdout.flush(); time.sleep(600)"
    )
    with hearing(python_child(code)) as heard:
        blocks = [next(heard) for _ in range(3)]
    assert [b.gap_samples for b in blocks if isinstance(b, Block)] == [0, 0, 77]


def test_frames_when_cut_anywhere_are_put_together() -> None:
    frames = [Frame(FrameKind.SOUND, os.urandom(n), n, 2 * n, 3 * n) for n in (0, 1, 500)] + [Frame(FrameKind.READY)]
    data = b"".join(frame.pack() for frame in frames)
    for step in (1, 7, 33, len(data)):
        reader = FrameReader()
        found = [f for i in range(0, len(data), step) for f in reader.feed(data[i : i + step])]
        assert found == frames


def test_frame_that_claims_to_be_endless_is_refused() -> None:
    data = bytearray(Frame(FrameKind.SOUND, b"1234").pack())
    data[8:12] = b"\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="not a frame"):
        list(FrameReader().feed(bytes(data)))


def test_orphans_of_a_child_are_reaped_where_they_become_ours_as_in_a_container() -> None:
    """A subreaper inherits orphans as process 1 of a container does; nobody else would take them off the list."""
    code = (
        "import ctypes, sys, psutil\n"
        "if ctypes.CDLL(None).prctl(36, 1, 0, 0, 0): sys.exit(77)\n"  # PR_SET_CHILD_SUBREAPER
        "from asd_daemon.hear.source import SourceLost\n"
        "from asd_daemon.hear.source_spec import SourceSpec\n"
        "from asd_daemon.hear.sources.child_timeouts import ChildTimeouts\n"
        "from asd_daemon.hear.sources.microphone import open_command\n"
        "quick = ChildTimeouts(start_s=100, stall_s=0.2, backoff_least_s=0.2, backoff_most_s=0.2, lost_every_s=0.1)\n"
        "spec = SourceSpec('command', 'sh -c \"sleep 600 & head -c 3200 /dev/zero; exec sleep 600\"')\n"
        "source = open_command(spec, wait=True, timeouts=quick)\n"
        "heard = source.events()\n"
        "for _ in range(6):\n"
        "    next(item for item in heard if isinstance(item, SourceLost))\n"
        "me = psutil.Process()\n"
        "print(sum(c.status() == psutil.STATUS_ZOMBIE for c in me.children(recursive=True)), source.restarts)\n"
        "source.close(); list(heard)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[4] / "daemon")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=PATIENT_S
    )
    if done.returncode == 77:
        pytest.skip("no subreaper on this kernel")
    assert done.returncode == 0, done.stderr
    zombies, restarts = map(int, done.stdout.split())
    assert restarts >= 5
    assert zombies <= 2, "the last ones may not be over yet"


@pytest.mark.parametrize(
    "header", [b"RIFF\x24\0\0\0WAVEfmt ", b"fLaC\0\0\0\x22", b"OggS\0\2", b"ID3\4\0\0", b"FORM\0\0\0\0AIFF"]
)
def test_command_that_sends_a_file_with_a_header_is_told_what_to_do(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "sound").write_bytes(header + bytes(64_000))
    with pytest.raises(SourceError, match=r"sends a sound file with a header; raw samples are wanted.*-f s16le"):
        next(command(f"cat {tmp_path}/sound; exec sleep 60", wait=False).events())


@pytest.mark.parametrize(
    "words", ["cat a | sox - -", "cat a > b", "cd /tmp; cat a", "cd /tmp && cat a", "cat a 2>/dev/null", "cat a &"]
)
def test_words_for_a_shell_are_refused_and_the_shell_is_named(words: str) -> None:
    with pytest.raises(UsageError, match=r"is for a shell, and there is none: write command:sh -c '"):
        open_command(SourceSpec("command", words), wait=True)


@pytest.mark.parametrize(
    "words",
    [
        "sh -c 'cat a | b > c; d && e'",
        "ffmpeg -i 'rtsp://x/?a=1&b=2' -",
        "play rtsp://x/?a=1&b=2",
        "f -af mono|c0=c1",
        "grep '|' a",
    ],
)
def test_words_that_only_look_like_a_shells_are_the_programs(words: str) -> None:
    open_command(SourceSpec("command", words), wait=True).close()


@pytest.mark.parametrize("escape", ["setsid sleep 600", "setsid setsid sleep 600", "(setsid sleep 600 &)"])
def test_descendants_that_have_left_the_group_are_ended_too(escape: str, tmp_path: Path) -> None:
    script = f"{escape} & echo $$ > {tmp_path}/pid; exec cat /dev/zero"
    with hearing(command(script)) as heard:
        until(heard, Block)
        ours: list[psutil.Process] = []
        while not ours:
            until(heard, Block)
            sleepers = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "600"]]
            ours = [p for p in sleepers if MARK_VARIABLE in environment_of(p)]
    wait_until(lambda: all(is_over(p.pid) for p in ours), "they are ended")


def environment_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.environ())
    except psutil.Error:
        return ""


def test_rate_of_a_commands_samples_is_unknown_until_it_was_measured_and_a_recorders_is_known() -> None:
    with hearing(command("cat /dev/zero")) as heard:
        block = until(heard, Block)
    assert isinstance(block, Block)
    assert block.rate_error is None
    rehearsal = open_command(SourceSpec("command", "cat /dev/zero", {"speed": "0"}), wait=True, timeouts=QUICK)
    with hearing(rehearsal) as heard:
        block = until(heard, Block)
    assert isinstance(block, Block)
    assert block.rate_error == 0.0


def test_command_that_has_played_its_file_says_that_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    with hearing(command("head -c 64000 /dev/zero")) as heard:
        lost = until(heard, SourceLost)
    assert isinstance(lost, SourceLost)
    assert lost.reason == "ended after 2.0 s of sound"
    assert "ended after 2.0 s of sound; it is started again; a recording is played with file:PATH" in caplog.text


SPEAKER = (
    "import os, sys, time\n"
    "from pathlib import Path\n"
    "from asd_daemon.hear.sources.recorder_protocol import Frame, FrameKind\n"
    "def say(*of): sys.stdout.buffer.write(Frame(*of).pack()); sys.stdout.buffer.flush()\n"
    "Path(sys.argv[1], str(os.getpid())).touch()\n"
    "say(FrameKind.READY)\n"
    "for n in range(24): say(FrameKind.SOUND, bytes([n] * 32_000), n * 8000, 0, time.monotonic_ns())\n"
    "Path(sys.argv[1], 'said').touch()\n"
    "sys.stdin.read()\n"
)


def speaker(folder: Path) -> SupervisedChild:
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[4] / "daemon")}
    words = [sys.executable, "-c", SPEAKER, str(folder)]
    return SupervisedChild(
        "child", words, RecorderDecoder, wait=True, announces_itself=True, timeouts=QUICK, env={**os.environ, **path}
    )


def test_child_that_is_begun_before_anybody_listens_loses_nothing(tmp_path: Path) -> None:
    source = speaker(tmp_path)
    source.begin()
    source.begin()  # as by the second machine that shares it
    wait_until((tmp_path / "said").exists, "it has said all of 12 s, and nobody has read")
    with hearing(source) as heard:
        blocks = [block for _, block in zip(range(24), heard, strict=False)]
    assert all(isinstance(block, Block) and block.gap_samples == 0 for block in blocks)
    said = np.repeat(np.arange(24, dtype=np.uint8), 32_000)
    assert b"".join(block.samples.tobytes() for block in blocks if isinstance(block, Block)) == said.tobytes()
    assert source.restarts == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_child_that_is_begun_and_never_listened_to_ends_when_it_is_closed(tmp_path: Path) -> None:
    source = speaker(tmp_path)
    source.begin()
    wait_until((tmp_path / "said").exists, "it has begun")
    (pid,) = (int(file.name) for file in tmp_path.iterdir() if file.name.isdecimal())
    source.close()
    wait_until(lambda: is_over(pid), "it is dead")
    assert list(source.events()) == []


def test_command_is_not_begun_early_for_nobody_would_know_when_its_sound_was(tmp_path: Path) -> None:
    source = command(f"touch {tmp_path}/begun; cat /dev/zero")
    source.begin()
    with hearing(source) as heard:
        assert not (tmp_path / "begun").exists()
        until(heard, Block)
