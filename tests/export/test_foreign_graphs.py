"""`onnx:FILE`: a graph of another program as a frozen encoder, from its file to the daemon's score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from asd_daemon.errors import SettingsError, StageError
from asd_daemon.judge.bundle.bundle import load_bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_trainer.cli.program import main as train_main
from asd_trainer.data.dataset import load_clip, read_dataset
from asd_trainer.evaluate.backend import score_run
from asd_trainer.networks.encoders.front_ends import YamnetFrontEnd
from asd_trainer.networks.encoders.interface import EncoderShape
from asd_trainer.networks.encoders.onnx_graph import read_onnx_encoder
from asd_trainer.networks.frozen import FrozenEmbedder, FrozenShape
from asd_trainer.recipe.recipe import load_recipe
from rig.exports import export
from rig.foreign_graphs import write_matrix_graph
from rig.tones import write_tones

pytestmark = pytest.mark.torch


def matrix(rows: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, rows**-0.5, (rows, channels)).astype(np.float32)


WINDOW = 0.1 * torch.randn(1, 160_000, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("takes", "tokens"),
    [
        (("batch", 160_000), (1, 1, 5)),
        (("batch", 1, "samples"), (1, 1, 5)),
        (("samples",), (1, 1, 5)),
        (("batch", 15_600), (10, 1, 5)),
        (("patches", 96, 64), (19, 96, 5)),
        (("patches", 1, 96, 64), None),
        (("batch", 1024, 128), (1024, 1, 5)),
    ],
)
def test_graph_is_served_what_it_takes_and_gives_tokens(
    takes: tuple[int | str, ...], tokens: tuple[int, ...] | None, tmp_path: Path
) -> None:
    file = write_matrix_graph(tmp_path / "graph.onnx", takes, 5)
    if tokens is None:
        with pytest.raises(StageError, match="expected a vector or tokens"):
            read_onnx_encoder(str(file))
        return
    encoder = read_onnx_encoder(str(file))
    assert encoder.size.tokens == tokens
    sound = torch.zeros(1, 1024, 128) if encoder.hears == "features" else WINDOW
    found = encoder(sound)
    assert found.shape == (1, *tokens)
    if encoder.hears == "features":
        return
    width = takes[-1] if isinstance(takes[-1], int) else 160_000
    served = YamnetFrontEnd()(WINDOW).flatten() if "patches" in takes else WINDOW[0, : 160_000 // width * width]
    expected = served.numpy().reshape(-1, width) @ matrix(width, 5)
    np.testing.assert_allclose(found[0].reshape(-1, 5).numpy(), expected, atol=1e-4)


def test_run_folder_holds_the_graph_and_the_bundle_scores_as_the_run(tmp_path: Path) -> None:
    data = write_tones(tmp_path / "data", train=2, test=1)
    file = write_matrix_graph(tmp_path / "graph.onnx", ("batch", 15_600), 6, second_output=True)
    run, keys = tmp_path / "run", (f"encoder.name=onnx:{file}#squashed", "frozen.pooling=statistics")
    words = [
        "run",
        "frozen",
        "--data",
        data,
        "--out",
        run,
        *(w for key in keys for w in ("--set", key)),
        "--threads",
        "1",
    ]
    result = CliRunner().invoke(train_main, [*map(str, words)])
    assert result.exit_code == 0, result.output
    assert "UNTRAINED" not in result.stderr
    file.unlink()
    exported = export(run, tmp_path / "bundle", "--no-test", "--fp32")
    assert exported.exit_code == 0, exported.output
    bundle = load_bundle(tmp_path / "bundle")
    for one in score_run(run, read_dataset([data])).test[::2]:
        scored = Scorer(bundle, one.clip.machine).score(load_clip(one.clip)).score
        assert scored == pytest.approx(one.score, abs=1e-4)


def test_several_windows_are_embedded_as_each_alone(tmp_path: Path) -> None:
    encoder = read_onnx_encoder(str(write_matrix_graph(tmp_path / "graph.onnx", ("patches", 96, 64), 3)))
    embedder = FrozenEmbedder(FrozenShape(EncoderShape("onnx", encoder.shape.size), pooling="statistics"))
    embedder.encoder.load_state_dict(encoder.state_dict())
    two = torch.cat([WINDOW, WINDOW.flip(1)])
    torch.testing.assert_close(embedder(two), torch.cat([embedder(two[:1]), embedder(two[1:])]))
    assert embedder.dimensions == 2 * 96 * 3


def test_graphs_that_are_no_encoders_are_refused_with_file_and_shapes(tmp_path: Path) -> None:
    file = tmp_path / "graph.onnx"
    for takes, second, output, said in (
        (("batch", 40, 513), False, "", "takes ['batch', 40, 513], expected a waveform"),
        ((1, 15_600), False, "", "takes [1, 15600], expected a waveform"),
        (("batch", 160_000), True, "", f"has the outputs tokens, squashed: name one, for example onnx:{file}#squashed"),
        (("batch", 160_000), True, "#none", "has the outputs tokens, squashed"),
    ):
        write_matrix_graph(file, takes, 4, second_output=second)
        with pytest.raises(StageError) as refused:
            read_onnx_encoder(f"{file}{output}")
        assert str(refused.value).startswith(f"{file}: ")
        assert said in str(refused.value)
    file.write_bytes(b"no graph")
    with pytest.raises(StageError, match="onnxruntime can't load this model"):
        read_onnx_encoder(str(file))
    with pytest.raises(StageError, match="can't be read: No such file"):
        read_onnx_encoder(str(tmp_path / "none.onnx"))


def test_graph_can_not_be_fine_tuned() -> None:
    with pytest.raises(SettingsError, match=r"encoder.name: onnx:a.onnx can't learn; set frozen.enabled to true"):
        load_recipe("smoke", ["encoder.name=onnx:a.onnx", "finetune.kept_patches=1"])
