"""Bundles over a network that cuts, lies, drips and forgets: in the end whole, and never more than was signed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.errors import BundleError, RolloutError
from asd_daemon.judge.bundle.bundle import MANIFEST, load_bundle
from asd_daemon.judge.bundle.signature import sign_manifest
from asd_daemon.judge.scoring.installed_bundles import install_bundle
from asd_daemon.rollout.downloading import BundleServer as Client
from asd_daemon.rollout.fetcher import Fetcher
from asd_daemon.rollout.fetching import Fetching, FetchJob
from asd_daemon.rollout.offer import OFFER, Ring
from rig.bundle_server import BUSY, CUT, MISSING, OTHER_TAG, SLOW, WRONG, BundleServer
from rig.bundles import read_manifest, write_manifest
from rig.plant import Plant
from rig.waiting import wait_until


@pytest.fixture
def server(plant: Plant) -> Iterator[BundleServer]:
    plant.www.mkdir()
    with BundleServer(plant.www) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test takes half a second of a process, and has tests of its own."""
    for module in ("rollout.fetching", "judge.scoring.installed_bundles"):
        monkeypatch.setattr(f"asd_daemon.{module}.bounded_self_test", lambda bundle: len(bundle.manifest.reference))


def job(plant: Plant, server: BundleServer, **more: Any) -> FetchJob:
    facts = {"channel": "stable", "ring": None, "node": "box", "key": plant.public, "insecure": True}
    return FetchJob(url=server.url, root=plant.folder / "state" / "bundles", **{**facts, **more})


def fetch(plant: Plant, server: BundleServer, at: datetime | None = None, **more: Any) -> dict[str, Any]:
    work = job(plant, server, **more)
    (work.root / "rollout").mkdir(parents=True, exist_ok=True)
    return Fetching(work, at or datetime.now(UTC)).run()


def test_bundle_arrives_whole_and_is_tested(plant: Plant, server: BundleServer) -> None:
    published = plant.offer(plant.first)
    found = fetch(plant, server)
    assert (found["state"], found["id"]) == ("ready", published.offered.id)
    assert found["fetched_bytes"] == sum(file.bytes for file in published.offered.files.values())
    assert load_bundle(Path(found["folder"]), plant.public).version == "1"


def test_only_what_the_box_lacks_is_fetched(plant: Plant, server: BundleServer) -> None:
    install_bundle(plant.first, plant.folder / "state" / "bundles", plant.public)
    second = plant.version("2", b"m" * 5000)
    plant.offer(second)
    found = fetch(plant, server)
    new = sum((second / name).stat().st_size for name in (MANIFEST, "manifest.sig", "more.bin"))
    assert (found["state"], found["fetched_bytes"]) == ("ready", new)
    assert len([path for path, _, _ in server.asked if path.startswith("/files/")]) == 3


def test_damaged_file_of_a_bundle_here_is_fetched_instead(plant: Plant, server: BundleServer) -> None:
    done = install_bundle(plant.first, plant.folder / "state" / "bundles", plant.public)
    model = done.bundle.path / "embedder.onnx"
    model.write_bytes(b"\0" * model.stat().st_size)
    plant.offer(plant.version("2"))
    found = fetch(plant, server)
    assert found["state"] == "ready"
    assert found["fetched_bytes"] > (plant.first / "embedder.onnx").stat().st_size


def test_unchanged_offer_is_asked_for_by_its_etag(plant: Plant, server: BundleServer) -> None:
    install_bundle(plant.first, plant.folder / "state" / "bundles", plant.public)
    plant.offer(plant.first)
    assert [fetch(plant, server)["state"] for _ in range(2)] == ["current", "current"]
    assert [status for path, _, status in server.asked] == [200, 304]


