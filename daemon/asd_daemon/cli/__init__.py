"""The commands of `asd-daemon`, and what they print."""
