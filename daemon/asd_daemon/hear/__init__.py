"""From air to windows: sources of sound, quality of a window, simulated machines."""
