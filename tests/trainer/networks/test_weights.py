"""Released weights: files built here with the released names, shapes and nesting."""

from __future__ import annotations

import argparse
import collections
import logging
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from asd_daemon.errors import StageError
from asd_trainer.networks.decoder import Decoder
from asd_trainer.networks.eat import SIZES, Eat
from asd_trainer.networks.torch_file import TorchFile
from asd_trainer.networks.weights import canonical_name, expected_shapes, load_weights, save_encoder
from asd_trainer.recipe.pretraining import DecoderRecipe

SIZE = SIZES["smoke"]
IMAGE = "modality_encoders.IMAGE."


def encoder(seed: int = 1) -> Eat:
    made = Eat(SIZE)
    generator = torch.Generator().manual_seed(seed)
    made.initialise(generator)
    for parameter in made.parameters():  # no two weights alike, so that an exchange shows
        nn.init.normal_(parameter, generator=generator)
    return made


def decoder_weights(seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {"proj.weight": torch.empty(128, 128), "proj.bias": torch.empty(128)}
    for layer in range(6):
        made |= {f"blocks.{layer}.0.weight": torch.empty(128, 8, 3, 3), f"blocks.{layer}.0.bias": torch.empty(128)}
    return {name: nn.init.normal_(tensor, generator=generator) for name, tensor in made.items()}


def fairseq_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As the pre-training code names them: blocks at the top, all else inside the modality."""
    named = {}
    for name, tensor in weights.items():
        inner = name.replace("pre_norm.", "context_encoder.norm.")
        named[inner if inner.startswith("blocks.") else IMAGE + inner] = tensor
    return named


def hub_file(path: Path, made: Eat, positions: int = 6144, more: Mapping[str, Tensor] | None = None) -> Path:
    weights = {f"model.{name}": tensor for name, tensor in made.state_dict().items()}
    weights["model.fixed_positional_encoder.positions"] = torch.full((1, positions, 128), 9.0)
    save_file({**weights, **(more or {})}, path)
    return path


@contextmanager
def foreign_module(name: str) -> Iterator[Any]:
    """A package that is here while a file is written and gone when it is read."""
    parts = name.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    for each in names:
        sys.modules[each] = types.ModuleType(each)
    try:
        yield sys.modules[name]
    finally:
        for each in names:
            del sys.modules[each]


def class_in(module: Any, name: str, *bases: type, **body: Any) -> Any:
    made = type(name, bases, {"__module__": module.__name__, **body})
    setattr(module, name, made)
    return made


def fairseq_file(path: Path, model: Mapping[str, Any], extra: Any = None, **how: Any) -> Path:
    """A checkpoint nested as fairseq nests it, with a configuration of classes that are not installed."""
    with foreign_module("omegaconf.dictconfig") as omegaconf, foreign_module("fairseq.meters") as fairseq:
        config = class_in(omegaconf, "DictConfig")()
        config.__dict__["_content"] = {"model": config, "task": argparse.Namespace(data="/somewhere", seed=1)}
        meter = class_in(fairseq, "AverageMeter", dict)()
        meter["loss"] = 0.5
        kind = Enum("Modality", {"AUDIO": 1, "IMAGE": 2})  # type: ignore[misc]  # made at run time as fairseq's is
        kind.__module__, kind.__qualname__ = fairseq.__name__, "Modality"
        fairseq.Modality = kind
        weights = collections.OrderedDict(model)
        vars(weights)["_metadata"] = collections.OrderedDict(
            {"": {"version": 1}}
        )  # as a state_dict of torch carries it
        content = {
            "args": None,
            "cfg": config,
            "model": weights,
            "extra_state": {"metrics": [("default", [(100, "loss", meter, {})])], "kind": kind(2), "extra": extra},
            "optimizer_history": [{"lr_scheduler_state": {"best": None}, "num_updates": 400_000}],
            "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}},
            "task_state": collections.defaultdict(list, {"a": [1]}),
        }
        torch.save(content, path, **how)
    return path


def pretrained_model(made: Eat, teacher: Eat | None = None) -> dict[str, Any]:
    model: dict[str, Any] = fairseq_names(made.state_dict())
    model[f"{IMAGE}fixed_positional_encoder.positions"] = torch.zeros(1, 512, 128)
    model |= {f"{IMAGE}decoder.{name}": tensor for name, tensor in decoder_weights().items()}
    if teacher is not None:
        model["_ema"] = collections.OrderedDict(fairseq_names(teacher.state_dict()))
    return model


def assert_same(loaded: Mapping[str, Tensor], made: Eat) -> None:
    expected = made.state_dict()
    assert loaded.keys() == expected.keys()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("positions", [512, 6144])
def test_hub_file_of_either_position_buffer_gives_the_encoder_and_its_output(tmp_path: Path, positions: int) -> None:
    made = encoder()
    found = load_weights(str(hub_file(tmp_path / "model.safetensors", made, positions)))
    assert found.size == SIZE
    assert not found.decoder
    assert not found.unknown
    assert_same(found.tensors, made)
    features = torch.randn(1, 1024, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert torch.equal(found.encoder()(features), made(features))


def test_fine_tuned_hub_file_loses_its_head(tmp_path: Path) -> None:
    more = {
        "model.fc_norm.weight": torch.ones(128),
        "model.fc_norm.bias": torch.ones(128),
        "model.head.weight": torch.ones(527, 128),
    }
    found = load_weights(str(hub_file(tmp_path / "model.safetensors", encoder(), more=more)))
    assert not found.unknown
    assert_same(found.tensors, encoder())


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    made = encoder().half()
    found = load_weights(str(hub_file(tmp_path / "model.safetensors", made)))
    assert {tensor.dtype for tensor in found.tensors.values()} == {torch.float32}
    assert_same(found.tensors, made.float())


def test_name_of_a_repository_is_fetched_with_its_revision(tmp_path: Path) -> None:
    asked = []

    def download(repository: str, file: str, revision: str | None) -> Path:
        asked.append((repository, file, revision))
        return hub_file(tmp_path / file, encoder())

    found = load_weights("worstchan/EAT-base_epoch30_pretrain", download=download)
    load_weights("worstchan/EAT-base_epoch30_pretrain@5a1d0c2", download=download)
    assert asked == [
        ("worstchan/EAT-base_epoch30_pretrain", "model.safetensors", None),
        ("worstchan/EAT-base_epoch30_pretrain", "model.safetensors", "5a1d0c2"),
    ]
    assert_same(found.tensors, encoder())


def test_repository_that_can_not_be_had_is_an_error_of_one_line_with_a_way_out(tmp_path: Path) -> None:
    # huggingface-hub itself, told that there is no network, with an empty cache.
    program = (
        "from asd_daemon.errors import StageError\n"
        "from asd_trainer.networks.weights import load_weights\n"
        "try:\n    load_weights('worstchan/EAT-base_epoch30_pretrain')\n"
        "except StageError as e:\n    print(e)\n"
    )
    offline = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    said = subprocess.run(
        [sys.executable, "-c", program], env=offline, capture_output=True, text=True, check=True
    ).stdout
    assert len(said.splitlines()) == 1
    assert said.startswith("worstchan/EAT-base_epoch30_pretrain: no such file here, and model.safetensors can't be had")
    assert "give the path of the file" in said


def test_what_is_neither_file_nor_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"nowhere\.pt: no such file"):
        load_weights(str(tmp_path / "nowhere.pt"))
    with pytest.raises(StageError, match=r"runs/gone\.safetensors: no such file"):
        load_weights("runs/gone.safetensors")
    with pytest.raises(StageError, match="holds 0 files of weights"):
        load_weights(str(tmp_path))


def test_own_encoder_is_read_back_from_its_folder(tmp_path: Path) -> None:
    save_encoder(encoder(), tmp_path)
    found = load_weights(str(tmp_path))
    assert found.file == tmp_path / "encoder.safetensors"
    assert len(found.digest) == 64
    assert_same(found.tensors, encoder())


@pytest.mark.parametrize("prefix", ["", "model."])
def test_fairseq_file_gives_encoder_and_decoder_without_its_classes(tmp_path: Path, prefix: str) -> None:
    made = encoder()
    model = {prefix + name: value for name, value in pretrained_model(made, encoder(2)).items()}
    found = load_weights(str(fairseq_file(tmp_path / "EAT.pt", model)))
    assert_same(found.tensors, made)
    assert not found.unknown
    assert "omegaconf" not in sys.modules
    decoder = Decoder(128, DecoderRecipe())
    decoder.load(found.decoder)
    own = decoder_weights()
    assert torch.equal(decoder.state_dict()["convolutions.4.weight"], own["blocks.4.0.weight"])
    assert torch.equal(decoder.proj.bias, own["proj.bias"])


def test_teacher_of_a_fairseq_file_comes_beside_the_weights(tmp_path: Path) -> None:
    model = pretrained_model(encoder(), encoder(2))
    found = load_weights(str(fairseq_file(tmp_path / "EAT.pt", model)))
    assert_same(found.tensors, encoder())
    assert_same(found.teacher, encoder(2))
    assert found.decoder.keys() == decoder_weights().keys()
    assert not load_weights(str(fairseq_file(tmp_path / "tuned.pt", pretrained_model(encoder())))).teacher
    del model["_ema"]["blocks.1.mlp.fc1.weight"]
    with pytest.raises(StageError, match=r"blocks\.1\.mlp\.fc1\.weight is missing"):
        load_weights(str(fairseq_file(tmp_path / "torn.pt", model)))


def test_fine_tuned_fairseq_file_loses_its_head(tmp_path: Path) -> None:
    model = fairseq_names(encoder().state_dict()) | {"fc_norm.weight": torch.ones(128), "head.bias": torch.ones(527)}
    found = load_weights(
        str(fairseq_file(tmp_path / "tuned.pt", {f"model.{name}": value for name, value in model.items()}))
    )
    assert not found.unknown
    assert_same(found.tensors, encoder())


def test_names_of_the_base_model_map_onto_ours_with_their_shapes() -> None:
    released = {
        f"{IMAGE}extra_tokens": (1, 1, 768),
        f"{IMAGE}local_encoder.proj.weight": (768, 1, 16, 16),
        f"{IMAGE}local_encoder.proj.bias": (768,),
        f"{IMAGE}context_encoder.norm.weight": (768,),
        f"{IMAGE}context_encoder.norm.bias": (768,),
    }
    inside = {"attn.qkv": (2304, 768), "attn.proj": (768, 768), "mlp.fc1": (3072, 768), "mlp.fc2": (768, 3072)}
    for block in range(12):
        for name, shape in inside.items():
            released |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
        for norm in ("norm1", "norm2"):
            released |= {f"blocks.{block}.{norm}.weight": (768,), f"blocks.{block}.{norm}.bias": (768,)}
    ours = {name: tuple(shape) for name, shape in expected_shapes(SIZES["base"]).items()}
    assert {canonical_name(name): shape for name, shape in released.items()} == ours
    assert {canonical_name(f"model.{name}"): shape for name, shape in released.items()} == ours


class Malice:
    """Creates a file when it is unpickled the usual way."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class MaliceWithState(dict[str, int]):
    """Hides a call where a pickle carries state and elements."""

    def __init__(self, inner: Malice) -> None:
        super().__init__()
        self.inner = inner

    def __reduce__(self) -> Any:
        return collections.OrderedDict, (), {"state": self.inner}, None, iter([("key", self.inner)])


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    marks = [tmp_path / f"mark-{n}" for n in range(4)]
    calls = [
        Malice(os.system, f"touch {marks[0]}"),
        Malice(eval, f"__import__('pathlib').Path({str(marks[1])!r}).touch()"),
        Malice(open, str(marks[2]), "w"),
    ]
    hidden = MaliceWithState(Malice(os.mkdir, str(marks[3])))
    # The control: each of them acts when it is unpickled as usual.
    for call, mark in zip([*calls, hidden.inner], marks, strict=True):
        thawed = pickle.loads(pickle.dumps(call))
        if hasattr(thawed, "close"):
            thawed.close()
        assert mark.exists()
        mark.rmdir() if mark.is_dir() else mark.unlink()

    made = encoder()
    path = fairseq_file(tmp_path / "EAT.pt", pretrained_model(made), extra=calls)
    assert_same(load_weights(str(path)).tensors, made)
    assert not any(mark.exists() for mark in marks)
    torch.save({"model": {}, "hidden": hidden}, tmp_path / "hidden.pt")
    with pytest.raises(StageError, match="extra_tokens is missing among its 0 weights"):
        load_weights(str(tmp_path / "hidden.pt"))
    assert not any(mark.exists() for mark in marks)


def test_pickle_that_names_our_own_reader_changes_nothing_of_it(tmp_path: Path) -> None:
    before = dict(vars(TorchFile))
    # GLOBAL asd_trainer.networks.torch_file TorchFile, then BUILD with slot state that would replace its `read`.
    attack = b"\x80\x02casd_trainer.networks.torch_file\nTorchFile\n(N}X\x04\x00\x00\x00readK\x01st\x86b."
    with zipfile.ZipFile(tmp_path / "attack.pt", "w") as file:
        file.writestr("archive/data.pkl", attack)
    with pytest.raises(StageError):
        load_weights(str(tmp_path / "attack.pt"))
    assert dict(vars(TorchFile)) == before


def test_views_parameters_and_formats_of_numbers_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    tensors = {
        "slice": base[5:11],
        "transposed": base.view(4, 6).t(),
        "parameter": nn.Parameter(base[:3]),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "int64": torch.arange(5),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
    }
    torch.save(tensors, tmp_path / "t.pt")
    with TorchFile(tmp_path / "t.pt") as file:
        for name, stored in file.content.items():
            read = file.read(stored, name)
            assert read.dtype == tensors[name].dtype
            assert torch.equal(read, tensors[name].detach()), name


def rewritten(path: Path, change: Any) -> Path:
    """The same zip with members changed, or dropped where the change gives None."""
    out = path.with_name(f"changed-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = change(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return out


def test_truncated_and_older_fairseq_files_are_refused(tmp_path: Path) -> None:
    path = fairseq_file(tmp_path / "EAT.pt", pretrained_model(encoder()))
    whole = path.read_bytes()
    (tmp_path / "short.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pt").write_bytes(b"")
    fairseq_file(tmp_path / "old.pt", pretrained_model(encoder()), _use_new_zipfile_serialization=False)
    for name in ("short.pt", "empty.pt", "old.pt"):
        with pytest.raises(
            StageError, match=rf"{name}: is no whole file of torch\.save.*truncated, or older than torch 1\.6"
        ):
            load_weights(str(tmp_path / name))
    gone = rewritten(path, lambda name, content: None if name.endswith("/data/4") else content)
    with pytest.raises(StageError, match=r"data/4 is not in the file"):
        load_weights(str(gone))
    cut = rewritten(path, lambda name, content: content[:-4] if name.endswith("/data/4") else content)
    with pytest.raises(StageError, match=r"shape \[\d.*\] needs \d+ bytes, .*data/4 has \d+"):
        load_weights(str(cut))
    other = rewritten(path, lambda name, content: b"big" if name.endswith("byteorder") else content)
    with pytest.raises(StageError, match="big-endian"):
        load_weights(str(other))
    broken = rewritten(path, lambda name, content: content[:300] if name.endswith("data.pkl") else content)
    with pytest.raises(StageError, match="description of tensors is broken"):
        load_weights(str(broken))


def test_torch_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(StageError, match="has no `model`"):
        load_weights(str(tmp_path / "list.pt"))
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as file:
        file.writestr("readme.txt", "hello")
    with pytest.raises(StageError, match="not one of torch.save"):
        load_weights(str(tmp_path / "other.pt"))


def test_truncated_safetensors_are_refused(tmp_path: Path) -> None:
    path = hub_file(tmp_path / "model.safetensors", encoder())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StageError, match=r"model\.safetensors: can't be read as safetensors"):
        load_weights(str(path))


def changed_hub_file(path: Path, change: Mapping[str, Tensor | None]) -> Path:
    weights: dict[str, Tensor | None] = {f"model.{name}": tensor for name, tensor in encoder().state_dict().items()}
    weights |= change
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path)
    return path


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model.blocks.2.mlp.fc1.bias": None}, r"blocks\.2\.mlp\.fc1\.bias is missing, expected shape \[512\]"),
        (
            {"model.blocks.1.attn.qkv.weight": torch.ones(384, 64)},
            r"blocks\.1\.attn\.qkv\.weight has shape \[384, 64\], expected \[384, 128\]",
        ),
        (
            {"model.pre_norm.weight": torch.full((128,), torch.nan)},
            r"pre_norm\.weight holds numbers that are not finite",
        ),
        ({"model.norm.weight": torch.ones(128)}, r"norm\.weight: EAT has no such weights"),
        ({"model.extra_tokens": None}, r"extra_tokens is missing"),
        (
            {"model.extra_tokens": torch.ones(1, 1, 96)},
            r"96 channels × 4 blocks is no size of EAT \(known: smoke 128 × 4",
        ),
    ],
)
def test_file_that_is_not_eat_is_refused_with_name_and_shapes(
    tmp_path: Path, change: Mapping[str, Tensor | None], complaint: str
) -> None:
    with pytest.raises(StageError, match=rf"model\.safetensors: {complaint}"):
        load_weights(str(changed_hub_file(tmp_path / "model.safetensors", change)))


def test_unknown_names_outside_the_encoder_are_listed_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = changed_hub_file(tmp_path / "model.safetensors", {"model.recon_proj.weight": torch.ones(2)})
    with caplog.at_level(logging.WARNING):
        found = load_weights(str(path))
    assert found.unknown == ("recon_proj.weight",)
    assert "left alone recon_proj.weight" in caplog.text
    assert_same(found.tensors, encoder())
