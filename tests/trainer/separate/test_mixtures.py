from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.separate.mixtures import Material, MixtureRule, crop, draw, draw_batch, mix

F32 = NDArray[np.float32]
RULE = MixtureRule(crop_samples=4000, snr_db=(-12.0, 3.0), level_dbfs=(-40.0, -20.0), second_noise=0.5)


def level_dbfs(sound: F32) -> float:
    return float(10 * np.log10(np.mean(np.square(sound, dtype=np.float64))))


def material(seed: int = 0) -> Material:
    rng = np.random.default_rng(seed)
    sounds = [
        (scale * rng.standard_normal(n)).astype(np.float32)
        for scale, n in ((0.1, 9000), (0.001, 4000), (0.3, 700), (0.01, 20_000))
    ]
    return Material(machines=tuple(sounds[:2]), noises=tuple(sounds[2:]))


def test_draw_keeps_ratio_and_level_within_the_rule() -> None:
    rng = np.random.default_rng(1)
    examples = [draw(material(), RULE, rng) for _ in range(60)]
    ratios = np.array([level_dbfs(machine) - level_dbfs(noise) for machine, noise in examples])
    levels = np.array([level_dbfs(example.sum(axis=0)) for example in examples])
    assert examples[0].shape == (2, 4000)
    assert examples[0].dtype == np.float32
    assert -12.01 < ratios.min() < -9 < 0 < ratios.max() < 3.01
    assert -40.01 < levels.min() < -37 < -23 < levels.max() < -19.99


def test_draw_with_same_generator_gives_same_examples() -> None:
    first, second = (draw_batch(material(), RULE, 5, np.random.default_rng((3, 4))) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - draw_batch(material(), RULE, 5, np.random.default_rng((3, 5)))).max() > 0.001


def test_draw_from_noise_with_pauses_never_takes_a_pause() -> None:
    click = np.zeros(200_000, np.float32)
    click[123_456] = 0.5
    pausing = Material(machines=material().machines, noises=(click,))
    rng = np.random.default_rng(0)
    for _ in range(10):
        example = draw(pausing, RULE, rng)
        assert np.isfinite(example).all()
        assert np.abs(example[1]).max() > 0


@pytest.mark.parametrize(("machines", "noises", "what"), [((), (1.0,), "machine"), ((1.0,), (0.0, 0.0), "noise")])
def test_material_without_sound_is_refused(machines: tuple[float, ...], noises: tuple[float, ...], what: str) -> None:
    def sounds(levels: tuple[float, ...]) -> tuple[F32, ...]:
        return tuple(np.full(100, level, np.float32) for level in levels)

    with pytest.raises(DataSetError, match=f"no {what} sound"):
        Material(machines=sounds(machines), noises=sounds(noises))


def test_draw_at_double_speed_raises_the_pitch_of_the_noise_only() -> None:
    time_s = np.arange(30_000) / 16_000
    machine, noise = (np.sin(2 * np.pi * pitch_hz * time_s).astype(np.float32) for pitch_hz in (500, 1000))
    rule = MixtureRule(4000, (0.0, 0.0), (-20.0, -20.0), second_noise=0.0, noise_speed=(2.0, 2.0))
    example = draw(Material((machine,), (noise,)), rule, np.random.default_rng(0))
    peaks_hz = np.abs(np.fft.rfft(example * np.hanning(4000))).argmax(axis=1) * 16_000 / 4000
    np.testing.assert_allclose(peaks_hz, [500, 2000])


def test_crop_of_short_sound_goes_round() -> None:
    sound = np.arange(5, dtype=np.float32)
    piece = crop(sound, 12, np.random.default_rng(0))
    np.testing.assert_array_equal(np.diff(piece) % 5, np.ones(11))


def test_mix_at_ratio_and_level_is_exact() -> None:
    rng = np.random.default_rng(0)
    machine, noise = (rng.standard_normal(8000).astype(np.float32) for _ in range(2))
    sources = mix(machine, 0.01 * noise, snr_db=-10.0, level_dbfs=-26.0)
    assert level_dbfs(sources[0]) - level_dbfs(sources[1]) == pytest.approx(-10.0, abs=1e-3)
    assert level_dbfs(sources.sum(axis=0)) == pytest.approx(-26.0, abs=1e-3)


def test_mix_with_silence_is_refused() -> None:
    sound = np.ones(100, np.float32)
    with pytest.raises(DataSetError, match="noise .* is silent"):
        mix(sound, np.zeros(100, np.float32), 0.0, -20.0)
