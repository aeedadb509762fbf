"""The edge stays small: no import of it pulls in what only training and export need."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = (
    "torch",
    "onnx",
    "onnxscript",
    "scipy",
    "sklearn",
    "accelerate",
    "safetensors",
    "matplotlib",
    "asd_trainer",
    "asd_export",
)
MODULES = sorted(
    ".".join(p.relative_to(ROOT / "daemon").with_suffix("").parts).removesuffix(".__init__")
    for p in (ROOT / "daemon").rglob("*.py")
    if p.stem != "__main__"
)


def run_blocked(code: str, blocked: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own in which importing any of `blocked` fails."""
    block = f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", block + code],
        capture_output=True,
        text=True,
        cwd=ROOT / "daemon",
        check=False,
    )


def test_daemon_every_module_imports_without_training_libraries() -> None:
    assert len(MODULES) > 10
    has_web = importlib.util.find_spec("starlette") is not None  # the extra `web`
    modules = [m for m in MODULES if has_web or not m.startswith("asd_daemon.web.")]
    code = "import importlib\n" + "\n".join(f"importlib.import_module({m!r})" for m in modules)
    result = run_blocked(code, FORBIDDEN)
    assert result.returncode == 0, result.stderr


def test_daemon_help_loads_no_heavy_library() -> None:
    code = (
        "from asd_daemon.cli.program import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert not e.code\n"
        "heavy = {'onnxruntime', 'soxr', 'hnswlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = run_blocked(code, FORBIDDEN)
    assert result.returncode == 0, result.stderr
    assert "run" in result.stdout


def test_scorer_without_hnswlib_searches_exactly(tmp_path: Path) -> None:
    from rig.bundles import write_tiny_bundle

    write_tiny_bundle(tmp_path / "tiny")
    code = (
        "from pathlib import Path\n"
        "from asd_daemon.judge.bundle.bundle import load_bundle\n"
        "from asd_daemon.judge.distances.nearest_neighbours import ExactIndex, HnswIndex\n"
        "HnswIndex.available = staticmethod(lambda: False)\n"
        f"bundle = load_bundle(Path({str(tmp_path / 'tiny')!r}))\n"
        "assert isinstance(bundle.nearest('fan').index(), ExactIndex)"
    )
    result = run_blocked(code, (*FORBIDDEN, "hnswlib"))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("library", ["torch", "onnx", "scikit-learn", "scipy", "hnswlib"])
def test_edge_dependencies_name_no_training_library(library: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not any(d.startswith(library + ">") or d == library for d in project["dependencies"])


def test_opening_a_model_leaves_nothing_in_the_users_cache(tmp_path: Path) -> None:
    """onnxruntime's telemetry is off: no device number, no database, nothing to send."""
    from rig.bundles import write_tiny_bundle

    write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "home").mkdir()
    code = (
        "import sys; from pathlib import Path; from asd_daemon.judge.bundle.bundle import load_bundle;"
        "from asd_daemon.judge.scoring.scorer import open_embedder; open_embedder(load_bundle(Path(sys.argv[1])))"
    )
    unset = {"CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}  # each of the first two would switch it off
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    words = [sys.executable, "-c", code, str(tmp_path / "bundle")]
    subprocess.run(words, env={**environment, "HOME": str(tmp_path / "home")}, check=True)
    assert list((tmp_path / "home").rglob("*")) == []


def test_commands_compute_on_one_thread_unless_told_otherwise() -> None:
    code = (
        "import os\n"
        "from asd_daemon.cli.program import main\n"
        "assert 'numpy' not in sys.modules, 'too late to say how many threads'\n"
        "try: main(['--version'])\n"
        "except SystemExit as e: assert not e.code\n"
        "assert os.environ['OPENBLAS_NUM_THREADS'] == '1'\n"
        "assert os.environ['OMP_NUM_THREADS'] == '3'\n"
    )
    more = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")} | {"OMP_NUM_THREADS": "3"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import sys\n" + code],
        capture_output=True,
        text=True,
        cwd=ROOT / "daemon",
        env=more,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_oldest_versions_that_are_tried_are_those_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies = [*project["dependencies"], *project["optional-dependencies"]["notify"]]
    allowed = dict(dependency.split(">=") for dependency in dependencies)
    lines = [line for line in (ROOT / "constraints-oldest.txt").read_text().splitlines() if not line.startswith("#")]
    tried = dict(line.split("==") for line in lines)
    assert tried.keys() == allowed.keys()
    for name, bound in allowed.items():
        assert f"{tried[name]}.0.0".startswith(f"{bound}."), name
