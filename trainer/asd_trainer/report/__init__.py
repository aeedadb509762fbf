"""The report of a run: one page with figures, curves, maps and the worst mistakes."""
