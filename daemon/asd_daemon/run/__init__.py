"""The running daemon: a monitor for each machine, their stores, the order of starting and stopping."""
