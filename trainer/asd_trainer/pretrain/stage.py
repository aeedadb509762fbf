"""Pre-training of EAT without labels: the utterance-frame objective (Chen et al., arXiv 2401.03497; paper, section 2.2).

Owns student and teacher, the watch for a collapse, what a step is trained on, and the two phases of the stage. Formulas, masks,
decoder and loop lie elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asd_daemon.errors import SettingsError
from asd_daemon.judge.features.log_mel import EAT_MEAN, EAT_STD
from asd_trainer.data.feature_rows import FeatureRows, at_hand
from asd_trainer.data.features import LOG_FLOOR, NEPERS_PER_DB
from asd_trainer.networks.decoder import Decoder
from asd_trainer.networks.eat import PATCH, Eat
from asd_trainer.networks.weights import save_encoder
from asd_trainer.pretrain.masks import draw_masks
from asd_trainer.pretrain.objective import layer_targets, patch_deviation, teacher_decay, utterance_frame_losses
from asd_trainer.recipe.pretraining import PretrainRecipe
from asd_trainer.training.loop import even_share, train
from asd_trainer.training.prefetch import PrefetchedTask
from asd_trainer.training.processes import processes

log = logging.getLogger(__name__)

COLLAPSED = {"target_deviation": 0.1, "prediction_deviation": 0.01}
"""Deviations below which targets or predictions are as good as equal for all patches: those at which the released code stops."""
SILENCE_MARGIN = 1e-3  # nepers above the floor of the log-mel that still count as digital silence


class Pretrainer(nn.Module):
    """Student, teacher and decoder; called with a batch it gives loss and counters.

    The student starts as `encoder`, whose weights it moves in place; the teacher as a copy of it. With `encoder_learns` off only the
    decoder learns.
    """

    averaged: Tensor

    def __init__(self, encoder: Eat, settings: PretrainRecipe, generator: torch.Generator) -> None:
        super().__init__()
        if encoder.size.dim % settings.decoder.groups:
            raise SettingsError(
                f"pretrain.decoder.groups: {settings.decoder.groups} does not divide the encoder's {encoder.size.dim} channels"
            )
        self.student = encoder
        self.teacher = encoder.copy().requires_grad_(requires_grad=False).eval()
        self.decoder = Decoder(encoder.size.dim, settings.decoder)
        self.decoder.initialise(generator)
        self.register_buffer("averaged", torch.zeros((), dtype=torch.int64))  # updates that the teacher has taken in
        self._settings = settings
        self._collapsed: set[str] = set()

    def train(self, mode: bool = True) -> Pretrainer:
        """Switch student and decoder; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def encoder_learns(self, learns: bool) -> None:
        """Let the student learn with the decoder, or leave it as it is."""
        self.student.requires_grad_(learns)

    def forward(
        self, features: Tensor, kept: Tensor, masked: Tensor, noise_seeds: Tensor, step: Tensor, sequences: Tensor
    ) -> dict[str, Tensor]:
        """Loss and counters of a batch.

        Args:
            features: normalised log-mels, (B, T, 128).
            kept: patches that the student sees, int64 (B, clones, K).
            masked: the others, int64 (B, clones, M).
            noise_seeds: of the noise in the decoder's input, int64 (B,).
            step: updates done so far, int64 scalar. The teacher follows here, at the start of the step after an update.
            sequences: masked clips of the step over all processes, whose gradients are averaged, int64 scalar.
        """
        self._average(int(step))
        decay, part = (
            teacher_decay(int(step), self._settings.teacher),
            masked.shape[2] / (masked.shape[2] + kept.shape[2]),
        )
        noise = self._noise(noise_seeds, masked.shape, features)
        figures = self.objective(features, kept, masked, noise, int(sequences))
        figures["teacher_decay"] = torch.tensor(decay, device=features.device)
        figures["masked"] = torch.tensor(part, device=features.device)
        self._watch(int(step), figures)
        return figures

    def objective(
        self, features: Tensor, kept: Tensor, masked: Tensor, noise: Tensor, sequences: int
    ) -> dict[str, Tensor]:
        """Losses and deviations of a batch, as `forward` takes it, with the decoder's noise (B · clones, M, dim)."""
        kept, masked = kept.flatten(0, 1), masked.flatten(0, 1)  # (S, K), (S, M) with S = B · clones
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            targets = layer_targets(self.teacher.layers(features))
        tokens = self._encode_clones(features, kept)  # (S, 1 + K, dim)
        predictions = self.decoder(tokens[:, 1:], kept, masked, noise)
        losses = utterance_frame_losses(predictions, tokens[:, 0], targets, masked)
        return {
            "loss": losses.frame + self._utterance_share(sequences) * losses.utterance,
            "frame_loss": losses.frame,
            "utterance_loss": losses.utterance,
            "target_deviation": patch_deviation(targets),
            "prediction_deviation": patch_deviation(predictions),
        }

    def _utterance_share(self, sequences: int) -> float:
        """Factor of the mean utterance loss."""
        return self._settings.utterance_weight * (sequences if self._settings.utterance_reduction == "sum" else 1)

    def _average(self, updates: int) -> None:
        """Let the teacher follow the student, once after each update."""
        if updates <= int(self.averaged):
            return
        with torch.no_grad():
            share = 1.0 - teacher_decay(updates, self._settings.teacher)
            for follower, leader in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                follower.lerp_(leader, share)
            self.averaged.fill_(updates)

    def _encode_clones(self, features: Tensor, kept: Tensor) -> Tensor:
        """Encode each clip under all its masks, (S, 1 + K, dim); its patches are embedded once, for all masks together."""
        B, S = features.shape[0], kept.shape[0]
        embedded = self.student.embed_patches(features, kept.reshape(B, -1))  # (B, 1 + clones · K, dim)
        cls = embedded[:, :1].repeat_interleave(S // B, dim=0)  # (S, 1, dim)
        tokens = torch.cat([cls, embedded[:, 1:].reshape(S, kept.shape[1], -1)], dim=1)
        for block in self.student.blocks:
            tokens = block(tokens).out
        return tokens

    def _noise(self, seeds: Tensor, masked: torch.Size, like: Tensor) -> Tensor:
        """Noise (S, M, dim) for masks (B, clones, M); a clip's follows from its seed, whichever process trains on it."""
        shape = (*masked[1:], self.student.size.dim)
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds.tolist()]
        return torch.cat(drawn).to(like) * self._settings.decoder.noise

    def _watch(self, step: int, figures: dict[str, Tensor]) -> None:
        """Warn when targets or predictions turn into a constant, and again only after they have recovered."""
        for name, limit in COLLAPSED.items():
            deviation = float(figures[name])
            # Predictions start near a constant: they are judged once the learning rate has had its time.
            if deviation >= limit or step < self._settings.optimiser.warmup_ratio * self._settings.steps:
                self._collapsed.discard(name)
            elif name not in self._collapsed:
                self._collapsed.add(name)
                log.warning(
                    "pretrain: %s fell to %.2g at step %d: the encoder is collapsing to a constant; lower "
                    "pretrain.optimiser.learning_rate or raise pretrain.teacher.decay",
                    name.replace("_", " "),
                    deviation,
                    step + 1,
                )


