"""A folder of files wherever fsspec finds it: on a disk, in memory, in an object store.

Owns the one door to fsspec (extra `remote`) and what is said when a store can't be opened or read. It knows no sound and no shard.
Credentials are the store's own business (environment, configuration files of its library); they never stand in an address.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from asd_daemon.errors import DataSetError
from asd_daemon.redaction import redact
from asd_trainer.training.whole_file import fill_whole

DataRoot = Path | str
"""A folder, or the address of one (`s3://bucket/folder`)."""


def data_root(text: str) -> DataRoot:
    """A folder's path, or an address where there is `://` in it; `file://` is a path."""
    if text.startswith("file://"):
        return Path(text.removeprefix("file://"))
    return text.rstrip("/") if "://" in text else Path(text)


class Storage:
    """The files of a folder by their names.

    Raises:
        DataSetError: fsspec or the library of the store is missing, or nobody knows such an address; names the package.
    """

    def __init__(self, root: DataRoot) -> None:
        self.root = root.absolute() if isinstance(root, Path) else root
        self.name = redact(str(root))
        if isinstance(root, str):
            self._files, self._folder = _opened(root)

    def url(self, name: str) -> str:
        """Address, or path, of a file."""
        return f"{self.root}/{name}"

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        with self._told(name):
            try:
                if isinstance(self.root, Path):
                    return (self.root / name).stat().st_size
                return int(self._files.size(self._at(name)))
            except FileNotFoundError:
                return None

    def read(self, name: str) -> bytes | None:
        """Content of a file, None where there is none."""
        with self._told(name):
            try:
                if isinstance(self.root, Path):
                    return (self.root / name).read_bytes()
                return bytes(self._files.cat_file(self._at(name)))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def get(self, name: str, to: Path) -> None:
        """Copy a file to a local one."""
        with self._told(name):
            self._files.get_file(self._at(name), str(to))

    def put(self, local: Path, name: str) -> None:
        """Let a local file become one of the folder, whole or not at all; a store's objects appear when they are whole.

        The local one is gone afterwards where both are on one disk.
        """
        with self._told(name):
            if isinstance(self.root, Path):
                os.replace(local, self.root / name)
            else:
                self._files.put_file(str(local), self._at(name))

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, whole or not at all."""
        with self._told(name):
            if isinstance(self.root, Path):
                fill_whole(self.root / name, lambda file: file.write(content))
            else:
                self._files.pipe_file(self._at(name), content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._told(name):
            if isinstance(self.root, Path):
                (self.root / name).unlink()
            else:
                self._files.rm_file(self._at(name))

    def make(self) -> Path | None:
        """Make the folder where it is one of this machine, and give its path."""
        with self._told(""):
            if isinstance(self.root, Path):
                self.root.mkdir(parents=True, exist_ok=True)
                return self.root
            self._files.makedirs(self._folder, exist_ok=True)
            return None

    def _at(self, name: str) -> str:
        return f"{self._folder}/{name}"

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Every library of a store has errors of its own; all of them name the file here."""
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise
        except Exception as e:
            reason = getattr(e, "strerror", None) or f"{type(e).__name__}: {e}"
            raise DataSetError(f"{self.name}/{name}: can't be read or written: {redact(str(reason))}") from e


def _opened(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError as e:
        raise DataSetError(f"{redact(url)}: an address needs fsspec: pip install 'asd-edge[remote]'") from e
    scheme = url.split("://", 1)[0]
    try:
        files, folder = url_to_fs(url)
    except ImportError as e:
        package = known_implementations.get(scheme, {}).get("class", scheme).split(".")[0]
        raise DataSetError(f"{redact(url)}: {scheme}:// needs the package {package}: pip install {package}") from e
    except Exception as e:
        raise DataSetError(f"{redact(url)}: can't be opened: {redact(str(e))}") from e
    return files, str(folder).rstrip("/")
