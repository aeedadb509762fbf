"""From an alert to people: MQTT and what is kept on disk."""
