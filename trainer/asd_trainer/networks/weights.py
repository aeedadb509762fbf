"""Weights of an EAT encoder from elsewhere: the released ones (Hugging Face, fairseq) and those that our own pre-training leaves.

Owns where they come from, the names they bear there, and the check that they are whole. Nothing of fairseq, transformers or timm is
needed, and no code of a file is run.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from asd_daemon.errors import StageError
from asd_trainer.networks.eat import PATCH, SIZES, Eat, EatSize
from asd_trainer.networks.torch_file import StoredTensor, TorchFile

log = logging.getLogger(__name__)

HUB_FILE = "model.safetensors"
ENCODER_FILE = "encoder.safetensors"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")
RELEASED = ("worstchan/EAT-base_epoch30_pretrain", "worstchan/EAT-large_epoch20_pretrain")
"""Pre-trained weights by their names at Hugging Face."""
PREFIXES = ("model.", "modality_encoders.IMAGE.")
DECODER = "decoder."
TEACHER = "_ema"
LEFT_OUT = re.compile(r"fixed_positional_encoder\.|fc_norm\.|head\.|decoder\.|_ema")
"""Known, and of no use here: positions follow from a formula, heads belong to other tasks, decoder and teacher are read apart."""
OF_ENCODER = re.compile(
    r"extra_tokens|local_encoder\.|pre_norm\.|context_encoder\.|blocks\.|norm\.|alibi|relative_positional"
)
"""Names that change what the encoder computes: one of them that Eat does not have means another architecture."""

Download = Callable[[str, str, str | None], Path]
"""Repository, file and revision → where the file now lies."""


@dataclass(frozen=True)
class EncoderWeights:
    """Weights with the names and shapes of `Eat`, complete, float32."""

    size: EatSize
    tensors: Mapping[str, Tensor]
    decoder: Mapping[str, Tensor]
    """The pre-training decoder's as they are named in the file, without prefix; empty where the file has none."""
    teacher: Mapping[str, Tensor]
    """Those of the running average that makes pre-training's targets, as `tensors`; empty where the file has none."""
    file: Path
    digest: str
    """sha256 of the file."""
    unknown: tuple[str, ...]
    """Names in the file that were left alone."""

    def encoder(self) -> Eat:
        """An encoder with these weights."""
        encoder = Eat(self.size)
        encoder.load_state_dict(dict(self.tensors))
        return encoder


def load_weights(source: str, *, download: Download | None = None) -> EncoderWeights:
    """Weights from a file or folder, or, where there is none of that name, from Hugging Face as `owner/name` or `owner/name@revision`.

    Args:
        source: a .safetensors file, a fairseq .pt file, a folder with one of them, or a repository.
        download: fetches a file of a repository; huggingface-hub by default.

    Raises:
        StageError: nothing there, not to be had, broken, incomplete or of another architecture; names file, key and shapes.
    """
    path = located(source, download or download_from_hub)
    named, averaged = _read_torch_file(path) if path.suffix in {".pt", ".pth"} else (_read_safetensors(path), {})
    tensors = {name: tensor for name, tensor in named.items() if not LEFT_OUT.match(name)}
    size = _find_size(path, tensors)
    expected = expected_shapes(size)
    foreign = sorted(name for name in tensors if name not in expected)
    blocking = [name for name in foreign if OF_ENCODER.match(name)]
    if blocking:
        raise StageError(
            f"{path}: {listed(blocking)}: EAT has no such weights; this is a model of another architecture"
        )
    if foreign:
        log.warning("%s: left alone %s", path, listed(foreign))
    kept = {name: checked(path, name, tensors.get(name), shape) for name, shape in expected.items()}
    teacher = {name: checked(path, name, averaged.get(name), shape) for name, shape in expected.items() if averaged}
    decoder = {name.removeprefix(DECODER): tensor.float() for name, tensor in named.items() if name.startswith(DECODER)}
    return EncoderWeights(size, kept, decoder, teacher, path, file_digest(path), tuple(foreign))


def weights_size(source: str) -> EatSize:
    """The size of the weights that `load_weights` would give; of released ones nothing is downloaded.

    Raises:
        StageError: as `load_weights`.
    """
    released = dict(zip(RELEASED, (SIZES["base"], SIZES["large"]), strict=True))
    if source in released and not Path(source).exists():
        return released[source]
    path = located(source, download_from_hub)
    if path.suffix in {".pt", ".pth"}:
        return load_weights(source).size
    try:
        with safe_open(path, framework="pt") as file, torch.device("meta"):
            names = list(file.keys())
            shapes = {canonical_name(key): torch.empty(file.get_slice(key).get_shape()) for key in names}
    except (OSError, SafetensorError) as e:
        raise StageError(f"{path}: can't be read as safetensors ({e}); it may be truncated: download it again") from e
    return _find_size(path, shapes)


