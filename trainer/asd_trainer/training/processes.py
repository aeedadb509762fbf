"""The processes that train together: one, or as many as `accelerate launch` or `torchrun` started, on one host or several.

Owns how they find each other and how long they wait. It trains nothing.
"""

from __future__ import annotations

import os
from datetime import timedelta

import torch
from accelerate import PartialState

PATIENCE = timedelta(days=2)
"""How long processes wait for the first one, which separates, synthesises and computes features for all."""


def processes() -> PartialState:
    """Where in them we are; the first call joins them. Without an accelerator, or where it is not wanted, they meet on the CPU."""
    unwanted = os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
    return PartialState(cpu=unwanted or not torch.accelerator.is_available(), timeout=PATIENCE)
