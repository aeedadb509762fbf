"""Scores → alerts that open and close, and the slow drift of normal scores."""
