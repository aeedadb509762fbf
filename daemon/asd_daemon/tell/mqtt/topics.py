"""What a process tells a broker, and under which names: the topics of its node and its machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Topics:
    """What a process tells a broker, and under which names."""

    node: str
    """This box's name in the topics."""
    machines: Sequence[str] = ()
    """Those that this process hears."""
    prefix: str = "asd"
    """First part of all topics."""
    owns_node: bool = True
    """Whether no other process hears machines under the same node."""
    discovery_prefix: str | None = None
    """First part of Home Assistant's discovery topics; None for no discovery."""
    takes_commands: bool = False
    """Whether people may mute and acknowledge by MQTT."""
    has_pictures: bool = False
    """Whether pictures of alerts are published."""

    @property
    def is_of_one_of_several(self) -> bool:
        """Whether the process hears one machine of a node that several processes share."""
        return not self.owns_node and len(self.machines) == 1

    @property
    def base(self) -> str:
        """What all our own topics begin with."""
        return f"{self.prefix}/{self.node}"

    def picture(self, machine: str) -> str:
        """The topic of the picture of a machine's last alert."""
        return f"{self.base}/{machine}/picture"

    def about(self, machine: str) -> str:
        """The topic of what a machine is heard and judged by."""
        return f"{self.base}/{machine}/about"

    def availability(self, machine: str | None = None) -> str:
        """The topic of the node's or a machine's availability."""
        return f"{self.base}/availability" if machine is None else f"{self.base}/{machine}/availability"


def own_availability(topics: Topics) -> dict[str, str]:
    """The topics that say that we are here, and whose each is: a machine's, or the empty word for the node's own."""
    node = {} if topics.is_of_one_of_several else {topics.availability(): ""}
    return {topics.availability(machine): machine for machine in topics.machines} | node


def retained_topics(topics: Topics, own: dict[str, str], *, says_node: bool) -> dict[str, str]:
    """Topics on which the broker keeps a message of ours, but for discovery, and whose each is; the node's own have the empty word.

    Args:
        topics: ours.
        own: those that say that we are here.
        says_node: whether we speak for the node, that others share, too.
    """
    kept = dict(own)
    if says_node:
        kept[topics.availability()] = ""
    kept |= {f"{topics.base}/{machine}/state": machine for machine in topics.machines}
    kept |= {topics.about(machine): machine for machine in topics.machines}
    return kept | {topics.picture(machine): machine for machine in topics.machines if topics.has_pictures}
