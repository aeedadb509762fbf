"""Every example of the API's docstrings and of its how-to page gives what stands there."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import asd_edge

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "python-api.md"


@pytest.mark.parametrize("module", ["listening", "simulation", "research"])
def test_examples_of_the_docstrings_give_what_stands_there(
    module: str, example_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(
        importlib.import_module(f"asd_edge.{module}"),
        extraglobs={"example_data": str(example_data)},
        raise_on_error=False,
    )
    assert found.attempted >= 2
    assert found.failed == 0


def test_examples_of_the_how_to_page_give_what_stands_there(
    example_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(example_data)
    found = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert found.attempted > 20
    assert found.failed == 0


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in asd_edge.__all__:
        assert getattr(asd_edge, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        asd_edge.nothing  # noqa: B018
