"""What a release is made of: distributions as the index takes them, workflows that are ones, one version everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from rig.daemon import ROOT
from rig.release import release_program

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    wheel, source = release_program("distributions").build(tmp_path_factory.mktemp("dist"))
    return wheel, source


def test_wheel_holds_what_the_programs_read_and_nothing_beside_its_packages(distributions: tuple[Path, Path]) -> None:
    names = zipfile.ZipFile(distributions[0]).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"asd_daemon", "asd_trainer", "asd_export", "asd_edge"}
    read = [
        path.relative_to(ROOT / room).as_posix()
        for room in ("daemon", "trainer", "export", "api")
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert set(read) <= set(names)
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    commands = zipfile.ZipFile(distributions[0]).read(entry_points).decode()
    for command in ("asd-daemon", "asd-fleet", "asd-train", "asd-export"):
        assert f"{command} = " in commands


def test_source_distribution_holds_what_the_tests_need(distributions: tuple[Path, Path]) -> None:
    with tarfile.open(distributions[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        "Makefile",
        "constraints.txt",
        "constraints-oldest.txt",
        "CHANGELOG.md",
        "deploy/demo.py",
        "tests/conftest.py",
    ):
        assert needed in names
    assert not any(name.startswith((".venv", "dist/", "build/")) for name in names)


def schema_objection(schema: str, *files: Path) -> str:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_workflows_and_compose_files_are_what_their_schemas_want() -> None:
    assert not schema_objection("vendor.github-workflows", *WORKFLOWS)
    compose = sorted((ROOT / "deploy").rglob("compose.yaml"))
    assert len(compose) == 2
    assert not schema_objection("vendor.compose-spec", *compose)


def test_library_that_nobody_could_be_asked_about_is_not_counted_as_asked() -> None:
    faulty = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": []}]}
    unasked = {"name": "b", "skip_reason": "not found"}
    audit = release_program("audit")
    assert audit.in_words([faulty, unasked, unasked]) == "1 of 3 libraries asked about, 1 known faults"
    assert [(one["name"], fault["id"]) for one, fault in audit.known_faults([faulty, unasked])] == [("a", "CVE-1")]


def test_workflows_call_targets_and_programs_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    steps = [
        step
        for file in WORKFLOWS
        for job in yaml.safe_load(file.read_text())["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]
    called = {name for step in steps for name in re.findall(r"\bmake ([a-z-]+)", step["run"])}
    assert called == {"dist", "audit", "deb"}
    assert called <= targets
    for step in steps:
        for path in re.findall(r"(?:^|\s)((?:deploy|\.ci)/[\w./-]+)", step["run"]):
            assert (ROOT / path).exists(), path


def test_everything_that_bears_a_version_agrees_and_what_does_not_is_named(tmp_path: Path) -> None:
    check = release_program("check_version")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert check.complaints(f"v{version}") == []
    wrong = "\n".join(check.complaints("v9.9"))
    for told in (
        "v9.9: a tag is",
        "pyproject.toml: version is",
        "CHANGELOG.md: no section",
        "config.yaml",
        "Dockerfile",
    ):
        assert told in wrong
