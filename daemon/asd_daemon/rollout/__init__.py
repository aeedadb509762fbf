"""Bundles for a hall of boxes: what a server offers, fetched, tried beside the current one, installed, taken back."""
