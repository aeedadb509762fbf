"""A node that several processes share: its availability, which no single connection's last will could keep true.

Each process says `online` when it comes and `stopped` when it goes, and the broker says `offline` for one that died. Whoever is still
there hears that and says `online` again, so the topic is `online` exactly while somebody of the node is. It needs a connection of its
own: MQTT allows one last will a connection, and the other one's is the machine's.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import paho.mqtt.client as paho

from asd_daemon.tell.mqtt.connection import Backoff, BrokerAddress, make_client
from asd_daemon.tell.payloads import Availability


class NodeAvailability:
    """Keeps a node's availability topic true as long as this process lives."""

    def __init__(self, address: BrokerAddress, topic: str) -> None:
        self._address, self._topic = replace(address, client_id=f"{address.client_id[:123]}-node"), topic
        self._closing = threading.Event()
        self._backoff = Backoff()
        client = make_client(self._address)
        client.will_set(topic, Availability.OFFLINE.value, qos=1, retain=True)
        client.on_connect, client.on_message = self._on_connect, self._on_message
        client.on_connect_fail = lambda client, _: self._backoff.apply(client)
        client.on_disconnect = lambda client, *_: self._backoff.apply(client)
        self._client = client

    def start(self) -> None:
        """Connect in the background; refusals are told by the other connection."""
        self._client.connect_async(self._address.host, self._address.port, keepalive=self._address.keepalive_s)
        self._client.loop_start()

    def close(self) -> None:
        """Say `stopped`, which the others of the node correct, and leave."""
        self._closing.set()
        if self._client.is_connected():
            self._client.publish(self._topic, Availability.STOPPED.value, qos=0, retain=True)
        self._client.disconnect()
        threading.Thread(target=self._client.loop_stop, name="presence-stop", daemon=True).start()

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, code: Any, _more: Any) -> None:
        if not code.is_failure:
            self._backoff.succeeded()
            self._publish_online(client)
            client.subscribe(self._topic, qos=1)

    def _on_message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if message.payload.decode(errors="replace") != Availability.ONLINE.value:
            self._publish_online(client)

    def _publish_online(self, client: paho.Client) -> None:
        if not self._closing.is_set():
            client.publish(self._topic, Availability.ONLINE.value, qos=0, retain=True)
