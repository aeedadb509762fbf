"""What a broker does not take at present, why, and when it is asked again: twice as late each time.

Kept in memory: a restart asks anew. It sends nothing; who does looks here first. Safe from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

_SOON_S, _SOON_MOST_S = 5.0, 600.0
_RARELY_S, _RARELY_MOST_S = 600.0, 21_600.0  # what ends connections is tried when that costs little


@dataclass(frozen=True)
class _Refusal:
    topic: str
    why: str
    tries: int
    next_s: float
    is_costly: bool
    """Each try may cost the connection."""
    is_of_the_topic: bool = False
    """It was never tried itself: others on its topic were."""


class Refusals:
    """What is refused, by a key of its own and by topic."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusals: dict[Hashable, _Refusal] = {}
        self.count = 0
        """How often something has been refused."""

    def refused(
        self,
        key: Hashable,
        topic: str,
        why: str,
        now_s: float,
        *,
        is_costly: bool = False,
        is_of_the_topic: bool = False,
    ) -> None:
        """Note a refusal; whatever else is refused on the same topic waits as long.

        Args:
            key: of what.
            topic: where it was published.
            why: in words.
            now_s: time.monotonic().
            is_costly: each try may cost the connection.
            is_of_the_topic: it was not tried, since nothing is taken on its topic.
        """
        with self._lock:
            self.count += 1
            known = self._refusals.get(key)
            tries = known.tries + 1 if known else 0
            first_s, most_s = (_RARELY_S, _RARELY_MOST_S) if is_costly else (_SOON_S, _SOON_MOST_S)
            next_s = now_s + min(most_s, first_s * 2.0 ** min(tries, 16))
            self._refusals[key] = _Refusal(topic, why, tries, next_s, is_costly, is_of_the_topic)
            for other, refusal in self._refusals.items():
                if known and refusal.topic == topic and refusal.next_s < next_s:
                    self._refusals[other] = replace(refusal, next_s=next_s)

    def taken(self, key: Hashable, topic: str) -> bool:
        """The broker has taken something; what else was refused on the topic may go now. Whether it had been refused before."""
        with self._lock:
            was_refused = self._refusals.pop(key, None) is not None
            for other, refusal in self._refusals.items():
                if refusal.topic == topic and (refusal.is_of_the_topic or not refusal.is_costly):
                    self._refusals[other] = replace(refusal, next_s=float("-inf"), is_costly=False)
            return was_refused

    def forget(self, key: Hashable) -> None:
        """It is not to be sent any more."""
        with self._lock:
            self._refusals.pop(key, None)

    def ask_again(self) -> None:
        """The connection is new: all may be tried now but what may cost it."""
        with self._lock:
            for key, refusal in self._refusals.items():
                if not refusal.is_costly:
                    self._refusals[key] = replace(refusal, next_s=float("-inf"))

    def is_refused(self, key: Hashable) -> bool:
        """Whether it was refused and has not been taken since."""
        return key in self._refusals

    def is_costly(self, key: Hashable) -> bool:
        """Whether trying it may cost the connection."""
        refusal = self._refusals.get(key)
        return refusal is not None and refusal.is_costly

    def may_go(self, key: Hashable, now_s: float) -> bool:
        """Whether it may be sent now."""
        refusal = self._refusals.get(key)
        return refusal is None or refusal.next_s <= now_s

    def reasons(self, keys: Iterable[Hashable] | None = None) -> dict[str, str]:
        """Topic and reason of what is refused; of some keys only, where they are given."""
        with self._lock:
            chosen = self._refusals if keys is None else (key for key in keys if key in self._refusals)
            return {self._refusals[key].topic: self._refusals[key].why for key in chosen}

    def __len__(self) -> int:
        return len(self._refusals)