class PretrainingTask:
    """Pre-training as the training loop sees it.

    Args:
        model: what is trained.
        log_mels: cache of clips, (N, T, 128).
        settings: the recipe's part.
        seed: of the run.
        fingerprint: names the data.
        decoder_alone: the phase before, in which the decoder alone learns.
    """

    def __init__(
        self,
        model: Pretrainer,
        log_mels: FeatureRows,
        settings: PretrainRecipe,
        *,
        seed: int,
        fingerprint: str,
        decoder_alone: bool = False,
    ) -> None:
        self.model, self.seed, self.fingerprint = model, seed, fingerprint
        self.name = "pretrain (decoder alone)" if decoder_alone else "pretrain"
        self.steps = settings.decoder.warmup_steps if decoder_alone else settings.steps
        self._stream = int(decoder_alone)
        self._log_mels, self._settings = log_mels, settings
        self._batch_clips = min(settings.batch_clips, len(log_mels))
        self._epoch_steps = len(log_mels) // self._batch_clips

    def batch(self, step: int, rank: int, world: int) -> dict[str, Tensor]:
        """Part of the batch of a step; follows from the seed and the step."""
        epoch, position = divmod(step, self._epoch_steps)
        order = np.random.default_rng([self.seed, self._stream, 0, epoch]).permutation(len(self._log_mels))
        rows = order[position * self._batch_clips : (position + 1) * self._batch_clips]
        rng = np.random.default_rng([self.seed, self._stream, 1, step])
        B, clones = len(rows), self._settings.mask.clones
        starts, gains_db = rng.random(B), rng.uniform(-1, 1, B) * self._settings.gain_db
        noise_seeds = rng.integers(0, 2**63, B)
        masks = draw_masks(B * clones, self._settings.crop_frames // PATCH, self._settings.mask, rng)
        part = even_share(B, rank, world, "pretrain.batch_clips")
        heard = at_hand(self._log_mels, rows[part])
        pieces = [
            cut_piece(heard[row], self._settings.crop_frames, start, gain_db)
            for row, start, gain_db in zip(rows[part], starts[part], gains_db[part], strict=True)
        ]
        return {
            "features": torch.from_numpy(np.stack(pieces)),
            "kept": torch.from_numpy(masks.kept.reshape(B, clones, -1)[part]),
            "masked": torch.from_numpy(masks.masked.reshape(B, clones, -1)[part]),
            "noise_seeds": torch.from_numpy(noise_seeds[part]),
            "step": torch.tensor(step if not self._stream else 0),
            "sequences": torch.tensor(B * clones),
        }


def cut_piece(log_mel: NDArray[np.float32], frames: int, start: float, gain_db: float) -> NDArray[np.float32]:
    """A piece of a log-mel (T, 128), normalised for EAT, (frames, 128).

    `start` in [0, 1) says where it begins, between the first frame and the last that leaves a whole piece of sound: digital silence
    that a short clip was filled up with is no sound. What a clip lacks is padded as EAT pads.
    """
    sounding = np.flatnonzero(log_mel.max(axis=1) > LOG_FLOOR + SILENCE_MARGIN)
    end = int(sounding[-1]) + 1 if sounding.size else log_mel.shape[0]
    first = int(start * (max(end - frames, 0) + 1))
    piece = np.maximum(log_mel[first : first + frames] + np.float32(gain_db * NEPERS_PER_DB), np.float32(LOG_FLOOR))
    fitted = np.zeros((frames, log_mel.shape[1]), np.float32)
    fitted[: piece.shape[0]] = piece
    return (fitted - np.float32(EAT_MEAN)) / np.float32(2 * EAT_STD)


def pretrain_encoder(
    encoder: Eat,
    log_mels: FeatureRows,
    settings: PretrainRecipe,
    folder: Path,
    *,
    seed: int,
    fingerprint: str,
    decoder: Mapping[str, Tensor] | None = None,
    teacher: Mapping[str, Tensor] | None = None,
) -> None:
    """Pre-train an encoder in place and leave encoder.safetensors and history.jsonl in the folder; goes on where it was stopped.

    The last checkpoints stay: who marks the stage as done removes them.

    Where the recipe says so the decoder learns alone first (its history is in `decoder/`), so that an encoder that comes without
    one is not pulled about by random convolutions.

    Args:
        encoder: fresh, or with the weights of an earlier stage.
        log_mels: cache of clips, (N, T, 128).
        settings: the recipe's part.
        folder: of the stage.
        seed: of the run.
        fingerprint: names the data.
        decoder: weights that came with the encoder's; must be all that the recipe's decoder has, or none.
        teacher: weights of the running average that came with the encoder's, which it goes on from; by default it starts as the encoder.

    Raises:
        SettingsError: the recipe's decoder does not fit the encoder or the weights.
        StageError: a checkpoint does not fit, training diverged, or the folder can't be written.
        Interrupted: asked to stop; the next call goes on.
    """
    model = Pretrainer(encoder, settings, torch.Generator().manual_seed(seed))
    if decoder:
        model.decoder.load(decoder)
    if teacher:
        model.teacher.load_state_dict(dict(teacher))
    alone, task = (
        PretrainingTask(model, log_mels, settings, seed=seed, fingerprint=fingerprint, decoder_alone=first)
        for first in (True, False)
    )
    if alone.steps:
        (folder / "decoder").mkdir(parents=True, exist_ok=True)
        model.encoder_learns(learns=False)
        train(PrefetchedTask(alone), settings.optimiser, folder / "decoder", at_once=settings.micro_clips)
        model.encoder_learns(learns=True)
    train(PrefetchedTask(task), settings.optimiser, folder, at_once=settings.micro_clips)
    together = processes()
    if together.is_main_process:
        save_encoder(encoder, folder)
    together.wait_for_everyone()  # no process may mark the stage as done before its weights are on disk
