"""The hall is taken out of the near microphone's sound, and the machine never is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import BundleError, DataSetError
from asd_daemon.hear.simulator import SimulatedMachine, render_noise
from asd_daemon.hear.simulator.two_microphones import HeardApart, draw_two_microphones, hear_in_hall
from asd_daemon.judge.hall.cancelling import without_hall
from asd_daemon.judge.hall.crosstalk import NO_CROSSTALK, Crosstalk, learn_crosstalk
from asd_daemon.judge.hall.short_time_spectra import BINS, sound_of, spectra_of
from asd_daemon.waveform import SAMPLE_RATE_HZ

F32 = NDArray[np.float32]


def si_sdr_db(found: F32, truth: F32) -> float:
    scale = float(found @ truth) / float(truth @ truth)
    error = found - scale * truth
    return 10 * float(np.log10(scale**2 * (truth @ truth) / (error @ error)))


@pytest.fixture(scope="module")
def heard() -> list[HeardApart]:
    """A gearbox and standing noise in one hall, machine and noise apart; twelve moments."""
    rng = np.random.default_rng(11)
    places = draw_two_microphones(rng, 1).with_crosstalk(-12.0)
    machine = SimulatedMachine("gearbox")
    return [
        hear_in_hall(places, machine.render(10, rng), [render_noise(noise, 10, rng)])
        for noise in ("hum", "compressor") * 6
    ]


@pytest.fixture(scope="module")
def crosstalk(heard: list[HeardApart]) -> Crosstalk:
    """Learned in a hall that is now louder, now softer than the machine, and calm now and then."""
    ratios = [15.0, 3.0, -5.0, 0.0, 15.0, -3.0, 5.0, -8.0, 0.0, 6.0]
    windows = [one.mixed(ratio).both for one, ratio in zip(heard, ratios, strict=False)]
    return learn_crosstalk([lambda window=window: window for window in windows])  # type: ignore[misc]


@pytest.mark.parametrize("samples", [160_000, 80_123, 1000])
def test_spectra_add_up_to_the_sound_they_are_of(samples: int) -> None:
    sound = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    np.testing.assert_allclose(sound_of(spectra_of(sound), samples), sound, atol=1e-5)


@pytest.mark.parametrize(("ratio_db", "least_gain_db"), [(-10.0, 3.0), (-5.0, 3.0), (0.0, 2.5), (10.0, 0.0)])
def test_the_hall_is_taken_away_at_every_ratio(
    heard: list[HeardApart], crosstalk: Crosstalk, ratio_db: float, least_gain_db: float
) -> None:
    gains = []
    for one in heard[10:]:
        mixed = one.mixed(ratio_db)
        near, far = mixed.both.T.copy()
        found = without_hall(near, far, crosstalk)
        gains.append(si_sdr_db(found.sound, mixed.machine[:, 0]) - si_sdr_db(near, mixed.machine[:, 0]))
        np.testing.assert_allclose(found.sound + found.hall, near, atol=1e-6)
    assert np.mean(gains) > least_gain_db


def test_a_machine_alone_stays_as_it_is(heard: list[HeardApart], crosstalk: Crosstalk) -> None:
    near, far = heard[10].machine.T.copy()
    found = without_hall(near, far, crosstalk)
    assert si_sdr_db(found.sound, near) > 15
    assert found.share < 0.05
    plain = without_hall(near, far, NO_CROSSTALK)  # what would become of it if nobody knew how the far one hears it
    assert si_sdr_db(found.sound, near) > si_sdr_db(plain.sound, near) + 3


def test_a_new_sound_of_the_machine_is_no_hall(heard: list[HeardApart], crosstalk: Crosstalk) -> None:
    one = heard[10].mixed(0.0)
    near, far = one.both.T.copy()
    whistle = 0.02 * np.sin(2 * np.pi * 1234.5 / SAMPLE_RATE_HZ * np.arange(near.shape[0])).astype(np.float32)
    before = without_hall(near, far, crosstalk).sound
    after = without_hall(near + whistle, far + 0.2 * np.roll(whistle, 100), crosstalk).sound
    left = float((after - before) @ whistle) / float(whistle @ whistle)
    assert 0.5 < left < 1.4  # at most 6 dB softer, where the noise is as loud as the machine


def test_a_far_microphone_that_hears_nothing_changes_nothing(heard: list[HeardApart], crosstalk: Crosstalk) -> None:
    near = heard[0].both[:, 0].copy()
    found = without_hall(near, np.zeros_like(near), NO_CROSSTALK)
    np.testing.assert_array_equal(found.sound, near)
    assert found.share == 0
    assert without_hall(np.zeros_like(near), np.zeros_like(near), crosstalk).share == 0


def test_the_share_rises_with_the_hall(heard: list[HeardApart], crosstalk: Crosstalk) -> None:
    shares = []
    for ratio_db in (15.0, 0.0, -10.0):
        near, far = heard[11].mixed(ratio_db).both.T.copy()
        shares.append(without_hall(near, far, crosstalk).share)
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[2] > 0.4


def test_how_the_far_microphone_hears_the_machine_is_found(crosstalk: Crosstalk) -> None:
    assert -20 < crosstalk.level_db < -8
    assert crosstalk.hall_gain >= 1


def test_too_few_windows_and_a_dead_microphone_are_refused(heard: list[HeardApart]) -> None:
    with pytest.raises(DataSetError, match="2 windows of two microphones are too few; at least 4"):
        learn_crosstalk([lambda: heard[0].both] * 2)


def test_what_was_learned_is_kept(crosstalk: Crosstalk, tmp_path: Path) -> None:
    crosstalk.save(tmp_path / "hall.npz")
    read = Crosstalk.load(tmp_path / "hall.npz")
    np.testing.assert_array_equal(read.weights, crosstalk.weights)
    assert (read.hall_gain, read.level_db) == (crosstalk.hall_gain, crosstalk.level_db)


def spoiled(file: Path, how: str) -> None:
    if how == "text":
        file.write_bytes(b"no arrays")
    elif how == "short":
        np.savez(file, weights=np.zeros((1, 3), np.complex64), numbers=np.zeros(2))
    elif how == "infinite":
        np.savez(file, weights=np.full((2, BINS), np.nan, np.complex64), numbers=np.ones(2))
    elif how == "missing":
        np.savez(file, weights=np.zeros((2, BINS), np.complex64))


@pytest.mark.parametrize("how", ["text", "short", "infinite", "missing", "absent"])
def test_a_spoiled_file_is_refused_by_name(how: str, tmp_path: Path) -> None:
    spoiled(tmp_path / "hall.npz", how)
    with pytest.raises(BundleError, match="hall.npz"):
        Crosstalk.load(tmp_path / "hall.npz")
