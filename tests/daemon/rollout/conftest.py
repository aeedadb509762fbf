"""A plant that makes bundles and offers them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.bundles import add_reference, write_tiny_bundle
from rig.plant import Plant


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with a reference sound, which takes a second to make."""
    folder = tmp_path_factory.mktemp("rollout")
    write_tiny_bundle(folder / "bundle", {"fan": 0.0})
    add_reference(folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def plant(made: Path, tmp_path: Path) -> Plant:
    """With that bundle."""
    return Plant.made(tmp_path, made)
