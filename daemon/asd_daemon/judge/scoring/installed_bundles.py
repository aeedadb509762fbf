"""Bundles on a box: each version in a folder of its own, one of them current, the one before kept.

    ROOT/versions/<name>-<version>-<12 letters of the manifest's SHA-256>/
    ROOT/current, ROOT/previous          links to versions (`bundle_links`); a switch is one rename, so `current` is always one whole bundle

Owns copying and going back. A bundle is verified where it lies, after it was copied, and through `current` before the old
one is let go.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from asd_daemon.errors import BundleError, UntriedBundleError
from asd_daemon.judge.bundle.bundle import MANIFEST, Bundle, default_bundle, load_bundle
from asd_daemon.judge.bundle.manifest import MachineEntry
from asd_daemon.judge.bundle.signature import SIGNATURE
from asd_daemon.judge.scoring.bounded_self_test import bounded_self_test
from asd_daemon.judge.scoring.bundle_links import (
    CURRENT,
    VERSIONS,
    current_version,
    finish_switch,
    previous_version,
    switch_links,
    sync,
)
from asd_daemon.judge.scoring.self_test import Extent, is_judged_by_models, self_test

__all__ = [
    "CURRENT",
    "VERSIONS",
    "InstalledBundle",
    "bundle_before",
    "install_bundle",
    "load_or_roll_back",
    "roll_back",
]


@dataclass(frozen=True)
class InstalledBundle:
    """A bundle that is current now."""

    bundle: Bundle
    """As it lies under `versions`."""
    reference_scores: int
    """How many scores of reference sounds were reached."""
    replaced: str | None
    """The version folder that was current before."""


def install_bundle(source: Path, root: Path, key: Path | None = None) -> InstalledBundle:
    """Copy a bundle to this box and make it current, or leave everything as it was.

    Args:
        source: the bundle's folder.
        root: where the box keeps its bundles; made where it is missing.
        key: the public key that must have signed it.

    Raises:
        BundleError: the bundle is not whole, not signed, or fails its self-test before or after the switch; says that the old one stays.
        UntriedBundleError: nothing is known of it, and the old one stays.
    """
    verified = load_bundle(source, key)
    with _locked(root):
        folder = _copy(verified, root, key)
        bounded_self_test(load_bundle(folder, key))
        before, previous = current_version(root), previous_version(root)
        began_with_own = not (root / CURRENT).is_symlink()
        now_previous = None if began_with_own else previous if before in (None, folder) else before
        switch_links(root, folder, now_previous)
        try:
            compared = bounded_self_test(load_bundle(root / CURRENT, key))
        except BundleError as e:
            switch_links(root, before, previous)
            _tidy(root)
            stays = f"{before.name} is current again" if before else "no bundle is current"
            raise type(e)(f"{e}; {stays}") from e
        _tidy(root)
    return InstalledBundle(load_bundle(folder, key), compared, before.name if before else None)


def roll_back(root: Path, key: Path | None = None, *, trusts_own: bool = False) -> InstalledBundle:
    """Make the bundle before the current one current again; the one that was current becomes the previous one.

    Before the first one that was installed there was the program's own, which needs no link: none is current then.

    Args:
        root: where the box keeps its bundles.
        key: the public key that must have signed it.
        trusts_own: whether the program's own is used without a signature, as it came with the program.

    Raises:
        BundleError: nothing was installed, or the bundle before fails its self-test or is not signed: the current one stays.
    """
    if not root.is_dir():
        raise BundleError(f"{root}: no bundle was installed here")
    with _locked(root):
        before, previous = current_version(root), previous_version(root)
        if previous == before:
            previous = None
        if previous is None and not (root / CURRENT).is_symlink():
            raise BundleError(f"{root}: no bundle was installed here: the program's own is in use")
        bundle = _load_own(key, trusts_own=trusts_own) if previous is None else load_bundle(previous, key)
        compared = bounded_self_test(bundle)
        switch_links(root, previous, before)
    return InstalledBundle(bundle, compared, before.name if before else None)


def bundle_before(root: Path, key: Path | None = None, *, trusts_own: bool = False) -> Bundle | None:
    """The bundle that `roll_back`, which takes the same, would make current; None where it would refuse.

    Raises:
        BundleError: it can't be used.
    """
    before, previous = current_version(root), previous_version(root)
    if previous is not None and previous != before:
        return load_bundle(previous, key)
    return _load_own(key, trusts_own=trusts_own) if (root / CURRENT).is_symlink() else None


def _load_own(key: Path | None, *, trusts_own: bool) -> Bundle:
    return load_bundle(default_bundle(), None if trusts_own else key)


def load_or_roll_back(
    path: Path,
    key: Path | None = None,
    is_over: Callable[[], bool] = lambda: False,
    *,
    extent: Extent = "judged",
    listened: Collection[str] | None = None,
    trusts_own: bool = False,
) -> tuple[Bundle, str | None]:
    """Load the bundle to listen with; where it is a box's current one and can't be used, go back to the one before, or the program's own.

    Args:
        path: its folder.
        key: the public key that must have signed it.
        is_over: asked now and then whether nobody waits for it any more.
        extent: what of it is tried.
        listened: as `self_test`.
        trusts_own: as `roll_back`.

    Returns:
        the bundle, and why an earlier one had to be taken, where it had; `current` stays where it could not be tried now.

    Raises:
        BundleError: it can't be used, and there is no earlier one that can.
        CannotStartError: nobody waits for it any more.
    """
    try:
        bundle = load_bundle(path, None if trusts_own and path == default_bundle() else key)
        if extent != "judged" or listened is None or any(map(is_judged_by_models, _own(bundle, listened))):
            bounded_self_test(bundle, extent=extent, listened=listened, is_over=is_over)
        else:  # no foreign model, and nothing that is not opened for judging anyway: no process is needed for that
            self_test(bundle, extent="listened", listened=listened)
    except BundleError as e:
        if path.name != CURRENT or not path.is_symlink():
            raise
        reason, keeps = str(e), isinstance(e, UntriedBundleError)
        try:
            return _taken_back(path.parent, key, extent, trusts_own=trusts_own, keeps=keeps), reason
        except (BundleError, OSError) as further:
            raise BundleError(f"{reason}; the bundle before it can't be used either: {further}") from e
    return bundle, None


def _own(bundle: Bundle, listened: Collection[str]) -> list[MachineEntry]:
    """The bundle's own machines that are listened to."""
    return [machine for name, machine in bundle.manifest.machines.items() if name in listened]


