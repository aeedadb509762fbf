"""Who does what people ask for: settings and upkeep are the service's, all else the machine's; and what may not be asked by MQTT."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import BinaryIO

from asd_daemon.run.choosing import Choosing
from asd_daemon.run.service import Service
from asd_daemon.run.upkeep import Upkeep
from asd_daemon.settings.keys import MqttSettings
from asd_daemon.tell.commands import Answer, AskedCommand, Command, CommandKind


class CommandGiving:
    """Of one process; from any thread.

    Args:
        service: passes commands on to machines, and has work done in its thread.
        choosing: takes settings.
        upkeep: looks after machines.
        mqtt: what the configuration allows by MQTT; None: there is no broker.
        answer: publishes what came of a machine's command.
    """

    def __init__(
        self,
        service: Service,
        choosing: Choosing,
        upkeep: Upkeep,
        mqtt: MqttSettings | None,
        answer: Callable[[str, Command, Answer], None],
    ) -> None:
        self._service, self._choosing, self._upkeep, self._mqtt, self._answer = service, choosing, upkeep, mqtt, answer

    def give(
        self, machine: str | None, command: Command, reply: Callable[[Answer], None], file: BinaryIO | None = None
    ) -> None:
        """Have a command done that was given on this box.

        Args:
            machine: whose; None: of all of the daemon.
            command: what is asked for.
            reply: told what came of it.
            file: that was handed over with it.
        """
        if command.is_upkeep:
            self._service.do(lambda: reply(self._upkeep.do(machine, command, file)))
        elif command.is_setting:
            self._service.do(lambda: reply(self._choosing.choose(machine, command)))
        elif machine is not None:
            self._service.command(machine, AskedCommand(command, reply))

    def give_by_mqtt(self, machine: str, command: Command) -> None:
        """Have a command of a machine done that came by MQTT, as far as the configuration allows it."""
        allowed, answered = self._mqtt, partial(self._answer, machine, command)
        if command.command is CommandKind.ENROLL:  # what comes of it in the end is told by the machine's state
            refusal = None if allowed and allowed.enrolment else "mqtt.enrolment is not set"
            self._service.command(machine, AskedCommand(command, answered, refusal=refusal))
        elif command.is_upkeep:
            answered(Answer(False, f"{command.command.value} is refused: it is done at the page, or on the box"))
        elif command.is_setting and not (allowed and allowed.settings):
            answered(Answer(False, f"{command.command.value} is refused: mqtt.settings is not set"))
        else:
            self.give(machine, command, answered)
