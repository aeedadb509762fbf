"""What is wrong with the configuration of a running daemon, as all its machines tell it: refused, or in part for the next start only."""

from __future__ import annotations


class ConfigurationTroubles:
    """Said by one thread, read by all."""

    def __init__(self) -> None:
        self._words: tuple[str, ...] = ()

    def words(self) -> tuple[str, ...]:
        """One line each; none where all of the configuration holds."""
        return self._words

    def change(self, words: tuple[str, ...]) -> bool:
        """Say something else from now on; whether that is new."""
        is_new, self._words = words != self._words, words
        return is_new
