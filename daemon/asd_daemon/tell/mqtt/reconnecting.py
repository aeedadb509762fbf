"""When to try a broker again, in which version of MQTT, and who it is that throws us out.

Pure, but for chance and the clock that it is given; it opens no connection.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from paho.mqtt.enums import MQTTProtocolVersion

from asd_daemon.tell.mqtt import reason_codes
from asd_daemon.tell.mqtt.session import MQTT_3, MQTT_5, Ended

_RETRY_LEAST_S, _RETRY_MOST_S = 1.0, 60.0
_SPREAD_LEAST_S = 4.0  # over so long the boxes of a node that dies come to the others
LIVED_S = 30.0  # a connection that lasts so long is a good one
_OLD_VERSION_S = 3600.0  # so long a broker that knows 3.1.1 only is not asked for MQTT 5
_CLOSES_BY_A_SECOND_CLIENT = 3  # quick ends in a row, with nothing on the way, that are no chance
CLOSED_SILENTLY = (
    "closes the connection without an answer; is it the right port, and does it want TLS or a certificate of ours?"
)


class Backoff:
    """How long to wait before the next attempt: twice as long each time up to a minute, and each time by chance.

    Boxes that lose a broker together must not all come back in the same second, not the first time either.
    """

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311  # no secret
        self._failures = 0

    def wait_s(self) -> float:
        """Seconds to wait after one more failure."""
        full_s = min(_RETRY_MOST_S, _RETRY_LEAST_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._chance.uniform(full_s / 2, max(full_s, _SPREAD_LEAST_S))

    def succeeded(self) -> None:
        """Begin anew."""
        self._failures = 0


@dataclass(frozen=True)
class Attempt:
    """How one attempt went."""

    ended: Ended
    was_accepted: bool
    lived_s: float = 0.0
    """Seconds from the broker's yes to the end."""
    made_progress: bool = False
    """An alert was confirmed, or it has become known which message the broker does not take."""
    had_messages: bool = False
    """Something was on the way when it ended, which may be the reason."""


class Reconnecting:
    """What to do after each attempt.

    Args:
        broker: its name in words.
        client_id: ours.
    """

    def __init__(
        self,
        broker: str,
        client_id: str,
        *,
        chance: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker, self._client_id, self._clock = broker, client_id, clock
        self._backoff = Backoff(chance)
        self._old_until_s = float("-inf")
        self._falls_back = False
        self._quick_ends = 0
        self.second_client: str | None = None
        """Who throws us out, in words, once that is known or likely; until a connection has lived."""

    @property
    def protocol(self) -> MQTTProtocolVersion:
        """The version to speak at the next attempt."""
        return MQTT_3 if self._falls_back or self._clock() < self._old_until_s else MQTT_5

    def lives(self, lived_s: float) -> None:
        """The connection at hand has lasted so long."""
        if lived_s >= LIVED_S:
            self.second_client = None

    def wait_s(self, attempt: Attempt) -> float:
        """Seconds to wait before the next attempt; 0 where the broker is asked in another version at once."""
        protocol, ended = self.protocol, attempt.ended
        was_falling_back, self._falls_back = self._falls_back, False
        if not attempt.was_accepted and protocol is MQTT_5 and _may_be_of_an_older_version(ended):
            self._falls_back = True
            return 0.0
        if attempt.was_accepted and was_falling_back:
            self._old_until_s = self._clock() + _OLD_VERSION_S
        if attempt.was_accepted:
            self._note_second_client(attempt)
        is_taken = ended.code == reason_codes.SESSION_TAKEN_OVER or self.second_client is not None
        if attempt.was_accepted and not is_taken and (attempt.lived_s >= LIVED_S or attempt.made_progress):
            self._backoff.succeeded()
        return self._backoff.wait_s()

    def _note_second_client(self, attempt: Attempt) -> None:
        """Two clients of one name throw each other out: MQTT 5 says so, in 3.1.1 connections just end soon after they began."""
        ended = attempt.ended
        if ended.code == reason_codes.SESSION_TAKEN_OVER:
            self.second_client = (
                f"another client uses our name {self._client_id}: broker {self._broker} ends our connection for it"
            )
        is_quick = attempt.lived_s < LIVED_S and ended.code is None and not ended.silent and not attempt.had_messages
        self._quick_ends = self._quick_ends + 1 if is_quick else 0
        if self._quick_ends >= _CLOSES_BY_A_SECOND_CLIENT and self.second_client is None:
            self.second_client = (
                f"perhaps another client uses our name {self._client_id}: broker {self._broker} has ended"
                f" {self._quick_ends} connections in a row soon after it took us, without a word"
            )


def _may_be_of_an_older_version(ended: Ended) -> bool:
    """Whether a broker that ends so before it has said yes may know an older version only."""
    if ended.refused is not None:
        return reason_codes.is_of_another_version(ended.refused)
    return ended.code is None or reason_codes.is_of_another_version(ended.code)


def trouble_of(broker: str, attempt: Attempt) -> str:
    """What went wrong, in one sentence."""
    ended = attempt.ended
    if ended.refused is not None:
        return f"broker {broker} refuses us: {reason_codes.connect_refusal(ended.refused, ended.detail)}"
    if ended.code is not None:
        how = "has ended the connection" if attempt.was_accepted else "ends the connection instead of taking us"
        return f"broker {broker} {how}: {reason_codes.disconnect_words(ended.code, ended.detail)}"
    if attempt.was_accepted:
        why = "it gives no sign of life" if ended.silent else "it was closed without a word"
        return f"connection to broker {broker} lost: {ended.nonsense or why}"
    if ended.nonsense is not None:
        return f"broker {broker} answers what is no MQTT ({ended.nonsense}); is it the right port?"
    return f"broker {broker} {'does not answer' if ended.silent else CLOSED_SILENTLY}"
