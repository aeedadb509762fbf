"""Recordings: data sets as one table of clips, their names and labels, features, downloads, simulated ones."""
