"""How the daemon itself is: counters, log, systemd, status file, metrics, dead-man ping."""
