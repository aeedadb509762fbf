"""The connection to a daemon that ends while somebody waits for its answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from asd_daemon.web.live_hub import LiveHub
from asd_daemon.web.options import WebOptions
from asd_daemon.web.places import Places

SAID = {"kind": "machines", "machines": {"fan": {}}, "node": "n", "version": "1", "pid": 1, "bundle": "b"}


async def ask_one_that_dies(folder: Path) -> tuple[bool, str]:
    served: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.current_task())
        writer.write(json.dumps(SAID).encode() + b"\n")
        while line := await reader.readline():
            if b"command" in line:
                break
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    hub = LiveHub(Places(WebOptions("127.0.0.1", 0, (), (str(folder),), version="1")))
    async with await asyncio.start_unix_server(serve, folder / "live-fan.sock"):
        looking = asyncio.create_task(hub.run())
        async with hub.watching(()) as watcher:
            while not (await watcher.pieces.get()).get("machines"):
                pass
            told = await hub.command("fan", {"command": "mute", "minutes": 5})
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await asyncio.gather(*(task for task in served if task is not None))  # the hub may have come back meanwhile
    return told


def test_who_waits_for_a_daemon_that_dies_is_told_at_once(tmp_path: Path) -> None:
    done, text = asyncio.run(asyncio.wait_for(ask_one_that_dies(tmp_path), 20))
    assert not done
    assert text.startswith("The daemon ended before it answered")
