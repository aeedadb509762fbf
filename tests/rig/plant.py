"""Who makes bundles and offers them to boxes: keys, versions of one bundle, the folder of a web server."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asd_daemon.judge.bundle.bundle import MANIFEST, default_bundle, file_entry
from asd_daemon.judge.bundle.signature import SIGNATURE, sign_manifest
from asd_daemon.rollout.offer import Ring
from asd_daemon.rollout.publishing import Published, publish
from rig.bundle_server import write_keys
from rig.bundles import read_manifest, write_manifest


@dataclass
class Plant:
    """One key, one first bundle, one folder that is offered."""

    folder: Path
    private: Path
    public: Path
    first: Path
    """A signed bundle."""

    @classmethod
    def made(cls, folder: Path, bundle: Path | None = None) -> Plant:
        """With a bundle of its own; by default the fan of the program's, whose test takes no time: views, no model, no reference sound."""
        folder.mkdir(parents=True, exist_ok=True)
        private, public = write_keys(folder)
        if bundle is None:
            _write_fan(folder / "bundle-1")
        else:
            shutil.copytree(bundle, folder / "bundle-1")
        (folder / "bundle-1" / SIGNATURE).unlink(missing_ok=True)
        sign_manifest(folder / "bundle-1" / MANIFEST, private)
        return cls(folder, private, public, folder / "bundle-1")

    @property
    def www(self) -> Path:
        """What a server offers."""
        return self.folder / "www"

    def version(self, version: str, more: bytes | None = None, **changes: Any) -> Path:
        """The first bundle as another version; with another file, and other keys of its manifest, where they are given."""
        bundle = self.folder / f"bundle-{version}"
        shutil.copytree(self.first, bundle)
        manifest: dict[str, Any] = {**read_manifest(bundle), "version": version, **changes}
        if more is not None:
            (bundle / "more.bin").write_bytes(more)
            manifest["files"]["more.bin"] = file_entry(bundle / "more.bin").model_dump(mode="json")
        write_manifest(bundle, manifest)
        sign_manifest(bundle / MANIFEST, self.private)
        return bundle

    def offer(self, bundle: Path | None, rings: list[Ring] | None = None, at: datetime | None = None) -> Published:
        """Offer a bundle on the channel `stable`."""
        at, days = at or datetime.now(UTC), timedelta(days=9)
        return publish(bundle, self.www, channel="stable", key=self.private, rings=rings, valid_for=days, now=at)


def _write_fan(bundle: Path) -> None:
    """Write a bundle of one simulated machine."""
    manifest: dict[str, Any] = read_manifest(default_bundle())
    fan = {key: value for key, value in manifest["machines"]["fan"].items() if key != "nearest"}
    names = [name for name in manifest["files"] if name in ("machines/fan/fusion.npz", "machines/fan/calibration.json")]
    for name in names:
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(default_bundle() / name, bundle / name)
    none: dict[str, Any] = {key: None for key in ("embedder", "embedder_fp32", "separator") if key in manifest}
    files = {name: manifest["files"][name] for name in names}
    lean: dict[str, object] = {
        **manifest,
        **none,
        "schema": 2,
        "machines": {"fan": fan},
        "reference": [],
        "files": files,
    }
    write_manifest(bundle, lean)
