"""The names of what a machine can be judged by."""

from __future__ import annotations

from typing import Literal

Scoring = Literal["auto", "paper"]
"""By what evidence has chosen for the machine, or by the paper's back end alone."""
