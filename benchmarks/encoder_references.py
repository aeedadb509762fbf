"""Our CED, Dasheng and BEATs front ends beside the authors' own packages, which nothing here depends on.

    pip install --no-deps --target FOLDER dasheng einops loguru torchaudio; rm -r FOLDER/torchaudio/lib
    OMP_NUM_THREADS=1 python benchmarks/encoder_references.py FOLDER

Small networks of the package `dasheng` (Dinkel) with weights drawn at random are saved, read by us, and given the same sound; CED is the
same transformer with square patches. Prints the largest differences.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from asd_trainer.networks.encoders.front_ends import KaldiFrontEnd, htk_filters, kaldi_filters
from asd_trainer.networks.encoders.interface import EncoderShape
from asd_trainer.networks.encoders.patch_transformer import PatchTransformerSize
from asd_trainer.networks.encoders.released import load_encoder

FAMILIES = {"dasheng": (64, 4, 1008), "ced": (16, 16, 1012)}


def drawn(network: nn.Module) -> nn.Module:
    """A network with weights and statistics drawn at random."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    for name, statistic in network.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(statistic, -20, 5)
        if name.endswith("running_var"):
            nn.init.uniform_(statistic, 50, 200)
    return network.eval()


def sound() -> Tensor:
    """A window of noise with a quiet middle."""
    window = 0.1 * torch.randn(1, 160_000, generator=torch.Generator().manual_seed(1))
    window[:, 60_000:100_000] *= 1e-4
    return window


def transformer_difference(package: Any, family: str, folder: Path) -> str:
    """Of tokens, beside their largest."""
    bands, frames, length = FAMILIES[family]
    patch = [bands, frames]
    theirs = drawn(
        package.Dasheng(embed_dim=64, depth=3, num_heads=4, target_length=length, patch_size=patch, patch_stride=patch)
    )
    torch.save(theirs.state_dict(), folder / f"{family}.pt")
    size = PatchTransformerSize(64, 3, 4, bands, frames, length // frames)
    ours = load_encoder(str(folder / f"{family}.pt"), EncoderShape(family, asdict(size))).encoder.eval()
    with torch.inference_mode():
        expected = theirs(sound())  # (B, F · T, C)
        found = ours(sound()).transpose(1, 2).flatten(1, 2)
    return f"{family}: tokens {float((found - expected).abs().max()):.1e} of {float(expected.abs().max()):.2f}"


def main() -> None:
    """Print the differences."""
    sys.path.append(sys.argv[1])
    package = import_module("dasheng.pretrained.pretrained")
    kaldi, audio = import_module("torchaudio.compliance.kaldi"), import_module("torchaudio.functional")
    torch.manual_seed(0)
    with TemporaryDirectory() as folder:
        lines = [transformer_difference(package, family, Path(folder)) for family in FAMILIES]
    fbank = kaldi.fbank(sound() * 2**15, num_mel_bins=128, sample_frequency=16_000, frame_length=25, frame_shift=10)
    with torch.inference_mode():
        own = KaldiFrontEnd()(sound())[0] * 2 * KaldiFrontEnd.DEVIATION + KaldiFrontEnd.MEAN
    lines.append(f"beats: fbank {float((own - fbank).abs().max()):.1e} (natural logarithm)")
    banks, _ = kaldi.get_mel_banks(128, 1024, 32_000, 0.0, 15_000.0, 100.0, -500.0, 1.0)
    filters = torch.from_numpy(kaldi_filters(128, 1024, 32_000, 15_000)[:, :-1])
    lines.append(f"efficientat: mel filters {float((filters - banks).abs().max()):.1e}")
    htk = audio.melscale_fbanks(257, 0.0, 8000.0, 64, 16_000).T
    lines.append(
        f"ced, dasheng: mel filters {float((torch.from_numpy(htk_filters(64, 512, 16_000)) - htk).abs().max()):.1e}"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