def test_file_goes_on_where_it_broke_off(plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.version("2", os.urandom(300_000)))
    cuts = iter([CUT])
    server.fault_of = lambda path: next(cuts, None) if path.startswith("/files/") and is_large(plant, path) else None
    with pytest.raises(RolloutError, match="broke off after 150000 of 300000 bytes"):
        fetch(plant, server)
    assert fetch(plant, server)["state"] == "ready"
    assert [(wanted, status) for _, wanted, status in server.asked if wanted] == [("bytes=150000-", 206)]


def is_large(plant: Plant, path: str) -> bool:
    return (plant.www / path.lstrip("/")).stat().st_size == 300_000


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (WRONG, "SHA-256|is not signed|is no rollout"),
        (MISSING, "answers 404"),
        (BUSY, "answers 503"),
        (CUT, "broke off"),
    ],
)
@pytest.mark.parametrize("what", [OFFER, "files"])
def test_fault_is_named_and_the_next_try_succeeds(
    what: str, fault: str, words: str, plant: Plant, server: BundleServer
) -> None:
    plant.offer(plant.first)
    faults = iter([fault])
    server.fault_of = lambda path: next(faults, None) if path.startswith(f"/{what}") else None
    with pytest.raises(RolloutError, match=words):
        fetch(plant, server)
    assert fetch(plant, server)["state"] == "ready"


@pytest.mark.parametrize("fault", [SLOW, OTHER_TAG])
def test_slow_bytes_and_other_tags_cost_time_alone(fault: str, plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.first)
    server.slow_s, server.fault_of = 0.001, lambda _: fault
    assert fetch(plant, server)["state"] == "ready"


def test_server_that_falls_silent_is_given_up(plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.first)
    server.slow_s, server.fault_of = 5.0, lambda _: SLOW
    with pytest.raises(RolloutError, match="timed out"):
        fetch(plant, server, silent_s=0.2)


def test_file_that_is_larger_than_signed_is_not_read_on(plant: Plant, server: BundleServer) -> None:
    published = plant.offer(plant.first)
    file = plant.www / published.offered.files["embedder.onnx"].address
    file.write_bytes(file.read_bytes() + b"x" * 10_000_000)
    with pytest.raises(RolloutError, match="is larger than the .* bytes that are signed"):
        fetch(plant, server)
    parts = plant.folder / "state" / "bundles" / "rollout" / "parts"
    assert sum(part.stat().st_size for part in parts.iterdir()) <= published.offered.files["embedder.onnx"].bytes


def test_older_offer_is_refused_after_a_newer_one_was_seen(plant: Plant, server: BundleServer) -> None:
    now = datetime.now(UTC)
    plant.offer(plant.first, at=now)
    old = (plant.www / OFFER).read_bytes()
    plant.offer(plant.version("2"), at=now + timedelta(seconds=9))
    assert fetch(plant, server)["version"] == "2"
    (plant.www / OFFER).write_bytes(old)
    with pytest.raises(RolloutError, match="is older than"):
        fetch(plant, server)
    (plant.folder / "state" / "bundles" / "rollout" / "offer.json").write_text("spoiled")
    assert fetch(plant, server)["version"] == "1"  # all memory of it is gone …
    with pytest.raises(RolloutError, match="is older than"):
        fetch(plant, server, highest=2**40)  # … but the daemon remembers too


def test_expired_offer_is_refused_even_when_nothing_has_changed(plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.first)
    assert fetch(plant, server)["state"] == "ready"
    with pytest.raises(RolloutError, match="expires"):
        fetch(plant, server, at=datetime.now(UTC) + timedelta(days=10))


def test_box_of_a_later_ring_waits_and_an_offering_that_was_refused_is_skipped(
    plant: Plant, server: BundleServer
) -> None:
    published = plant.offer(plant.first, [Ring(name="canary", nodes=("test-*",)), Ring(name="plant", percent=0)])
    assert fetch(plant, server)["reason"] == "0 % of ring plant take it, and this box is not among them yet"
    assert not [path for path, _, _ in server.asked if path.startswith("/files/")]
    assert fetch(plant, server, node="test-1", skip=(published.offered.id,))["state"] == "skipped"
    assert fetch(plant, server, node="test-1")["state"] == "ready"