def _taken_back(root: Path, key: Path | None, extent: Extent, *, trusts_own: bool, keeps: bool) -> Bundle:
    """The bundle before, made current; where `current` shall be kept, or another user has installed them, it is used, and the link stays.

    Raises:
        BundleError, OSError: there is none that can be used.
    """
    if not keeps and os.access(root, os.W_OK):
        return roll_back(root, key, trusts_own=trusts_own).bundle
    before = bundle_before(root, key, trusts_own=trusts_own)
    if before is None:
        raise BundleError("there is none")
    bounded_self_test(before, extent=extent)
    return before


def _copy(bundle: Bundle, root: Path, key: Path | None) -> Path:
    """Copy what the manifest lists, and nothing else, into a version folder that appears whole."""
    manifest = (bundle.path / MANIFEST).read_bytes()
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{bundle.name}-{bundle.version}").strip("-.")[:80] or "bundle"
    folder = root / VERSIONS / f"{words}-{hashlib.sha256(manifest).hexdigest()[:12]}"
    if folder.exists() and _is_whole(folder, key):
        return folder
    incoming = root / VERSIONS / f".incoming-{folder.name}"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    try:
        names = [*bundle.manifest.files, MANIFEST]
        if (bundle.path / SIGNATURE).is_file():
            names.append(SIGNATURE)
        for name in names:
            (incoming / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, incoming / name)
            sync(incoming / name)
        load_bundle(incoming, key)
        if folder.exists():  # the same manifest, but damaged: a fresh copy takes its place
            worn = root / VERSIONS / f".worn-{folder.name}"
            shutil.rmtree(worn, ignore_errors=True)
            folder.rename(worn)
        incoming.rename(folder)
    except OSError as e:
        raise BundleError(f"{folder}: can't be written: {e.strerror}; the bundle that was current stays") from e
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(root / VERSIONS / f".worn-{folder.name}", ignore_errors=True)
    sync(folder.parent)
    return folder


def _is_whole(folder: Path, key: Path | None) -> bool:
    try:
        load_bundle(folder, key)
    except BundleError:
        return False
    return True


def _tidy(root: Path) -> None:
    """Delete versions that are neither current nor previous."""
    kept = {current_version(root), previous_version(root)}
    for folder in (root / VERSIONS).iterdir():
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One at a time."""
    try:
        (root / VERSIONS).mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except OSError as e:
        raise BundleError(f"{root}: bundles can't be kept here: {e.strerror}") from e
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finish_switch(root)
        yield
