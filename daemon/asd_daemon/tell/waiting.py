"""Alerts that the broker has not confirmed yet, in the order they were made; in memory.

This is the seam for a store on disk: whoever replaces it keeps `put`, `first`, `delivered`, `wait_empty` and `__len__`.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaitingAlert:
    """One message that must arrive."""

    key: int
    topic: str
    payload: bytes


class WaitingAlerts:
    """A bounded queue; safe from several threads. When it is full the oldest message goes, and is counted."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._lock = threading.Condition()
        self._alerts: OrderedDict[int, WaitingAlert] = OrderedDict()
        self._next_key = 0
        self.dropped = 0

    def put(self, topic: str, payload: bytes) -> WaitingAlert:
        """Add one at the end."""
        with self._lock:
            alert = WaitingAlert(self._next_key, topic, payload)
            self._next_key += 1
            self._alerts[alert.key] = alert
            if len(self._alerts) > self._limit:
                self._alerts.popitem(last=False)
                self.dropped += 1
                _LOG.error("more than %d alerts wait for the broker: the oldest is dropped", self._limit)
        return alert

    def first(self) -> WaitingAlert | None:
        """The oldest that still waits."""
        with self._lock:
            return next(iter(self._alerts.values()), None)

    def delivered(self, key: int) -> None:
        """Forget one that the broker has confirmed."""
        with self._lock:
            self._alerts.pop(key, None)
            if not self._alerts:
                self._lock.notify_all()

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until none waits."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._alerts, timeout_s)

    def __len__(self) -> int:
        with self._lock:
            return len(self._alerts)
