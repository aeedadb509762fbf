"""The commands of `asd-train`."""
