"""Who made a bundle: an Ed25519 signature over its manifest, whose hashes stand for every other file.

Keys are PEM files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them; the signature is its 64 raw bytes
(RFC 8032). It knows no manifest's content. cryptography is imported when a key is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asd_daemon.errors import BundleError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.sig"
SIGNATURE_BYTES = 64
MAX_KEY_BYTES = 16_384


def sign_manifest(manifest: Path, key: Path) -> Path:
    """Write the signature of a manifest beside it; its path.

    Raises:
        BundleError: the key can't be read or is no Ed25519 private key without a password.
    """
    private = read_private_key(key)
    signature = manifest.with_name(SIGNATURE)
    signature.write_bytes(private.sign(manifest.read_bytes()))
    return signature


def check_signature(manifest: bytes, folder: Path, key: Path) -> None:
    """Refuse a bundle that the owner of a key has not signed.

    Args:
        manifest: the manifest's bytes, as they are parsed afterwards.
        folder: the bundle's; its `manifest.sig` is read.
        key: the public key's file.

    Raises:
        BundleError: there is no signature, it is not of this manifest and key, or the key can't be read.
    """
    from cryptography.exceptions import InvalidSignature

    public = read_public_key(key)
    file = folder / SIGNATURE
    if not file.is_file():
        raise BundleError(f"{file}: is missing, but {key} must have signed; export with `asd-export --sign KEY`")
    if file.stat().st_size != SIGNATURE_BYTES:
        raise BundleError(f"{file}: has {file.stat().st_size} bytes, an Ed25519 signature has {SIGNATURE_BYTES}")
    try:
        public.verify(file.read_bytes(), manifest)
    except InvalidSignature:
        raise BundleError(f"{file}: is no signature of this manifest by {key}; do not use this bundle") from None


def read_private_key(file: Path) -> Ed25519PrivateKey:
    """The key to sign with.

    Raises:
        BundleError: as `sign_manifest`.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_key(file), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:  # TypeError: it has a password
        raise BundleError(f"{file}: is no private key in PEM without a password: {e}") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{file}: is no Ed25519 key; make one with `openssl genpkey -algorithm ed25519 -out {file}`")
    return key


def read_public_key(file: Path) -> Ed25519PublicKey:
    """The key to check with.

    Raises:
        BundleError: it can't be read or is no Ed25519 public key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(_read_key(file))
    except (ValueError, UnsupportedAlgorithm) as e:
        raise BundleError(f"{file}: is no public key in PEM; make it with `openssl pkey -in KEY -pubout`") from e
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{file}: is no Ed25519 public key")
    return key


def _read_key(file: Path) -> bytes:
    try:
        with file.open("rb") as f:
            content = f.read(MAX_KEY_BYTES + 1)
    except OSError as e:
        raise BundleError(f"{file}: the key can't be read: {e.strerror}") from e
    if len(content) > MAX_KEY_BYTES:
        raise BundleError(f"{file}: is larger than {MAX_KEY_BYTES} bytes, so it is no key")
    return content
