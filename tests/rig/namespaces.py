"""A plant in network namespaces: a switch, and nodes on it that can be cut off and returned. Gone at the end, whatever happens.

The switch is a bridge in a namespace of its own, each node another one with one cable (a veth pair) to it. Nothing of it can be reached
from outside and nothing outside can be reached from it. Names are in /etc/netns, which `ip netns exec` lays over /etc/hosts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


def missing() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff"))
    has = int(line.split()[1], 16)
    if not (has >> _CAP_NET_ADMIN & 1 and has >> _CAP_SYS_ADMIN & 1):
        return "network namespaces need CAP_NET_ADMIN and CAP_SYS_ADMIN"
    tried = f"asd-{os.getpid()}-try"
    if subprocess.run(["ip", "netns", "add", tried], capture_output=True, check=False).returncode != 0:
        return "network namespaces can't be made here"
    subprocess.run(["ip", "netns", "delete", tried], capture_output=True, check=False)
    return None


class Plant:
    """`with Plant(["broker-1", …], name="broker.plant") as plant:`.

    Args:
        nodes: host names.
        name: of all nodes together, with an address for each of them.
    """

    def __init__(self, nodes: Sequence[str], name: str) -> None:
        self.nodes, self.name = tuple(nodes), name
        self._prefix = f"asd-{os.getpid()}"
        self.switch = f"{self._prefix}-switch"

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for place in (*map(self.place, self.nodes), self.switch):
            subprocess.run(["ip", "netns", "delete", place], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / place, ignore_errors=True)
        with contextlib.suppress(OSError):  # it is somebody else's too
            Path("/etc/netns").rmdir()

    def place(self, node: str) -> str:
        """The namespace of a node."""
        return f"{self._prefix}-{node}"

    def address(self, node: str) -> str:
        """Of a node, in the plant."""
        return f"10.77.0.{self.nodes.index(node) + 1}"

    def at(self, place: str) -> list[str]:
        """The words that run a program in a namespace; it keeps its process id."""
        return ["ip", "netns", "exec", place]

    def cut(self, node: str) -> None:
        """Pull its cable: both sides fall silent, nobody is told."""
        _ip("-n", self.switch, "link", "set", self._cable(node), "down")

    def mend(self, node: str) -> None:
        """Plug it in again."""
        _ip("-n", self.switch, "link", "set", self._cable(node), "up")

    def _cable(self, node: str) -> str:
        return f"to-{self.nodes.index(node) + 1}"

    def _make(self) -> None:
        hosts = ["127.0.0.1 localhost"]
        hosts += [f"{self.address(node)} {node}" for node in self.nodes]
        hosts += [f"{self.address(node)} {self.name}" for node in self.nodes]
        for place in (self.switch, *map(self.place, self.nodes)):
            folder = Path("/etc/netns") / place
            folder.mkdir(parents=True)
            (folder / "hosts").write_text("\n".join(hosts) + "\n")
            _ip("netns", "add", place)
            _ip("-n", place, "link", "set", "lo", "up")
        _ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self.switch, "address", "add", "10.77.0.254/24", "dev", "switch")
        _ip("-n", self.switch, "link", "set", "switch", "up")
        for node in self.nodes:
            cable, place = self._cable(node), self.place(node)
            _ip("-n", self.switch, "link", "add", cable, "type", "veth", "peer", "name", "plant", "netns", place)
            _ip("-n", self.switch, "link", "set", cable, "master", "switch", "up")
            _ip("-n", place, "address", "add", f"{self.address(node)}/24", "dev", "plant")
            _ip("-n", place, "link", "set", "plant", "up")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
