"""What `check` says of a server: a look that changes nothing, and errors that name address, key and value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.errors import BundleError
from asd_daemon.rollout.fetching import FetchJob
from asd_daemon.rollout.looking import offered_words
from asd_daemon.rollout.offer import Ring
from rig.bundle_server import BundleServer, write_keys
from rig.plant import Plant

NOW = datetime.now(UTC)


def job(plant: Plant, url: str, root: Path, **changes: Any) -> FetchJob:
    usual = FetchJob(url=url, channel="stable", ring=None, node="box", key=plant.public, root=root, insecure=True)
    return usual.model_copy(update=changes)


def test_look_says_what_is_offered_and_keeps_nothing(plant: Plant, tmp_path: Path) -> None:
    plant.offer(plant.first, [Ring(name="canary", nodes=("test-*",), percent=100), Ring(name="plant", percent=0)])
    with BundleServer(plant.www) as server:
        mine = offered_words(job(plant, server.url, tmp_path / "state", node="test-1"), NOW)
        assert mine.startswith(f"{server.url}: tiny 1 on channel stable, for this box; believed until 20")
        others = offered_words(job(plant, server.url, tmp_path / "state"), NOW)
        assert "not yet for this box: 0 % of ring plant take it" in others
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("changes", "later", "words"),
    [
        ({"channel": "beta"}, 0, "has no channel 'beta'; it has stable"),
        ({"ring": "hall"}, 0, "hall"),
        ({"insecure": False}, 0, "is fetched with https:// only; insecure: true allows http://"),
        ({}, 10, "expires: was "),
        ({"key": Path("/nowhere/key.pem")}, 0, "/nowhere/key.pem: the key can't be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_value(
    plant: Plant, tmp_path: Path, changes: dict[str, Any], later: int, words: str
) -> None:
    plant.offer(plant.first, [Ring(name="plant", percent=100)])
    with BundleServer(plant.www) as server, pytest.raises(BundleError) as e:
        offered_words(job(plant, server.url, tmp_path, **changes), NOW + timedelta(days=later))
    assert words in str(e.value), str(e.value)


def test_another_key_and_an_address_without_an_offer_are_named(plant: Plant, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    _, other = write_keys(tmp_path / "other")
    plant.offer(plant.first)
    with BundleServer(plant.www) as server:
        with pytest.raises(BundleError, match="is not signed by .*; it is not used"):
            offered_words(job(plant, server.url, tmp_path, key=other), NOW)
        with pytest.raises(BundleError, match=r"/nothing/rollout.json: answers 404"):
            offered_words(job(plant, f"{server.url}/nothing", tmp_path), NOW)
