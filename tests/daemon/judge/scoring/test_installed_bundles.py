"""Bundles on a box: what is current is always whole, and never one that fails its self-test."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from asd_daemon.cli.program import cli
from asd_daemon.errors import BundleError
from asd_daemon.judge.bundle.bundle import Bundle, load_bundle
from asd_daemon.judge.bundle.signature import SIGNATURE, sign_manifest
from asd_daemon.judge.scoring import installed_bundles as installation
from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test
from asd_daemon.judge.scoring.installed_bundles import install_bundle, load_or_roll_back, roll_back
from rig.bundles import add_reference, read_manifest, write_manifest, write_tiny_bundle


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("installation") / "tiny").path
    add_reference(folder)
    return folder


def version(original: Path, folder: Path, name: str) -> Path:
    shutil.copytree(original, folder)
    write_manifest(folder, {**read_manifest(folder), "version": name})
    return folder


def spoil_scores(folder: Path) -> None:
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["reference"][0]["scores"]["fan"] += 0.5
    write_manifest(folder, manifest)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_install_second_version_is_current_and_first_is_previous(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    first = install_bundle(version(original, tmp_path / "a", "1"), root)
    second = install_bundle(version(original, tmp_path / "b", "2"), root)
    assert (first.replaced, second.replaced) == (None, first.bundle.path.name)
    assert second.reference_scores == 2
    assert load_bundle(root / "current").version == "2"
    assert load_bundle(root / "previous").version == "1"
    assert not Path(os.readlink(root / "current")).is_absolute()


def test_install_third_version_drops_the_first(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    for number in "123":
        install_bundle(version(original, tmp_path / number, number), root)
    assert sorted(load_bundle(folder).version for folder in (root / "versions").iterdir()) == ["2", "3"]


def test_install_same_version_twice_keeps_the_previous_one(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    install_bundle(version(original, tmp_path / "a", "1"), root)
    for _ in range(2):
        install_bundle(tmp_path / "a", root)
    install_bundle(version(original, tmp_path / "b", "2"), root)
    install_bundle(tmp_path / "b", root)
    assert load_bundle(root / "previous").version == "1"


def test_install_copies_nothing_that_the_manifest_does_not_list(original: Path, tmp_path: Path) -> None:
    source = version(original, tmp_path / "a", "1")
    (source / "stowaway.so").write_bytes(b"x")
    done = install_bundle(source, tmp_path / "bundles")
    assert not (done.bundle.path / "stowaway.so").exists()


def test_install_failing_self_test_leaves_the_old_one(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    install_bundle(version(original, tmp_path / "a", "1"), root)
    spoil_scores(version(original, tmp_path / "b", "2"))
    with pytest.raises(BundleError, match="computes something else"):
        install_bundle(tmp_path / "b", root)
    assert load_bundle(root / "current").version == "1"


def test_install_failing_after_the_switch_is_rolled_back(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "bundles"
    install_bundle(version(original, tmp_path / "a", "1"), root)
    real = bounded_self_test

    def fails_where_it_is_current(bundle: Bundle) -> int:
        if bundle.path == root / "current":
            raise BundleError("the disk lies")
        return real(bundle)

    monkeypatch.setattr(installation, "bounded_self_test", fails_where_it_is_current)
    with pytest.raises(BundleError, match=r"the disk lies; tiny-1-\w+ is current again"):
        install_bundle(version(original, tmp_path / "b", "2"), root)
    assert load_bundle(root / "current").version == "1"
    assert len(list((root / "versions").iterdir())) == 1


def test_roll_back_goes_back_and_forth(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    for number in "12":
        install_bundle(version(original, tmp_path / number, number), root)
    assert roll_back(root).bundle.version == "1"
    assert load_bundle(root / "current").version == "1"
    assert roll_back(root).bundle.version == "2"


def test_roll_back_from_the_first_goes_to_the_programs_own_and_back(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = version(original, tmp_path / "own", "own")
    monkeypatch.setattr(installation, "default_bundle", lambda: own)
    root = tmp_path / "bundles"
    with pytest.raises(BundleError, match="no bundle was installed"):
        roll_back(root)
    install_bundle(version(original, tmp_path / "a", "1"), root)
    for _ in range(2):
        done = roll_back(root)
        assert (done.bundle.version, (root / "current").exists()) == ("own", False)
        assert roll_back(root).bundle.version == "1"
        assert load_bundle(root / "current").version == "1"
    roll_back(root)
    install_bundle(tmp_path / "a", root)  # the one that lies under `previous`
    assert roll_back(root).bundle.version == "own"


def test_roll_back_to_a_bundle_that_is_not_signed_is_refused(
    original: Path, tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "default_bundle", lambda: original)
    signed = version(original, tmp_path / "a", "1")
    sign_manifest(signed / "manifest.json", keys[0])
    install_bundle(signed, tmp_path / "bundles", keys[1])
    with pytest.raises(BundleError, match=r"manifest\.sig"):
        roll_back(tmp_path / "bundles", keys[1])
    assert load_bundle(tmp_path / "bundles" / "current").version == "1"


def test_load_first_that_is_damaged_takes_the_programs_own(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = version(original, tmp_path / "own", "own")
    monkeypatch.setattr(installation, "default_bundle", lambda: own)
    root = tmp_path / "bundles"
    install_bundle(version(original, tmp_path / "a", "1"), root)
    (root / "current" / "embedder.onnx").write_bytes(b"")
    bundle, reason = load_or_roll_back(root / "current")
    assert bundle.version == "own"
    assert reason is not None
    assert "embedder.onnx" in reason


def test_load_current_that_is_damaged_takes_the_previous(original: Path, tmp_path: Path) -> None:
    root = tmp_path / "bundles"
    for number in "12":
        install_bundle(version(original, tmp_path / number, number), root)
    (root / "current" / "embedder.onnx").write_bytes(b"")
    bundle, reason = load_or_roll_back(root / "current")
    assert bundle.version == "1"
    assert reason is not None
    assert "embedder.onnx" in reason
    assert load_bundle(root / "current").version == "1"


def test_load_damaged_bundle_that_is_not_installed_is_refused(original: Path, tmp_path: Path) -> None:
    folder = version(original, tmp_path / "a", "1")
    (folder / "embedder.onnx").unlink()
    with pytest.raises(BundleError, match="is missing"):
        load_or_roll_back(folder)


def test_signature_of_the_manifest_is_accepted_and_survives_installation(
    original: Path, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    folder = version(original, tmp_path / "a", "1")
    sign_manifest(folder / "manifest.json", keys[0])
    assert install_bundle(folder, tmp_path / "bundles", keys[1]).bundle.version == "1"
    assert load_bundle(tmp_path / "bundles" / "current", keys[1]).version == "1"


@pytest.mark.parametrize("damage", ["none", "manifest", "signature", "short", "other key"])
def test_signature_that_is_wrong_is_refused(
    original: Path, tmp_path: Path, keys: tuple[Path, Path], damage: str
) -> None:
    folder = version(original, tmp_path / "a", "1")
    sign_manifest(folder / "manifest.json", keys[0])
    public = keys[1]
    signature = folder / SIGNATURE
    if damage == "none":
        signature.unlink()
    elif damage == "manifest":
        write_manifest(folder, {**read_manifest(folder), "version": "2"})
    elif damage == "signature":
        signature.write_bytes(bytes(64))
    elif damage == "short":
        signature.write_bytes(signature.read_bytes()[:63])
    else:
        other = Ed25519PrivateKey.generate().public_key()
        public = tmp_path / "other.pub"
        public.write_bytes(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(BundleError, match=r"manifest\.sig"):
        load_bundle(folder, public)


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_key_that_is_none_is_refused(original: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(BundleError, match="key: is no"):
        load_bundle(original, tmp_path / "key")
    with pytest.raises(BundleError, match="key: is no"):
        sign_manifest(original / "manifest.json", tmp_path / "key")


def test_commands_install_and_rollback_with_a_required_key(
    original: Path, tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "asd.yaml").write_text(f"bundle_key: {keys[1]}\n")
    monkeypatch.setenv("ASD_CONFIG", str(tmp_path / "asd.yaml"))
    first, second = (version(original, tmp_path / n, n) for n in "12")
    unsigned = CliRunner().invoke(cli, ["bundle", "install", str(first)])
    assert unsigned.exit_code == 3
    assert "manifest.sig: is missing" in unsigned.stderr
    for folder in (first, second):
        sign_manifest(folder / "manifest.json", keys[0])
        done = CliRunner().invoke(cli, ["bundle", "install", str(folder), "--json"])
        assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["version"] == "2"
    assert CliRunner().invoke(cli, ["bundle", "verify", str(tmp_path / "state/bundles/current")]).exit_code == 0
    back = CliRunner().invoke(cli, ["bundle", "rollback"])
    assert "tiny 1 is current now" in back.stdout
    (second / SIGNATURE).write_bytes(bytes(64))
    verified = CliRunner().invoke(cli, ["bundle", "verify", str(second)])
    assert verified.exit_code == 1
    assert "do not use this bundle" in verified.stderr
