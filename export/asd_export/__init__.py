"""The exporter: a trained run becomes a small verified bundle."""
