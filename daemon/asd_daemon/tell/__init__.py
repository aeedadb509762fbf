"""From an alert to people: what is said, by which way, and what is kept on disk."""
