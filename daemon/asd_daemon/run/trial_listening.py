"""Microphones that somebody tries before a machine is heard by them: listed, and opened for as long as somebody listens.

Each has a thread of its own, at most so many at once; a machine that is heard by the same microphone is listened to through itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from asd_daemon.errors import AsdError
from asd_daemon.hear.opening import open_source
from asd_daemon.hear.source import Block, Source, SourceLost
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.devices import Device, NoSuchDeviceError, find_device
from asd_daemon.hear.sources.microphone import list_microphones
from asd_daemon.settings.chosen_keys import checked_source
from asd_daemon.watch.live_sound import LiveSound

_LOG = logging.getLogger(__name__)
MOST_TRIALS = 2
_MOST_CHANNELS = 8
Reply = Callable[[dict[str, Any]], None]


class TrialListening:
    """Of one process.

    Args:
        live_sound: where the sound is left, under the words of the source.
        heard: machine → where each that is heard comes from, and the identity of its microphone where that is known.
    """

    def __init__(self, live_sound: LiveSound, heard: Callable[[], Mapping[str, tuple[SourceSpec, str | None]]]) -> None:
        self._live_sound, self._heard = live_sound, heard
        self._trials: dict[str, _Trial] = {}

    def want(self, sources: frozenset[str]) -> None:
        """Listen to these from now on, and to no other; from one thread.

        Args:
            sources: words such as `device:default` or `simulate:fan`.
        """
        for words in self._trials.keys() - sources:
            self._trials.pop(words).close()
        for words in sorted(sources - self._trials.keys()):
            if len(self._trials) < MOST_TRIALS:
                self._trials[words] = _Trial(words, self._live_sound)

    def states(self) -> dict[str, str | None]:
        """Source → why it can't be heard; None where it is."""
        return {words: trial.trouble for words, trial in self._trials.items()}

    def release(self) -> None:
        """Let go of every microphone, for a machine is to be heard by one; what is still wanted stays silent."""
        for trial in list(self._trials.values()):
            trial.close(wait_s=2.0)

    def close(self) -> None:
        """Listen to none any more."""
        self.want(frozenset())

    def list_devices(self, reply: Reply) -> None:
        """Have the microphones listed, which takes a moment; the reply comes from another thread."""

        def look() -> None:
            try:
                found = list_microphones()
            except AsdError as e:
                reply({"devices": [], "trouble": str(e)})
                return
            heard = self._heard()
            reply({"devices": [entry for device in found for entry in _entries(device, found, heard)], "trouble": None})

        threading.Thread(target=look, name="list-devices", daemon=True).start()


class _Trial:
    """One source that is listened to."""

    def __init__(self, words: str, live_sound: LiveSound) -> None:
        self.trouble: str | None = None
        self._words, self._live_sound = words, live_sound
        self._source: Source | None = None
        self._is_over = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="trial", daemon=True)
        self._thread.start()

    def close(self, wait_s: float = 0.0) -> None:
        """Let go of it."""
        with self._lock:
            self._is_over = True
            if self._source is not None:
                self._source.close()
        self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            source = open_source(checked_source(self._words))
            with self._lock:
                self._source = source
                if self._is_over:
                    source.close()
                    return
            for event in source.events():
                if isinstance(event, Block):
                    self.trouble = None
                    self._live_sound.hear(self._words, event.samples)
                elif isinstance(event, SourceLost):
                    self.trouble = event.reason
        except AsdError as e:
            self.trouble = " ".join(str(e).split())
        except Exception as e:  # noqa: BLE001  # the top of a thread: whoever tries the microphone must hear of it
            _LOG.exception("%s: can't be tried", self._words)
            self.trouble = f"can't be heard: {e}"


def _entries(
    device: Device, others: list[Device], heard: Mapping[str, tuple[SourceSpec, str | None]]
) -> list[dict[str, Any]]:
    """A device as the page shows it: one entry a channel.

    `source` are the words of it, `machine` is heard by it, `shares` are heard by any channel of the device.
    """
    channels = min(device.channels, _MOST_CHANNELS)
    made = []
    for channel in range(channels):
        words = f"device:{_name_of(device, others)}" + (f"?channel={channel}" if channels > 1 else "")
        hears = {m: spec for m, (spec, who) in heard.items() if _is_of(spec, who, device, others)}
        user = next((m for m, spec in hears.items() if int(spec.options.get("channel", 0)) == channel), None)
        facts = {key: value for key, value in asdict(device).items() if key in ("name", "is_default", "rate_hz")}
        made.append(
            {
                **facts,
                "channel": channel if channels > 1 else None,
                "source": words,
                "machine": user,
                "shares": sorted(hears),
            }
        )
    return made


def _name_of(device: Device, others: list[Device]) -> str:
    """By what a device is found again: who it is, else where it is plugged in, else its name."""
    for words in (device.identity if device.usb_id else None, device.usb_path and f"usb-path:{device.usb_path}"):
        if words and _finds(words, others) is device:
            return words
    return device.name


def _is_of(spec: SourceSpec, identity: str | None, device: Device, others: list[Device]) -> bool:
    """Whether a machine's source is a channel of a device."""
    if spec.kind != "device":
        return False
    if identity is not None and device.identity is not None:
        return identity == device.identity
    return _finds(spec.target, others) is device  # a sound server's, which nobody can tell apart but by name


def _finds(words: str, devices: list[Device]) -> Device | None:
    try:
        return find_device(words, devices)
    except NoSuchDeviceError:
        return None
