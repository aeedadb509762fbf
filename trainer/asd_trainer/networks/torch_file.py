"""Tensors out of a file that torch.save wrote, without running what its pickle asks for.

A checkpoint of another program pickles classes of that program beside its weights. Here every class and function it names becomes an
inert object that takes any argument and does nothing; only the plain containers, and records of tensors, come out. Nothing is
imported, nothing is called, and a tensor's numbers are read when it is asked for. It knows no model.
"""

from __future__ import annotations

import io
import math
import pickle  # read by a subclass that resolves no name to a real class or function
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from asd_daemon.errors import StageError

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What unpickling raises on bytes that are no pickle, or one that treats our inert objects as more than they are."""


class StoredTensor(NamedTuple):
    """Where a tensor lies in a file."""

    storage: str
    """Name of the storage inside the file."""
    dtype: torch.dtype
    offset: int
    """Elements before the first."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    """Elements from one to the next, by axis."""


class TorchFile:
    """A file that torch.save (1.6 or later) wrote; a context manager that closes it.

    Raises:
        StageError: the file is missing, of the older format, no such file at all, or broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
            pickles = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise StageError(f"{path}: is a zip file but not one of torch.save ({len(pickles)} data.pkl in it)")
            self._folder = pickles[0].removesuffix("data.pkl")
            self._refuse_other_byte_order()
            self.content: Any = _InertUnpickler(io.BytesIO(self._zip.read(pickles[0]))).load()
            """What was saved: dicts, lists, tuples, numbers, texts, and `StoredTensor` for every tensor."""
        except OSError as e:
            raise StageError(f"{path}: can't be read: {e.strerror or e}") from e
        except zipfile.BadZipFile as e:
            raise StageError(
                f"{path}: is no whole file of torch.save ({e}): it is truncated, or older than torch 1.6; "
                "download it again, or save it anew with a current torch"
            ) from e
        except BROKEN as e:
            raise StageError(f"{path}: its description of tensors is broken: {str(e) or type(e).__name__}") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._zip.close()

    def read(self, stored: StoredTensor, key: str) -> Tensor:
        """The numbers of a tensor; `key` is what a message calls it.

        Raises:
            StageError: the file does not hold as many bytes as the tensor has, or can't be read.
        """
        member = f"{self._folder}data/{stored.storage}"
        elements = math.prod(stored.shape)
        reach = 1 + sum((size - 1) * stride for size, stride in zip(stored.shape, stored.stride, strict=True))
        size_bytes = stored.dtype.itemsize
        needed_bytes = (stored.offset + max(elements, reach)) * size_bytes if elements else 0
        try:
            found_bytes = self._zip.getinfo(member).file_size
            if min((stored.offset, *stored.shape, *stored.stride)) < 0 or needed_bytes > found_bytes:
                raise StageError(
                    f"{self.path}: {key}: shape {list(stored.shape)} needs {needed_bytes} bytes, "
                    f"{member} has {found_bytes}"
                )
            numbers = bytearray(self._zip.read(member))
        except KeyError as e:
            raise StageError(f"{self.path}: {key}: {member} is not in the file") from e
        except (OSError, EOFError, zipfile.BadZipFile) as e:
            raise StageError(f"{self.path}: {key}: {member} can't be read: {e}") from e
        if not needed_bytes:
            return torch.empty(stored.shape, dtype=stored.dtype)
        flat = torch.frombuffer(numbers, dtype=stored.dtype, count=len(numbers) // size_bytes)
        return flat.as_strided(stored.shape, stored.stride, stored.offset).clone()

    def _refuse_other_byte_order(self) -> None:
        member = f"{self._folder}byteorder"
        if member in self._zip.namelist():
            order = self._zip.read(member).decode("ascii", "replace").strip()
            if order != sys.byteorder:
                raise StageError(
                    f"{self.path}: was written with {order}-endian numbers, this machine is {sys.byteorder}-endian"
                )


class _InertUnpickler(pickle.Unpickler):
    """Resolves no name to anything that acts."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        # A class of this load alone: a pickle may set attributes on it, and they are gone with it.
        self._inert = _inert_class()
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "Size"): tuple,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch._utils", "_rebuild_parameter_with_state"): self._parameter,
            ("torch._tensor", "_rebuild_from_type_v2"): self._typed,
            **{("torch", name): dtype for name, dtype in DTYPES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for `module.name`."""
        return self._known.get((module, name), self._inert)

    def persistent_load(self, pid: Any) -> tuple[str, torch.dtype]:
        """Storages are all that torch stores outside the pickle."""
        kind, dtype, name = pid[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(name, str):
            raise pickle.UnpicklingError(f"unknown kind of storage {pid[:3]!r}")
        return name, dtype

    # Bound methods, not functions: a pickle can set no attribute on them.
    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any) -> StoredTensor:
        name, dtype = storage
        numbers = (offset, *shape, *stride)
        if len(shape) != len(stride) or not all(type(number) is int for number in numbers):
            raise pickle.UnpicklingError(f"tensor of shape {shape!r}, stride {stride!r}, offset {offset!r}")
        return StoredTensor(name, dtype, offset, tuple(shape), tuple(stride))

    def _parameter(self, tensor: Any, *_rest: Any) -> Any:
        return tensor

    def _typed(self, rebuild: Callable[..., Any], _kind: Any, arguments: Any, *_rest: Any) -> Any:
        # Only this unpickler's own methods are ever called.
        return rebuild(*arguments) if rebuild in {self._tensor, self._parameter} else self._inert()


def _inert_class() -> type:
    """A class whose objects take any argument, state, key or element and do nothing."""

    def create(cls: type, *_arguments: Any, **_named: Any) -> Any:
        return object.__new__(cls)

    def ignore(*_arguments: Any, **_named: Any) -> None:
        return None

    ignored = ("__init__", "__call__", "__setstate__", "__setitem__", "append", "extend", "add")
    return type("Inert", (), {"__slots__": (), "__new__": create, **dict.fromkeys(ignored, ignore)})
