"""Released weights of other encoders: files built here with the released names, nesting and shapes, at small sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from asd_daemon.errors import StageError
from asd_trainer.networks.eat import EatSize
from asd_trainer.networks.encoders.beats import BeatsSize
from asd_trainer.networks.encoders.interface import EncoderShape
from asd_trainer.networks.encoders.mobilenet import MobileNetSize
from asd_trainer.networks.encoders.patch_transformer import PatchTransformerSize
from asd_trainer.networks.encoders.registry import build_encoder
from asd_trainer.networks.encoders.released import load_encoder

pytestmark = pytest.mark.torch

CED = EncoderShape("ced", asdict(PatchTransformerSize(16, 2, 2)))
DASHENG = EncoderShape("dasheng", asdict(PatchTransformerSize(16, 2, 2, 64, 4, 252)))
BEATS = EncoderShape("beats", asdict(BeatsSize(2, 16, 32, 2, 8, conv_pos=8, conv_pos_groups=4)))
MOBILE = EncoderShape("efficientat", asdict(MobileNetSize(0.1)))


def weights(shape: EncoderShape, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = build_encoder(shape).state_dict()
    return {
        name: torch.tensor(7) if tensor.ndim == 0 else torch.rand(tensor.shape, generator=generator) + 0.1
        for name, tensor in state.items()
    }


def ced_file(path: Path, own: Mapping[str, Tensor]) -> None:
    """As published at Zenodo: names at the top, the batch norm second of a sequence, spectra and head beside it."""
    named = {name.replace("init_bn.", "init_bn.1."): tensor for name, tensor in own.items()}
    named |= {"front_end.0.spectrogram.window": torch.ones(512), "front_end.0.mel_scale.fb": torch.ones(257, 64)}
    named |= {"outputlayer.0.weight": torch.ones(16), "outputlayer.1.bias": torch.ones(527)}
    torch.save(named, path)


def hub_file(path: Path, own: Mapping[str, Tensor]) -> None:
    """As published at Hugging Face: all in an `encoder`."""
    named = {f"encoder.{name}": tensor.contiguous() for name, tensor in own.items()}
    save_file(
        {**named, "encoder.front_end.spectrogram_window": torch.ones(512), "outputlayer.bias": torch.ones(5)}, path
    )


def dasheng_file(path: Path, own: Mapping[str, Tensor]) -> None:
    """As published at Zenodo: in `model`, with the decoder of the pre-training."""
    named = {f"encoder.{name.replace('init_bn.', 'init_bn.1.')}": tensor for name, tensor in own.items()}
    torch.save({"model": {**named, "decoder.mask_token": torch.ones(1, 1, 4)}, "config": {"lr": 1e-3}}, path)


def beats_file(path: Path, own: Mapping[str, Tensor], **more: Any) -> None:
    """As published: `cfg` and `model`; the convolution in two parts, the table of positions once more in each block."""
    named = dict(own)
    kernel = named.pop("encoder.pos_conv.0.weight")
    length = kernel.norm(dim=(0, 1), keepdim=True)
    named["encoder.pos_conv.0.weight_g"], named["encoder.pos_conv.0.weight_v"] = length, 3 * kernel
    table = "self_attn.relative_attention_bias.weight"
    named[f"encoder.layers.1.{table}"] = named[f"encoder.layers.0.{table}"]
    named |= {"predictor.weight": torch.ones(527, 16), "predictor.bias": torch.ones(527)}
    fixed = {"relative_position_embedding": True, "gru_rel_pos": True, "activation_fn": "gelu", "dropout": 0.1}
    torch.save({"cfg": {**BEATS.size, **fixed, **more}, "model": named}, path)


def mobile_file(path: Path, own: Mapping[str, Tensor]) -> None:
    """As published: names at the top, with the classifier."""
    torch.save({**own, "classifier.2.weight": torch.ones(512, 96), "classifier.5.bias": torch.ones(527)}, path)


@pytest.mark.parametrize(
    ("shape", "write", "name"),
    [
        (CED, ced_file, "audiotransformer_tiny_mAP_4814.pt"),
        (CED, hub_file, "model.safetensors"),
        (DASHENG, dasheng_file, "dasheng_base.pt"),
        (BEATS, beats_file, "BEATs_iter3_plus_AS2M.pt"),
        (MOBILE, mobile_file, "mn04_as_mAP_432.pt"),
    ],
)
def test_released_file_gives_every_weight_its_place(
    shape: EncoderShape, write: Callable[[Path, Mapping[str, Tensor]], None], name: str, tmp_path: Path
) -> None:
    own = weights(shape)
    write(tmp_path / name, own)
    found = load_encoder(str(tmp_path / name), shape)
    assert found.encoder.shape == shape
    for key, tensor in found.encoder.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, own[key], msg=key)


def test_repository_is_fetched_by_its_name(tmp_path: Path) -> None:
    own = weights(CED)
    hub_file(tmp_path / "model.safetensors", own)
    asked = []

    def download(*what: str | None) -> Path:
        asked.append(what)
        return tmp_path / "model.safetensors"

    found = load_encoder("mispeech/ced-tiny@main", CED, download)
    assert asked == [("mispeech/ced-tiny", "model.safetensors", "main")]
    torch.testing.assert_close(found.encoder.state_dict()["norm.weight"], own["norm.weight"])


def test_beats_has_the_size_that_its_file_says(tmp_path: Path) -> None:
    beats_file(tmp_path / "beats.pt", weights(BEATS))
    found = load_encoder(str(tmp_path / "beats.pt"), EncoderShape("beats", asdict(BeatsSize())))
    assert found.encoder.shape == BEATS


def test_mobilenet_that_excites_bands_too_is_told_by_its_file(tmp_path: Path) -> None:
    both = EncoderShape("efficientat", asdict(MobileNetSize(0.1, "cf")))
    mobile_file(tmp_path / "mn.pt", weights(both))
    assert load_encoder(str(tmp_path / "mn.pt"), MOBILE).encoder.shape == both


def without(own: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in own.items() if name != key}


def test_file_that_does_not_fit_is_an_error_with_file_key_and_shapes(tmp_path: Path) -> None:
    path = tmp_path / "wrong.pt"
    own = weights(CED)
    for broken, said in (
        ({**own, "norm.weight": torch.ones(9)}, "norm.weight has shape [9], expected [16]"),
        (without(own, "blocks.1.mlp.fc2.bias"), "blocks.1.mlp.fc2.bias is missing, expected shape [16]"),
        ({**own, "blocks.2.norm1.weight": torch.ones(16)}, "blocks.2.norm1.weight: ced dim 16, depth 2"),
        ({**own, "norm.bias": torch.full((16,), float("nan"))}, "norm.bias holds numbers that are not finite"),
    ):
        ced_file(path, broken)
        with pytest.raises(StageError) as refused:
            load_encoder(str(path), CED)
        assert str(path) in str(refused.value)
        assert said in str(refused.value)
    torch.save({"epoch": 3}, path)
    with pytest.raises(StageError, match="holds no weights"):
        load_encoder(str(path), CED)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"layer_norm_first": True}, "cfg.layer_norm_first is True, and only False is known here"),
        ({"encoder_layers": "twelve"}, "cfg.encoder_layers is 'twelve', which is no size"),
        ({"encoder_layers": -1}, "cfg.encoder_layers is -1, which is no size"),
        ({"encoder_layers": 3}, "encoder.layers.2.self_attn.grep_a is missing, expected shape [1, 2, 1, 1]"),
        ({"encoder_attention_heads": 3}, "beats can't have the size"),
        ({"conv_pos_groups": 5}, "beats can't have the size"),
    ],
)
def test_beats_configured_otherwise_is_refused(more: dict[str, Any], said: str, tmp_path: Path) -> None:
    beats_file(tmp_path / "beats.pt", weights(BEATS), **more)
    with pytest.raises(StageError) as refused:
        load_encoder(str(tmp_path / "beats.pt"), BEATS)
    assert said.split(maxsplit=1)[0] in str(refused.value)
    assert str(tmp_path / "beats.pt") in str(refused.value) or "can't have" in str(refused.value)


def test_eat_of_another_size_is_refused(tmp_path: Path) -> None:
    made = build_encoder(EncoderShape("eat", asdict(EatSize(128, 4, 4))))
    state = {f"model.{name.removeprefix('eat.')}": nn.init.ones_(t.clone()) for name, t in made.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    found = load_encoder(str(tmp_path), EncoderShape("eat", asdict(EatSize(128, 4, 4))))
    assert found.encoder(torch.zeros(1, 1024, 128)).shape == (1, 62, 8, 128)
    with pytest.raises(StageError, match=r"dim 128, depth 4, heads 4, but encoder.size asks for dim 192"):
        load_encoder(str(tmp_path), EncoderShape("eat", asdict(EatSize(192, 12, 3))))
