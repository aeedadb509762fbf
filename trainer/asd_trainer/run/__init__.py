"""A whole run: its stages in order, and the plan of time and memory made before it."""