def save_encoder(encoder: Eat, folder: Path) -> Path:
    """Write encoder.safetensors, which `load_weights` reads, into a folder that exists; gives its path."""
    path = folder / ENCODER_FILE
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}, path)
    return path


def download_from_hub(repository: str, file: str, revision: str | None) -> Path:
    """A file of a Hugging Face repository in huggingface-hub's cache, fetched when it is not there.

    Raises:
        StageError: there is no such repository or file, or no way to it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    # requests' or httpx's HTTPError, by the version of huggingface-hub
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except (EntryNotFoundError, transport, OSError, ValueError) as e:
        raise StageError(
            f"{repository}: no such file here, and {file} can't be had from Hugging Face ({str(e).splitlines()[0]}); "
            "fetch it elsewhere and give the path of the file"
        ) from e


def located(source: str, download: Download) -> Path:
    """Where a file of weights lies: a file, the one file of a folder, or one fetched from a repository.

    Raises:
        StageError: nothing of that name, or a folder with several.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        found = [path / name for name in (ENCODER_FILE, HUB_FILE) if (path / name).is_file()] or sorted(
            path.glob("*.pt")
        )
        if len(found) == 1:
            return found[0]
        raise StageError(
            f"{path}: holds {len(found)} files of weights ({ENCODER_FILE}, {HUB_FILE} or one .pt); give the file itself"
        )
    if HUB_NAME.fullmatch(source) and not path.suffix.startswith((".pt", ".safetensors")):
        repository, _, revision = source.partition("@")
        return download(repository, HUB_FILE, revision or None)
    raise StageError(f"{source}: no such file, and no name of a repository such as {RELEASED[0]}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return {canonical_name(key): tensor for key, tensor in named_safetensors(path).items()}


def named_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file by its name.

    Raises:
        StageError: it can't be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as e:
        raise StageError(f"{path}: can't be read as safetensors ({e}); it may be truncated: download it again") from e


def _read_torch_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model's weights, and those of its teacher where it has one."""
    with TorchFile(path) as file:
        model = file.content.get("model") if isinstance(file.content, Mapping) else None
        if not isinstance(model, Mapping):
            raise StageError(f"{path}: has no `model` with weights; it is no checkpoint of fairseq")
        teacher = next((value for key, value in model.items() if canonical_name(str(key)) == TEACHER), None)
        own, averaged = (
            {canonical_name(key): file.read(value, key) for key, value in _stored(one) if not _needless(key)}
            for one in (model, teacher if isinstance(teacher, Mapping) else {})
        )
        return own, averaged


def _stored(model: Mapping[Any, Any]) -> Iterator[tuple[str, StoredTensor]]:
    for key, value in model.items():
        if isinstance(value, StoredTensor):
            yield str(key), value


def _needless(key: str) -> bool:
    name = canonical_name(key)
    return LEFT_OUT.match(name) is not None and not name.startswith(DECODER)


def canonical_name(key: str) -> str:
    """The name that a released weight has in `Eat`."""
    for prefix in PREFIXES:
        key = key.removeprefix(prefix)
    return key.replace("context_encoder.norm.", "pre_norm.", 1) if key.startswith("context_encoder.norm.") else key


def _find_size(path: Path, tensors: Mapping[str, Tensor]) -> EatSize:
    """The size of the encoder, found from its class token and its number of blocks."""
    token = tensors.get("extra_tokens")
    if token is None:
        raise StageError(
            f"{path}: extra_tokens is missing among its {len(tensors)} weights; these are no weights of EAT"
        )
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))}
    dim, depth = token.shape[-1] if token.ndim else 0, max(blocks, default=-1) + 1
    for size in SIZES.values():
        if (size.dim, size.depth) == (dim, depth):
            return size
    known = ", ".join(f"{name} {size.dim} × {size.depth}" for name, size in SIZES.items())
    raise StageError(
        f"{path}: {dim} channels × {depth} blocks is no size of EAT (known: {known}); the file may be incomplete"
    )


def expected_shapes(size: EatSize) -> dict[str, torch.Size]:
    """Name and shape of every weight of an encoder; takes no memory."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in Eat(size, time_patches=PATCH).state_dict().items()}


def checked(path: Path, name: str, tensor: Tensor | None, shape: torch.Size) -> Tensor:
    """A weight as float32, if it is there, has the shape, and is finite.

    Raises:
        StageError: it is not; names file, key and shapes.
    """
    if tensor is None:
        raise StageError(f"{path}: {name} is missing, expected shape {list(shape)}; the file is incomplete")
    if tensor.shape != shape:
        raise StageError(f"{path}: {name} has shape {list(tensor.shape)}, expected {list(shape)}")
    numbers = tensor.float()
    if not torch.isfinite(numbers).all():
        raise StageError(f"{path}: {name} holds numbers that are not finite; the file is broken")
    return numbers


def listed(names: list[str]) -> str:
    """A few names and how many more there are, for messages."""
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
