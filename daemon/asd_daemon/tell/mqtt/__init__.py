"""MQTT: connection, topics, publishing, Home Assistant's discovery, the node's availability."""
