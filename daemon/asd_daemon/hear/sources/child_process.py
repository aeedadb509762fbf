"""A source that lives in a process of its own: started, watched, killed and started again, without end.

Owns the life of the child and the arithmetic of gaps. What the child's bytes mean is its decoder's business. Only the time since
the last sound tells whether a child is well: a dead stream reports itself active and raises nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from asd_daemon.errors import SourceError
from asd_daemon.hear.source import Block, SourceEvent, SourceHealth, SourceLost
from asd_daemon.hear.sources.child_exit import StderrTail, exit_reason, file_descriptor, has_living_orphans
from asd_daemon.hear.sources.child_timeouts import ChildTimeouts
from asd_daemon.hear.sources.child_words import ChildMessage, ChildSound, Decoder
from asd_daemon.hear.sources.process_family import MARK_VARIABLE, end_family, new_mark, started_at
from asd_daemon.hear.sources.sample_clock import SampleClock
from asd_daemon.waveform import SAMPLE_RATE_HZ

_LOG = logging.getLogger(__name__)
DELAY_VARIABLE = "ASD_CHILD_DELAY_S"  # how long a child that speaks first shall wait before it touches its device
_CHUNK_BYTES = 1 << 16
_PIPE_BYTES = 1 << 20
"""16 s of one channel at 16 kHz, 5 s at 48 kHz: so long may a daemon that starts, or is swapped out, not read."""
_REAP_S = 1.0
_WORTH_SAYING_S = 0.05


class SupervisedChild:
    """A source of sound that is a process."""

    live = True

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        decoder: Callable[[], Decoder],
        *,
        wait: bool,
        announces_itself: bool,
        promised_speed: float | None = None,
        env: Mapping[str, str] | None = None,
        timeouts: ChildTimeouts | None = None,
        device_check: Callable[[str], str | None] | None = None,
    ) -> None:
        """Say what to run; nothing starts before `events` is asked for.

        Args:
            name: what messages call it.
            command: program and arguments.
            decoder: makes a decoder for each new life.
            wait: keep trying where the first start fails, rather than raise.
            announces_itself: whether the child sends a message before it opens its device, and honours DELAY_VARIABLE.
            promised_speed: how many times faster than real time its samples should come, which is measured before they are believed;
                infinity: not measured; None: they are of the rate asked for, as a recorder's are.
            env: its environment; None for ours.
            timeouts: all waiting times.
            device_check: why a device of some identity must not be heard; None where it may.
        """
        self.name = name
        self.restarts = 0
        self._overruns = 0
        self._identity: str | None = None
        self._device_check, self._is_wrong = device_check, False
        self._clock, self._speed = SampleClock(), promised_speed
        self.timeouts = timeouts or ChildTimeouts()
        self._command, self._decoder, self._env = list(command), decoder, env
        self._wait, self._announces_itself = wait, announces_itself
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._mark, self._since = new_mark(), 0
        self._last_end_s: float | None = None
        self._sound_since_start_s = 0.0
        self._reason = "has not been started"
        self._limit_s = self.timeouts.boot_s
        self._unreaped: list[subprocess.Popen[bytes]] = []
        self._groups: list[int] = []  # process groups whose orphans may have become ours
        self._handing_over = threading.Lock()
        self._begun: subprocess.Popen[bytes] | None = None  # before anybody listens

    @property
    def source_health(self) -> SourceHealth:
        """How it has done so far."""
        return SourceHealth(self.restarts, self._overruns, self._clock.drift_ppm, self._identity)

    def begin(self) -> None:
        """Start the child before anybody listens, where it says itself when its sound was: till then that waits in the pipe."""
        with self._handing_over:
            if self._announces_itself and self._begun is None:
                self._begun = self._start(delay_s=0.0)

    def events(self) -> Iterator[SourceEvent]:
        """Sound, and `SourceLost` while there is none; ends only when closed.

        Raises:
            SourceError: the first start failed and waiting was not asked for.
        """
        lost_since_s, said_s, said_wrong = time.monotonic(), float("-inf"), False
        backoff_s, delay_s = self.timeouts.backoff_least_s, 0.0
        while not self._stopping.is_set():
            started_s = time.monotonic()
            for block in self._run_once(delay_s):
                yield block
                lost_since_s, said_s = time.monotonic(), float("-inf")
            if self._stopping.is_set():
                break
            if self._last_end_s is None and not self._wait:
                raise SourceError(self._failure)
            now_s = time.monotonic()
            if now_s - said_s >= self.timeouts.lost_every_s or self._is_wrong != said_wrong:
                has_ended = self._reason.startswith("ended after")
                again = "it is started again; a recording is played with file:PATH" if has_ended else "trying again"
                _LOG.warning("%s; %s", self._failure, again)
                yield SourceLost(self._reason, now_s - (self._last_end_s or lost_since_s), self._is_wrong)
                said_s, said_wrong = now_s, self._is_wrong
            if self._sound_since_start_s >= self.timeouts.healthy_s:
                backoff_s = self.timeouts.backoff_least_s
            # A child that speaks first waits by itself, its libraries loaded, so that sound is back sooner after the device is
            waits_itself = self._announces_itself and time.monotonic() - started_s >= delay_s
            delay_s = backoff_s if waits_itself else 0.0
            self._stopping.wait(backoff_s - delay_s)
            backoff_s = min(2 * backoff_s, self.timeouts.backoff_most_s)
            self.restarts += 1
        os.close(self._wake_read)

    @property
    def _failure(self) -> str:
        """What is wrong, and with what, which a child that speaks may have named already."""
        return self._reason if self.name in self._reason else f"{self.name}: {self._reason}"

    def close(self) -> None:
        """End `events` within a poll, whatever the child does."""
        self._stopping.set()
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"x")
        if (begun := self._take_begun()) is not None:
            self._kill(begun)

    def _take_begun(self) -> subprocess.Popen[bytes] | None:
        """The child that was started before anybody listened; once."""
        with self._handing_over:
            begun, self._begun = self._begun, None
        return begun

    def _run_once(self, delay_s: float) -> Iterator[Block]:
        """Start the child once and pass on its sound until it stalls, ends or is no longer wanted."""
        self._sound_since_start_s, self._is_wrong = 0.0, False
        self._reap()
        if (child := self._take_begun() or self._start(delay_s)) is None:
            return
        stderr_tail = StderrTail()
        try:
            yield from self._listen(child, stderr_tail)
        finally:
            self._kill(child)
            if lines := stderr_tail.count:
                _LOG.debug("%s: %d lines on standard error, last: %s", self.name, lines, stderr_tail.last())

    def _start(self, delay_s: float) -> subprocess.Popen[bytes] | None:
        """Start a child; None where that can't be done, and `_reason` says why."""
        try:
            child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={
                    **(os.environ if self._env is None else self._env),
                    DELAY_VARIABLE: f"{delay_s:g}",
                    MARK_VARIABLE: self._mark,
                },
                start_new_session=True,
            )
        except OSError as e:
            self._reason = f"can't start {self._command[0]}: {e.strerror}"
            return None
        self._since = self._since or started_at(child.pid)
        if self._announces_itself:
            with contextlib.suppress(OSError, AttributeError):  # more than this user may have; no Linux
                fcntl.fcntl(file_descriptor(child.stdout), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return child

    def _listen(self, child: subprocess.Popen[bytes], stderr_tail: StderrTail) -> Iterator[Block]:
        """Read the child until it ends, falls silent, talks nonsense or is no longer wanted; `_reason` says which."""
        decoder, stdout, stderr = self._decoder(), file_descriptor(child.stdout), file_descriptor(child.stderr)
        self._limit_s = self.timeouts.boot_s if self._announces_itself else self.timeouts.start_s
        self._reason = f"does not start in {self._limit_s:g} s"
        deadline_s = time.monotonic() + self._limit_s
        with selectors.DefaultSelector() as ready:
            for fd in (stdout, stderr, self._wake_read):
                ready.register(fd, selectors.EVENT_READ)
            while not self._stopping.is_set():
                keys = [key.fd for key, _ in ready.select(max(0.0, deadline_s - time.monotonic()))]
                if not keys or self._wake_read in keys:
                    return
                if stderr in keys and not stderr_tail.feed(os.read(stderr, _CHUNK_BYTES)):
                    ready.unregister(stderr)
                if stdout not in keys:
                    continue
                data = os.read(stdout, _CHUNK_BYTES)
                if not data:
                    self._reason = exit_reason(child, stderr_tail)
                    if (
                        child.returncode == 0 and self._sound_since_start_s
                    ):  # as a player does after its last file, or a stream that is over
                        self._reason = self._reason.replace(
                            "ended", f"ended after {self._sound_since_start_s:.1f} s of sound", 1
                        )
                    return
                for item in self._decode(decoder, data):
                    if isinstance(item, ChildMessage):
                        self._reason = item.text
                        return
                    yield item
                deadline_s = time.monotonic() + self._limit_s

    def _decode(self, decoder: Decoder, data: bytes) -> Iterator[Block | ChildMessage]:
        """The blocks in the child's bytes, and a last message where it gives up; sets what to wait for next."""
        try:
            for item in decoder.feed(data):
                if isinstance(item, ChildSound):
                    self._limit_s = self.timeouts.stall_s
                    yield from self._block(item)
                elif item.gives_up:
                    yield item
                    return
                elif item.identity is not None and (refusal := self._refusal_of(item.identity)):
                    self._is_wrong = True
                    yield ChildMessage(f"wrong device: {refusal}", gives_up=True)
                    return
                else:
                    self._limit_s = self.timeouts.start_s
                    _LOG.debug("%s: %s", self.name, item.text)
                self._reason = f"no sound for {self._limit_s:g} s"
        except ValueError as e:
            yield ChildMessage(f"talks nonsense: {e}", gives_up=True)

    def _refusal_of(self, identity: str) -> str | None:
        """What there is to say against hearing a device; it is remembered as the one that is heard if nothing."""
        refusal = self._device_check(identity) if self._device_check else None
        if refusal is None:
            self._identity = identity
        return refusal

    def _block(self, sound: ChildSound) -> Iterator[Block]:
        """The sound with the gap before it, in samples, by the clock that parent and child share."""
        if sound.samples.shape[0] == 0:
            return
        length_s = sound.samples.shape[0] / SAMPLE_RATE_HZ
        gap = sound.lost_samples
        self._overruns += int(gap > 0)
        if self._sound_since_start_s == 0.0 and self._last_end_s is not None:
            away_s = max(0.0, sound.ended_s - length_s - self._last_end_s)  # what it sends at once had been waiting
            gap = max(1, round(away_s * SAMPLE_RATE_HZ))
            after = f" after {away_s:.1f} s" if away_s >= _WORTH_SAYING_S else ""
            _LOG.warning("%s: sound is back%s", self.name, after)
        self._sound_since_start_s += length_s
        self._last_end_s = sound.ended_s
        if gap or self._sound_since_start_s == length_s:
            self._clock.restart()
        yield Block(sound.samples, gap, rate_error=self._rate_error(sound.samples.shape[0], sound.ended_s))

    def _rate_error(self, samples: int, ended_s: float) -> float | None:
        """How far off the promised rate its samples come; None: not known yet, and nothing but a clock can tell."""
        if self._speed is None:
            return self._clock.count(samples, ended_s) or 0.0
        return 0.0 if math.isinf(self._speed) else self._clock.count(samples, ended_s * self._speed)

    def _kill(self, child: subprocess.Popen[bytes]) -> None:
        """End the child and its descendants by force: a dead stream can't be closed in peace."""
        groups = end_family(child.pid, self._mark, self._since)
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            child.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            # Stuck in the kernel with its device; it dies when the driver lets go, and must not hold us up
            self._unreaped.append(child)
        self._groups += sorted(groups)

    def _reap(self) -> None:
        """Take leave of the dead: children that died late, and their orphans where we are process 1, as in a container."""
        self._unreaped = [child for child in self._unreaped if child.poll() is None]
        self._groups = [group for group in self._groups if has_living_orphans(group)]
