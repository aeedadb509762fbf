"""The page for the people at the machine: a process of its own that reads what the daemons leave and listens at their sockets."""
