"""Programs of deploy/release, which are no package."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from rig.daemon import ROOT

RELEASE = ROOT / "deploy" / "release"


def release_program(name: str) -> ModuleType:
    """The module of a program."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", RELEASE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
