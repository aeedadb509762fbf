"""What is offered: signed, never older, for channels and rings."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from asd_daemon.cli.publish import _rings
from asd_daemon.errors import BundleError, RolloutError, UsageError
from asd_daemon.judge.bundle.bundle import MANIFEST
from asd_daemon.judge.bundle.signature import sign_manifest
from asd_daemon.rollout.offer import (
    OFFER,
    Offer,
    OfferedBundle,
    Ring,
    lot,
    read_offer,
    refuse_stale,
    ring_of,
    sign_offer,
    why_not_yet,
)
from asd_daemon.rollout.publishing import publish
from rig.bundle_server import write_keys
from rig.bundles import write_tiny_bundle

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
FILES: dict[str, Any] = {MANIFEST: {"sha256": "a" * 64, "bytes": 3, "address": "files/aa/" + "a" * 64}}


def offered(**more: Any) -> OfferedBundle:
    return OfferedBundle.model_validate({"name": "plant", "version": "2", "since": 7, "files": FILES, **more})


def offer(serial: int = 7, **more: Any) -> Offer:
    return Offer(
        schema=1, serial=serial, created=NOW, expires=NOW + timedelta(days=9), channels={"stable": offered(**more)}
    )


def test_signature_is_over_the_canonical_bytes_and_found_by_another_program(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    envelope = json.loads(sign_offer(offer(), private))
    by_hand = (
        b"asd-edge rollout 1\n"
        + json.dumps(envelope["signed"], sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    (tmp_path / "words").write_bytes(by_hand)
    (tmp_path / "sig").write_bytes(bytes.fromhex(envelope["signature"]))
    words = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        str(public),
        "-rawin",
        "-in",
        "words",
        "-sigfile",
        "sig",
    ]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verified Successfully" in said.stdout, said.stderr
    load_pem_public_key(public.read_bytes())


def test_signed_offer_is_read_and_any_changed_letter_refuses_it(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    content = sign_offer(offer(rings=(Ring(name="canary", nodes=("test-*",)), Ring(name="plant", percent=0))), private)
    assert read_offer(content, "there", public) == offer(
        rings=(Ring(name="canary", nodes=("test-*",)), Ring(name="plant", percent=0))
    )
    for before, after in (
        (b'"percent": 0', b'"percent": 9'),
        (b'"serial": 7', b'"serial": 8'),
        (b"stable", b"stabla"),
        (b'"2"', b'"1"'),
    ):
        assert before in content
        with pytest.raises(RolloutError, match="is not signed by"):
            read_offer(content.replace(before, after), "there", public)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"signed": {}, "signature": "zz"}', b"<html>404</html>", b"[" * 100_000]
)
def test_what_is_no_offer_is_refused_in_words(content: bytes, tmp_path: Path) -> None:
    _, public = write_keys(tmp_path)
    with pytest.raises(RolloutError, match="there: "):
        read_offer(content, "there", public)


def test_offer_of_another_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    private, _ = write_keys(tmp_path)
    _, public = write_keys(tmp_path / "other")
    with pytest.raises(RolloutError, match="is not signed by"):
        read_offer(sign_offer(offer(), private), "there", public)


def test_older_serial_and_expired_offer_are_refused() -> None:
    refuse_stale(offer(7), "there", highest=7, now=NOW)
    with pytest.raises(RolloutError, match="serial: 7 is older than 8"):
        refuse_stale(offer(7), "there", highest=8, now=NOW)
    with pytest.raises(RolloutError, match="expires"):
        refuse_stale(offer(7), "there", highest=7, now=NOW + timedelta(days=9))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\\b", ""])
def test_names_and_addresses_stay_inside(name: str) -> None:
    with pytest.raises(ValueError, match="plain path"):
        offered(files={**FILES, name: FILES[MANIFEST]})
    with pytest.raises(ValueError, match="plain path"):
        offered(files={MANIFEST: {**FILES[MANIFEST], "address": name}})


def test_ring_is_found_by_pattern_then_by_the_boxs_word_then_the_last() -> None:
    rings = (Ring(name="canary", nodes=("test-*",)), Ring(name="line", nodes=("line-3",)), Ring(name="plant"))
    found = {
        name: ring_of(rings, name, said)
        for name, said in (("test-1", "plant"), ("line-3", None), ("box", "line"), ("boxes", None))
    }
    assert {name: ring.name for name, ring in found.items() if ring} == {
        "test-1": "canary",
        "line-3": "line",
        "box": "line",
        "boxes": "plant",
    }
    assert ring_of((), "box", "line") is None
    with pytest.raises(RolloutError, match="'lnie' is none of the rings"):
        ring_of(rings, "box", "lnie")


def test_ring_waits_for_its_time() -> None:
    later = offered(rings=(Ring(name="canary", nodes=("c",)), Ring(name="plant", not_before=NOW + timedelta(hours=1))))
    assert why_not_yet(later, "c", None, NOW) is None
    assert why_not_yet(later, "box", None, NOW) == "ring plant begins on 2026-11-27 13:00 UTC"
    assert why_not_yet(later, "box", None, NOW + timedelta(hours=1)) is None


def test_percent_takes_that_share_of_boxes_and_keeps_those_it_had() -> None:
    boxes = [f"box-{n}" for n in range(2000)]
    shares: list[set[str]] = []
    for percent in (0, 10, 50, 100):
        part = offered(rings=(Ring(name="plant", percent=percent),))
        shares.append({box for box in boxes if why_not_yet(part, box, None, NOW) is None})
    assert [len(share) for share in shares] == [0, pytest.approx(200, abs=45), pytest.approx(1000, abs=80), 2000]
    assert shares[1] < shares[2] < shares[3]
    other = {box for box in boxes if lot(box, "another") < 10}
    assert len(other & shares[1]) < 60  # 20 by chance: not always the same boxes go first


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path, Path]:
    private, public = write_keys(tmp_path)
    bundle = write_tiny_bundle(tmp_path / "bundle").path
    sign_manifest(bundle / MANIFEST, private)
    return bundle, private, public


def put(
    bundle: Path | None,
    folder: Path,
    key: Path,
    rings: list[Ring] | None = None,
    at: datetime = NOW,
    channel: str = "stable",
) -> Any:
    return publish(bundle, folder, channel=channel, key=key, rings=rings, valid_for=timedelta(days=9), now=at)


def test_published_folder_holds_each_file_once_under_its_hash(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bundle, private, public = signed
    done = put(bundle, tmp_path / "www", private)
    found = read_offer((tmp_path / "www" / OFFER).read_bytes(), "www", public).channels["stable"]
    assert {name: (tmp_path / "www" / file.address).read_bytes() for name, file in found.files.items()} == {
        path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()
    }
    assert done.new_bytes == sum(file.bytes for file in found.files.values())
    again = put(bundle, tmp_path / "www", private, channel="beta")
    assert (again.new_files, again.removed_files) == (0, 0)
    assert again.offer.serial == done.offer.serial + 1
    assert set(again.offer.channels) == {"stable", "beta"}
    assert not list((tmp_path / "www").rglob(".*"))


def test_without_bundle_the_rings_alone_change(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bundle, private, _ = signed
    first = put(bundle, tmp_path / "www", private, [Ring(name="canary")])
    second = put(
        None, tmp_path / "www", private, [Ring(name="canary"), Ring(name="plant", percent=20)], NOW + timedelta(days=1)
    )
    assert second.offered.id == first.offered.id
    assert [ring.name for ring in second.offered.rings] == ["canary", "plant"]
    third = put(bundle, tmp_path / "www", private, None, NOW + timedelta(days=2))
    assert third.offered.rings == second.offered.rings
    assert third.offered.id != first.offered.id  # offered again: whoever refused it tries again
    with pytest.raises(RolloutError, match="'beta' offers nothing yet"):
        put(None, tmp_path / "www", private, channel="beta")


def test_share_that_is_none_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match=r"--ring plant=101: PERCENT is 0 to 100"):
        _rings(["plant=101"], [])


def test_serial_grows_where_the_folder_was_lost(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bundle, private, _ = signed
    before = put(bundle, tmp_path / "www", private)
    after = put(bundle, tmp_path / "new", private, at=NOW + timedelta(minutes=1))
    assert after.offer.serial > before.offer.serial


def test_files_of_the_offer_before_stay_and_older_ones_go(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _bundle, private, _ = signed
    www = tmp_path / "www"
    names = []
    for tilt in (0.1, 0.2, 0.3):
        other = write_tiny_bundle(tmp_path / str(tilt), {"fan": tilt}).path
        sign_manifest(other / MANIFEST, private)
        names.append(put(other, www, private).offered.files[MANIFEST].address)
    assert [(www / name).exists() for name in names] == [False, True, True]


def test_bundle_that_this_key_has_not_signed_is_not_published(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    bundle, private, _ = signed
    (tmp_path / "other").mkdir()
    other, _ = write_keys(tmp_path / "other")
    with pytest.raises(BundleError, match="no signature of this manifest"):
        put(bundle, tmp_path / "www", other)
    (bundle / "embedder.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match="embedder.onnx"):
        put(bundle, tmp_path / "www", private)
    assert not (tmp_path / "www" / OFFER).exists()
