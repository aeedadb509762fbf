"""Windows of ten seconds, and whether they are fit to judge."""
