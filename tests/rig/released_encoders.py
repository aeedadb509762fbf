"""Small files of encoders in the form in which large ones are released, with weights drawn here."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from asd_trainer.networks.encoders.beats import Beats, BeatsSize

SMALL_BEATS = BeatsSize(2, 32, 64, 4, 24, conv_pos=8, conv_pos_groups=4)


def write_small_beats(path: Path, seed: int = 0) -> Path:
    """A checkpoint with `cfg` and `model`, the positions' convolution with its weight norm; gives the path."""
    encoder = Beats(SMALL_BEATS)
    encoder.initialise(torch.Generator().manual_seed(seed))
    state = encoder.state_dict()
    kernel = state.pop("encoder.pos_conv.0.weight")
    state["encoder.pos_conv.0.weight_v"] = kernel
    state["encoder.pos_conv.0.weight_g"] = kernel.norm(dim=(0, 1), keepdim=True)
    torch.save({"cfg": {**asdict(SMALL_BEATS), "layer_norm_first": False, "dropout": 0.1}, "model": state}, path)
    return path
