"""What holds and where it comes from, in words: a value that was chosen, the configuration's, or the default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from asd_daemon.settings.chosen_keys import path_of
from asd_daemon.settings.keys import MachineSettings, Settings

if TYPE_CHECKING:
    from asd_daemon.settings.notify import NotifySettings
    from asd_daemon.settings.plan import Plan


def value_at(settings: Settings, machine: str | None, key: str) -> Any:
    """What settings say of a key; of a machine that they do not know, the default."""
    found: Any = settings if machine is None else settings.machines.get(machine, MachineSettings())
    for part in key.split("."):
        found = getattr(found, part, None)
    return found.model_dump(exclude_unset=True) if isinstance(found, BaseModel) else found


def value_text(value: Any) -> str:
    """A value for people."""
    return "unset" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def chosen_lines(plan: Plan) -> Iterator[str]:
    """One line for each value that comes from a choice and not from the configuration, and for each choice that waits."""
    where = str(plan.file) if plan.file is not None else "the configuration"
    for choice in plan.laid.held:
        configured = value_text(value_at(plan.configured, choice.machine, choice.key))
        is_added = choice.machine is not None and choice.machine not in plan.configured.machines
        below = "" if is_added else f", above {where}, which says {configured}"
        yield f"{path_of(choice.machine, choice.key)} is {value_text(choice.value)}, as chosen in {plan.chosen.file}{below}"
    yield from plan.laid.notes


_TOLD = ("tell", "quiet_hours", "escalate_after_min")


def _told(key: str, machine: MachineSettings, notify: NotifySettings) -> Any:
    """What holds for a machine: its own, else what holds for all."""
    own = getattr(machine.notify, key)
    return getattr(notify, key) if own is None else own


def facts_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """Of each machine that is heard: `title`, `scoring`, `budget` in false alarms a week, `notify` and `chosen`.

    `notify` says who is told and when not, None where nobody is; `chosen` the values that people chose, by their keys.
    """
    held, notify = plan.laid.held, plan.settings.notify
    return {
        name: {
            "title": machine.title,
            "scoring": plan.scoring_of(name),
            "budget": machine.alarm.false_alarms_per_week,
            "notify": None if notify is None else {key: _told(key, machine, notify) for key in _TOLD},
            "chosen": {one.key: one.value for one in held if one.machine == name},
        }
        for name, machine in plan.machines.items()
    }
