"""The running daemon: a station for each machine, their stores, the order of starting and stopping."""
