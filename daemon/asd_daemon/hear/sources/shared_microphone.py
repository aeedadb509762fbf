"""One microphone with several channels for several machines: a sound card can be opened once, so one recorder serves them all.

Owns the thread that reads the recorder and the queues to those who listen. Each hears its own channel; none can hold up the others.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from asd_daemon.hear.source import Block, Source, SourceEvent, SourceHealth
from asd_daemon.hear.source_spec import SourceSpec
from asd_daemon.hear.sources.child_process import SupervisedChild
from asd_daemon.hear.sources.microphone import channel_of, open_channels

_LOG = logging.getLogger(__name__)
_MOST_BLOCKS = 120  # a minute: whoever listens never waits for longer than that, or it is a gap

DeviceCheck = Callable[[str], str | None]


class SharedMicrophone:
    """The recorder and its listeners; runs from the first that listens until the last has closed."""

    def __init__(self, child: SupervisedChild, channels: Sequence[int]) -> None:
        self._child, self._channels = child, list(channels)
        self._lock = threading.Lock()
        self._listeners: list[SharedChannel] = []
        self._thread: threading.Thread | None = None

    @property
    def source_health(self) -> SourceHealth:
        """How the one recorder has done."""
        return self._child.source_health

    def open_channel(self, channel: int, far: int | None = None) -> SharedChannel:
        """A source of one of the channels, with what another one, far from the machine, hears meanwhile."""
        made = SharedChannel(self, self._channels.index(channel), None if far is None else self._channels.index(far))
        self._listeners.append(made)
        return made

    def begin(self) -> None:
        """Let the recorder record before anybody listens."""
        self._child.begin()

    def start(self) -> None:
        """Let the recorder run, if it does not yet."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shared-microphone", daemon=True)
                self._thread.start()

    def release(self, listener: SharedChannel) -> None:
        """One listens no more."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)
            if not self._listeners:
                self._child.close()

    def _run(self) -> None:
        end: Exception | None = None
        try:
            for heard in self._child.events():
                with self._lock:
                    listeners = list(self._listeners)
                for listener in listeners:
                    listener.put(heard)
        except Exception as e:  # noqa: BLE001  # raised by those who listen, each in its own thread
            end = e
        with self._lock:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.end(end)


class SharedChannel:
    """One channel of a shared microphone."""

    live = True

    def __init__(self, shared: SharedMicrophone, column: int, far_column: int | None = None) -> None:
        self._shared, self._column, self._far_column = shared, column, far_column
        self._items: queue.SimpleQueue[SourceEvent | Exception | None] = queue.SimpleQueue()
        self._missed_samples = 0

    @property
    def source_health(self) -> SourceHealth:
        """How the shared recorder has done."""
        return self._shared.source_health

    def put(self, heard: SourceEvent) -> None:
        """Take in what the microphone said; what nobody fetches for a minute becomes a gap."""
        import numpy as np

        if isinstance(heard, Block):
            samples = heard.samples if heard.samples.ndim == 1 else heard.samples[:, self._column]
            if self._items.qsize() >= _MOST_BLOCKS:
                self._missed_samples += samples.shape[0] + heard.gap_samples
                return
            gap, self._missed_samples = heard.gap_samples + self._missed_samples, 0
            far = None if self._far_column is None else np.ascontiguousarray(heard.samples[:, self._far_column])
            heard = Block(np.ascontiguousarray(samples), gap, rate_error=heard.rate_error, far=far)
        self._items.put(heard)

    def end(self, error: Exception | None) -> None:
        """Nothing more comes."""
        self._items.put(error)

    def begin(self) -> None:
        """Have the recorder record before anybody listens; it serves all channels."""
        self._shared.begin()

    def events(self) -> Iterator[SourceEvent]:
        """Sound of the channel, until it is closed.

        Raises:
            SourceError: the microphone can't start, and nobody told it to wait.
        """
        self._shared.start()
        while (item := self._items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        """Listen no more; the last one ends the recorder."""
        self._items.put(None)
        self._shared.release(self)


def open_microphones(
    specs: Mapping[str, SourceSpec], *, wait: bool, device_checks: Mapping[str, DeviceCheck]
) -> dict[str, Source]:
    """The microphones of several machines; those that name the same device in the same words share one recorder.

    Args:
        specs: machine → its source, of kind device.
        wait: keep trying when a device isn't there at the start.
        device_checks: machine → what it has against a device.

    Raises:
        UsageError: a channel or rate out of range.
    """
    far = {name: device for name, spec in specs.items() if (device := spec.far_device) is not None}
    opened = _opened(
        {**specs, **{_far_name(name): device for name, device in far.items()}}, wait=wait, device_checks=device_checks
    )
    if far:
        from asd_daemon.hear.sources.two_devices import TwoDevices
    for name in far:
        opened[name] = TwoDevices(name, opened[name], opened.pop(_far_name(name)))
    return opened


def _far_name(machine: str) -> str:
    """What a machine's far microphone is called here; no machine is."""
    return f"{machine} (far)"


def _opened(
    specs: Mapping[str, SourceSpec], *, wait: bool, device_checks: Mapping[str, DeviceCheck]
) -> dict[str, Source]:
    """As `open_microphones`, each microphone by itself."""
    groups: dict[tuple[str, str | None], list[str]] = {}
    for name, spec in specs.items():
        groups.setdefault((spec.target, spec.options.get("rate_hz")), []).append(name)
    opened: dict[str, Source] = {}
    for names in groups.values():
        own = [device_checks[name] for name in names if name in device_checks]
        channels = {name: channel_of(specs[name]) for name in names}
        far = {name: None if specs[name].far_device else specs[name].channel("far") for name in names}
        wanted = sorted({*channels.values(), *(channel for channel in far.values() if channel is not None)})
        child = open_channels(specs[names[0]], wanted, wait=wait, device_check=_first_refusal(own))
        if len(wanted) == 1 and len(names) == 1:
            opened[names[0]] = child
            continue
        if len(names) > 1:
            _LOG.info("%s is shared by %s", child.name, ", ".join(f"{n} (channel {c})" for n, c in channels.items()))
        shared = SharedMicrophone(child, wanted)
        opened |= {name: shared.open_channel(channel, far[name]) for name, channel in channels.items()}
    return opened


def _first_refusal(device_checks: Sequence[DeviceCheck]) -> DeviceCheck:
    return lambda identity: next((o for o in (ask(identity) for ask in device_checks) if o), None)
