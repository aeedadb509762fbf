"""One thing that people are told, and by which rules: what happened to a machine, when, and how it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from asd_daemon.tell.notifications.quiet_hours import QuietHours


class NoticeKind(StrEnum):
    """What happened."""

    OPEN = "open"
    """An alert has opened."""
    UPDATE = "update"
    """It has become worse, or may be a state that was never heard."""
    CLOSE = "close"
    DEAF = "deaf"
    """The machine is not heard, or heard again."""
    DRIFT = "drift"
    """The normal level creeps towards the threshold."""
    ESCALATION = "escalation"
    """Nobody has answered for too long."""


@dataclass(frozen=True)
class Notice:
    """One thing to tell."""

    kind: NoticeKind
    machine: str
    event_id: str
    """Of the alert; of other things a name that is theirs alone."""
    at_s: float
    """Unix time at which it happened."""
    text: str | None = None
    """What is said of it, in one line."""
    is_over: bool = False
    """Whether it says that something has ended: an alert is over, the machine is heard again."""
    since_s: float | None = None
    """Unix time at which it began."""
    score: str | None = None
    """Peak score of threshold, in words."""

    def to_content(self) -> dict[str, Any]:
        """As it is kept on disk."""
        return asdict(self)

    @staticmethod
    def from_content(content: Mapping[str, Any]) -> Notice:
        """From what was kept.

        Raises:
            KeyError, TypeError, ValueError: it is of another version of the program.
        """
        return Notice(**{**content, "kind": NoticeKind(content["kind"])})


@dataclass(frozen=True)
class MachineRules:
    """Who is told what of one machine, and when."""

    tell: tuple[str, ...] = ()
    """Tags of those who are told; none: all."""
    events: frozenset[NoticeKind] = frozenset({NoticeKind.OPEN, NoticeKind.CLOSE, NoticeKind.DEAF})
    quiet: QuietHours = field(default_factory=QuietHours)
    quiet_passes: frozenset[NoticeKind] = frozenset({NoticeKind.ESCALATION})
    """What is told in quiet hours too."""
    escalate_after_s: float | None = None
    """So long after its opening an alert that nobody has answered is told to others; None: never."""
    escalate_to: tuple[str, ...] = ()
    """Their tags."""
    title: str | None = None
    """What people call the machine; None: its name."""


@dataclass(frozen=True)
class NotificationRules:
    """How messages are made and sent."""

    machines: Mapping[str, MachineRules] = field(default_factory=dict)
    storm_s: float = 10.0
    """Seconds that a message waits for others that shall go with it."""
    most_per_hour: int = 20
    """To one recipient; more are gathered into one."""
    keep_s: float = 172_800.0
    """After so many seconds what could not be told is given up."""
    deaf_after_s: float = 60.0
    """A machine that is not heard for so many seconds is told."""
    page_url: str | None = None
    pictures: bool = True

    def of(self, machine: str) -> MachineRules:
        """One machine's."""
        return self.machines.get(machine, MachineRules())


@dataclass(frozen=True)
class Message:
    """What goes to a recipient at once."""

    title: str
    body: str
    is_good: bool = False
    """Whether all of it says that something has ended."""
    picture: bytes | None = field(default=None, repr=False)
    """PNG."""


@dataclass(frozen=True)
class RecipientStatus:
    """How the way to one recipient is."""

    name: str
    waiting: int = 0
    """What they must still be told."""
    told: int = 0
    """Messages that went out since the start."""
    failures: int = 0
    """Tries in a row that failed."""
    trouble: str | None = None
    """Why the last try failed; None where it did not."""


@dataclass(frozen=True)
class NotificationStatus:
    """How telling people gets on; empty where nobody is told."""

    recipients: Sequence[RecipientStatus] = ()
    given_up: int = 0
    """What nobody could be told in time, or was too much, since the start."""
    durable: bool = True
    """Whether what waits is on disk."""
