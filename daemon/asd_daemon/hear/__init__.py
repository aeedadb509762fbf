"""From air to windows: sources of sound, windows and whether they are fit to judge, simulated machines."""
