"""Where the bundle that comes with the package lies: known before anything of a bundle is loaded."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def default_bundle() -> Path:
    """The bundle that comes with the package."""
    return Path(str(resources.files("asd_daemon"))) / "bundles" / "default"
