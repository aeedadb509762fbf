"""Judging a separation: signal-to-noise ratios, the training loss, and the door through which recordings are separated.

Owns the formulas of sections 3 and 4 of SepReformer (arXiv 2406.05983) as far as two sources in a fixed order need them.
It builds no network and no mixtures, and trains nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asd_daemon.errors import RecordingError
from asd_daemon.waveform import SAMPLE_RATE_HZ
from asd_trainer.networks.separator import Separation, Separator

CLAMP_DB = 30.0  # beyond it a better separation is not rewarded
RESOLUTIONS_SAMPLES = (512, 2048)  # 32 ms as in the paper, and 128 ms, which tells the tones of a machine apart
AUXILIARY_WEIGHT = 0.4
_EPOCHS, _FIRST_FADING_EPOCH, _FADE_EVERY_EPOCHS, _FADE = 200, 100, 5, 0.8  # of the published training
_TINY = 1e-8


def si_snr_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Scale-invariant signal-to-noise ratio in dB, over the last axis; the means are removed (arXiv 1809.07454).

    A target without sound has no such ratio: the result is then about −80 dB, never infinite.
    """
    estimate = estimate - estimate.mean(dim=-1, keepdim=True)
    target = target - target.mean(dim=-1, keepdim=True)
    energy = target.square().sum(dim=-1, keepdim=True)
    heard = (estimate * target).sum(dim=-1, keepdim=True) / (energy + _TINY) * target
    return _ratio_db(heard.square().sum(dim=-1), (estimate - heard).square().sum(dim=-1))


def snr_db(estimate: Tensor, target: Tensor) -> Tensor:
    """Signal-to-noise ratio in dB over the last axis: a wrong level counts as an error."""
    return _ratio_db(target.square().sum(dim=-1), (target - estimate).square().sum(dim=-1))


def spectral_si_snr_db(estimate: Tensor, target: Tensor, frame_samples: int) -> Tensor:
    """Scale-invariant ratio in dB between magnitude spectrograms, (…, samples) → (…): deaf to phase.

    Hann window, half a frame as hop. The target may lack leading axes of the estimate.
    """
    return si_snr_db(_magnitudes(estimate, frame_samples), _magnitudes(target, frame_samples))


def auxiliary_weight(step: int, steps: int) -> float:
    """Share of the auxiliary heads in the loss of a step of a training of so many, which stands for the 200 epochs of the paper's."""
    epoch = step * _EPOCHS // steps
    fadings = max(0, epoch - _FIRST_FADING_EPOCH + _FADE_EVERY_EPOCHS) // _FADE_EVERY_EPOCHS
    return AUXILIARY_WEIGHT * _FADE**fadings


def separation_loss(separation: Separation, sources: Tensor, auxiliary: float) -> Tensor:
    """The loss in dB of a batch, lower is better; sources: the truth (B, 2, samples).

    The outputs are judged by SI-SNR and by SNR in equal parts: the first is what is measured, the second ties the level,
    so that a machine separated well is as loud as it was in the recording. The decoder stages are judged by their
    spectra at several resolutions. `auxiliary` in [0, 1] is the stages' share.
    """
    direct = 0.5 * _clamped(si_snr_db(separation.sources, sources)) + 0.5 * _clamped(
        snr_db(separation.sources, sources)
    )
    loss = -(1.0 - auxiliary) * direct.mean()
    if auxiliary > 0.0 and separation.stages:
        stages = torch.stack(separation.stages)  # (R, B, 2, samples)
        for frame_samples in RESOLUTIONS_SAMPLES:
            heard = _clamped(spectral_si_snr_db(stages, sources, frame_samples))
            loss = loss - auxiliary / len(RESOLUTIONS_SAMPLES) * heard.mean()
    return loss


def separate(network: Separator, recording: NDArray[np.float32]) -> NDArray[np.float32]:
    """Split one recording (samples,) into float32 (2, samples): machine, noise, whose sum is the recording.

    Raises:
        RecordingError: samples that are not finite, silence, or less sound than the network's bottleneck needs.
    """
    check_recording(recording, network.shortest_samples)
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        sources: NDArray[np.float32] = network(torch.from_numpy(recording).to(device)[None])[0].cpu().numpy()
    network.train(was_training)
    return sources


def check_recording(
    recording: NDArray[np.float32], shortest_samples: int, name: str = "recording", *, silence: bool = False
) -> None:
    """Refuse what can't be separated; `silence` allows sound that is all zeros.

    Raises:
        RecordingError: not one channel, too short, not finite, or without any sound.
    """
    if recording.ndim != 1:
        raise RecordingError(f"{name}: has shape {recording.shape}; give one channel, shape (samples,)")
    if recording.shape[0] < shortest_samples:
        raise RecordingError(
            f"{name}: {recording.shape[0]} samples ({recording.shape[0] / SAMPLE_RATE_HZ:.3f} s at 16 kHz) are too short"
            f" to be separated; give at least {shortest_samples}"
        )
    finite = np.isfinite(recording)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise RecordingError(f"{name}: sample {bad} is {recording[bad]}; only finite numbers can be separated")
    if not silence and not recording.any():
        raise RecordingError(f"{name}: all {recording.shape[0]} samples are zero; silence can't be separated")


def _clamped(ratio_db: Tensor) -> Tensor:
    return ratio_db.clamp(max=CLAMP_DB)


def _ratio_db(signal: Tensor, error: Tensor) -> Tensor:
    return 10.0 * torch.log10((signal + _TINY) / (error + _TINY))


def _magnitudes(waveform: Tensor, frame_samples: int) -> Tensor:
    """(…, samples) → (…, frames · frequencies), of the whole frames.

    Raises:
        RecordingError: not even one frame.
    """
    if waveform.shape[-1] < frame_samples:
        raise RecordingError(f"{waveform.shape[-1]} samples are too short for spectra of {frame_samples} samples")
    window = torch.hann_window(frame_samples, dtype=waveform.dtype, device=waveform.device)
    frames = waveform.unfold(-1, frame_samples, frame_samples // 2)
    spectrum = torch.fft.rfft(frames * window)  # several times faster backwards than torch.stft
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-10).flatten(-2)
