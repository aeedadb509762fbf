"""Vectors of a window → how far it is from the normal ones."""