def test_bundle_whose_scores_are_not_reached_here_is_refused(
    plant: Plant, server: BundleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real test
    bad = plant.version("3")
    manifest: Any = read_manifest(bad)
    manifest["reference"][0]["scores"]["fan"] += 0.5
    write_manifest(bad, manifest)
    sign_manifest(bad / MANIFEST, plant.private)
    plant.offer(bad)
    found = fetch(plant, server)
    assert found["state"] == "refused"
    assert "noise.flac" in found["reason"]


def test_disk_that_would_be_full_is_left_alone(
    plant: Plant, server: BundleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.offer(plant.first)
    real = os.statvfs(plant.folder)

    class Full:
        f_bavail, f_frsize, f_blocks = int(0.05 * real.f_blocks) + 3, real.f_frsize, real.f_blocks

    monkeypatch.setattr(os, "statvfs", lambda _: Full)
    with pytest.raises(RolloutError, match="MB are free; the bundle needs"):
        fetch(plant, server)


def test_http_and_unknown_channels_are_refused(plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.first)
    with pytest.raises(RolloutError, match="https:// only"):
        Client(server.url)
    with pytest.raises(RolloutError, match="has no channel 'beta'; it has stable"):
        fetch(plant, server, channel="beta")


def test_certificate_that_nobody_knows_is_refused(plant: Plant) -> None:
    from rig.bundle_server import tls_server

    plant.offer(plant.first)
    with tls_server(plant.www, plant.folder) as (url, certificate):
        with pytest.raises(RolloutError, match="CERTIFICATE_VERIFY_FAILED"):
            Client(url).offer(None)
        found = Client(url, certificate).offer(None)
        assert found is not None
        assert found.content == (plant.www / OFFER).read_bytes()


def test_redirection_from_https_to_http_is_not_followed() -> None:
    from urllib.error import URLError
    from urllib.request import Request

    from asd_daemon.rollout.downloading import _NoDowngrade

    with pytest.raises(URLError, match="not encrypted"):
        _NoDowngrade().redirect_request(Request("https://a/x"), None, 302, "", {}, "http://b/x")  # type: ignore[arg-type]


def until(fetcher: Fetcher) -> dict[str, Any]:
    results: list[dict[str, Any]] = []

    def is_over() -> bool:
        result = fetcher.result()
        if result is not None:
            results.append(result)
        return bool(results)

    wait_until(is_over, "the process that fetches ends")
    return results[0]


def test_process_of_its_own_says_what_came_of_it(plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.first)
    fetcher, heard = Fetcher(), list[dict[str, Any]]()
    fetcher.start(job(plant, server), heard.append)
    result = until(fetcher)
    assert result["state"] == "ready", result
    assert heard[0]["offered"]["version"] == "1"
    assert not fetcher.is_busy
    fetcher.start(job(plant, server, channel="beta"), heard.append)
    assert until(fetcher)["state"] == "failed"


def test_killed_process_is_a_failure_and_the_next_one_goes_on(plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.version("2", os.urandom(300_000)))
    server.slow_s, server.fault_of = (
        10.0,
        lambda path: SLOW if path.startswith("/files/") and is_large(plant, path) else None,
    )
    fetcher = Fetcher()
    fetcher.start(job(plant, server), lambda _: None)
    wait_until(
        lambda: any(path.startswith("/files/") and is_large(plant, path) for path, _, _ in server.asked), "it fetches"
    )
    fetcher.close()
    assert until(fetcher)["state"] == "failed"
    server.fault_of = lambda _: None
    fetcher.start(job(plant, server), lambda _: None)
    assert until(fetcher)["state"] == "ready"


def test_bundle_error_is_no_rollout_that_is_believed(plant: Plant, server: BundleServer) -> None:
    plant.offer(plant.first)
    with pytest.raises(BundleError, match="key can't be read"):
        fetch(plant, server, key=plant.folder / "nowhere.pem")
