"""Home Assistant's own core with its MQTT integration and nothing else: says each change of an entity as a line of JSON.

    python home_assistant_core.py CONFIGURATION_FOLDER BROKER_PORT

Runs in an environment that has homeassistant, and imports nothing of ours. It is set up as its `bootstrap` does it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any


async def run(folder: Path, port: int) -> None:
    """Until it is killed."""
    from homeassistant import auth, bootstrap, config_entries, core, loader
    from homeassistant.setup import async_setup_component

    (folder / "configuration.yaml").write_text("")
    hass = core.HomeAssistant(str(folder))
    hass.config.skip_pip = True
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    hass.auth = await auth.auth_manager_from_config(hass, [], [])

    def say(event: Any) -> None:
        new = event.data["new_state"]
        _say({"entity": event.data["entity_id"], "state": None if new is None else new.state})

    hass.bus.async_listen("state_changed", say)
    await async_setup_component(hass, "homeassistant", {})
    await hass.async_start()
    flow = await hass.config_entries.flow.async_init("mqtt", context={"source": "user"})
    done = await hass.config_entries.flow.async_configure(flow["flow_id"], {"broker": "127.0.0.1", "port": port})
    _say({"flow": str(done["type"])})
    await asyncio.Event().wait()


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
