"""What is different between what runs and what is configured now, key by key: what a running daemon can take on, and what needs a restart.

Pure: it compares two plans and decides which change is of which kind. How a change is taken on is the running daemon's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from asd_daemon.settings.keys import MachineSettings
from asd_daemon.settings.plan import Plan

NEED_A_RESTART = ("node", "bundle_key", "mqtt", "keep", "log")
"""Keys whose change a running daemon does not take on; nor that of bundle.folder."""
_IN_PLACE = ("alarm", "quality", "title", "notify", "scoring")
_FOLDER = "bundle.folder"
_OF_THE_JUDGE = ("open_after", "of", "false_alarms_per_week")
"""What a machine's provisional threshold depends on."""


@dataclass(frozen=True)
class PlanChanges:
    """The differences; machines in the order of the new configuration."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    """Machines whose source, model or hop is another one, or that share a device with one of these: they begin anew."""
    adjusted: tuple[str, ...] = ()
    """Machines of which only alarm, quality, title, notify or scoring changed: no window is missed."""
    keys: tuple[str, ...] = ()
    """All keys that are taken on, in words."""
    needs_restart: tuple[str, ...] = ()
    """Keys whose change takes effect at the next start only."""

    @property
    def changes_machines(self) -> bool:
        """Whether other machines are heard, or some anew."""
        return bool(self.added or self.removed or self.replaced)

    @property
    def lines(self) -> list[str]:
        """What is taken on, in words."""
        words = [f"{name}: is new" for name in self.added] + [f"{name}: is heard no more" for name in self.removed]
        changed = set(self.replaced) - {key.split(": ")[0] for key in self.keys}
        words += [f"{name}: begins anew, since it shares its device with one that does" for name in sorted(changed)]
        return words + list(self.keys)


def plan_changes(before: Plan, after: Plan) -> PlanChanges:
    """Compare what runs with what is configured."""
    added = tuple(name for name in after.machines if name not in before.machines)
    removed = tuple(name for name in before.machines if name not in after.machines)
    keys: list[str] = []
    anew: list[str] = []
    adjusted: list[str] = []
    for name in (name for name in after.machines if name in before.machines):
        changed = _changed_keys_of(before, after, name)
        if changed:
            keys.append(f"{name}: {', '.join(changed)}")
            (adjusted if all(key.split(".")[0] in _IN_PLACE for key in changed) else anew).append(name)
    sharing = _sharing(before, after, [*added, *anew])
    replaced = tuple(name for name in after.machines if name in {*anew, *sharing} and name not in added)
    health = _changed_keys(before.settings.health, after.settings.health, "health")
    notify = _changed_keys(before.settings.notify, after.settings.notify, "notify")
    rollout = [key for key in _bundle_keys(before, after) if key != _FOLDER]
    return PlanChanges(
        added,
        removed,
        replaced,
        tuple(name for name in adjusted if name not in replaced),
        (*keys, *health, *notify, *rollout),
        tuple(_restart_keys(before, after)),
    )


def _bundle_keys(before: Plan, after: Plan) -> list[str]:
    """The keys of `bundle` that are different."""
    return list(_changed_keys(before.settings.bundle, after.settings.bundle, "bundle"))


def needs_another_judge(before: MachineSettings, after: MachineSettings) -> bool:
    """Whether a machine is judged by something else, or its provisional threshold is another one."""
    return before.scoring != after.scoring or any(
        getattr(before.alarm, key) != getattr(after.alarm, key) for key in _OF_THE_JUDGE
    )


def _restart_keys(before: Plan, after: Plan) -> Iterator[str]:
    for key in NEED_A_RESTART:
        yield from _changed_keys(getattr(before.settings, key), getattr(after.settings, key), key)
    is_moved = before.bundle != after.bundle and after.settings.bundle.url is None
    if _FOLDER in _bundle_keys(before, after) or is_moved:
        yield "bundle"
    was_alone, is_alone = (set(plan.machines) >= set(plan.settings.machines) for plan in (before, after))
    if was_alone != is_alone:
        yield "machines (whether this process hears all of them)"


def _changed_keys_of(before: Plan, after: Plan, name: str) -> list[str]:
    """The keys of a machine that are different; a source of the command line is above the configuration's."""
    changed = list(_changed_keys(before.machines[name], after.machines[name], ""))
    if before.sources[name] == after.sources[name]:
        return [key for key in changed if key.split(".")[0] != "source"]
    return changed


def _changed_keys(before: object, after: object, path: str) -> Iterator[str]:
    """The keys below a section that hold something else, as paths with dots."""
    if before == after:
        return
    here, there = _content(before), _content(after)
    if here is None or there is None:
        yield path
        return
    for key, value in here.items():
        yield from _changed_keys(value, there[key], f"{path}.{key}" if path else key)


def _content(section: object) -> Mapping[str, Any] | None:
    if isinstance(section, BaseModel):
        return {key: getattr(section, key) for key in type(section).model_fields}
    return None


def _sharing(before: Plan, after: Plan, names: Collection[str]) -> set[str]:
    """Machines that share, or shared, a device with one of these: a device is opened once for all its channels."""
    devices = {device for plan in (before, after) for name in names for device in _devices(plan, name)}
    both = [name for name in after.machines if name in before.machines]
    return {name for name in both if devices & {*_devices(before, name), *_devices(after, name)}}


def _devices(plan: Plan, name: str) -> set[tuple[str, str | None]]:
    """The device of a machine, and that of its second microphone."""
    spec = plan.sources.get(name)
    heard = [each for each in (spec, spec.far_device if spec else None) if each is not None and each.kind == "device"]
    return {(each.target, each.options.get("rate_hz")) for each in heard}
