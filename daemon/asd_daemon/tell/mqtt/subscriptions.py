"""What a process hears from a broker: commands, where they are allowed, and what versions before 0.2 have left there.

Owns what is asked for and what of it is ours. What a command does is the station's business.
"""

from __future__ import annotations

import logging

from asd_daemon.tell.commands import Command, parse_command
from asd_daemon.tell.mqtt import reason_codes
from asd_daemon.tell.mqtt.discovery import describes, former_topics
from asd_daemon.tell.mqtt.session import Heard, Session, Subscribed
from asd_daemon.tell.mqtt.topics import Topics

_LOG = logging.getLogger(__name__)


class Subscriptions:
    """One process's.

    Args:
        topics: under which names it is spoken to.
        broker: its name in words.
    """

    def __init__(self, topics: Topics, broker: str) -> None:
        self._topics, self._broker, self._former = topics, broker, former_topics(topics)
        self._asked: dict[int | None, list[str]] = {}
        self._refused: list[str] = []
        self.refused_commands = 0
        """Commands that made no sense."""

    def change_topics(self, topics: Topics) -> None:
        """Be spoken to under other names from the next `ask` on."""
        self._topics, self._former = topics, former_topics(topics)

    @property
    def troubles(self) -> list[str]:
        """What the broker does not let us hear, in words."""
        return [f"broker {self._broker} does not let us hear {topic}" for topic in self._refused]

    def ask(self, session: Session) -> None:
        """Subscribe on a new connection."""
        self._asked, self._refused = {}, []
        commands = (
            [f"{self._topics.base}/{m}/command" for m in self._topics.machines] if self._topics.takes_commands else []
        )
        for wanted in (commands, list(self._former)):
            if wanted:
                self._asked[session.subscribe(wanted)] = wanted

    def answered(self, answer: Subscribed) -> None:
        """Note which topics the broker does not let us hear."""
        asked = self._asked.pop(answer.message_id, [])
        for topic, code in zip(asked, answer.codes, strict=False):
            if reason_codes.is_refusal(code) and topic.endswith("/command"):
                self._refused.append(topic)
                _LOG.warning("%s: broker %s does not let us hear this topic; no command comes", topic, self._broker)

    def command(self, message: Heard) -> tuple[str, Command] | None:
        """The machine and what is asked of it; None where it is no command, or none that makes sense."""
        base = f"{self._topics.base}/"
        if not message.topic.startswith(base):
            return None
        try:
            command = parse_command(message.payload, retained=message.retained)
        except ValueError as e:
            self.refused_commands += 1
            _LOG.warning("%s: command refused: %s", message.topic, e)
            return None
        machine = message.topic.removeprefix(base).removesuffix("/command")
        _LOG.info("%s: asked to %s", machine, command.command.value)
        return machine, command

    def former_machine(self, message: Heard) -> str | None:
        """Whose description it is, where it is one of ours under the name of an older version."""
        machine = self._former.get(message.topic)
        is_ours = machine is not None and describes(message.payload, f"{self._topics.base}/{machine}")
        return machine if is_ours else None
