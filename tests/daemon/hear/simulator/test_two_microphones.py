"""A hall with two microphones: sound arrives when and as loud as it should, without seams, also from what moves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import UsageError
from asd_daemon.hear.opening import open_source
from asd_daemon.hear.simulator import SimulatedMachine, render_noise
from asd_daemon.hear.simulator.hall import SOUND_M_S, Hall, HallPath, Way
from asd_daemon.hear.simulator.scene import DOMAINS, draw_scene
from asd_daemon.hear.simulator.two_microphones import HallStream, draw_two_microphones, hear_in_hall
from asd_daemon.hear.source import Block
from asd_daemon.hear.source_spec import parse_source
from asd_daemon.waveform import SAMPLE_RATE_HZ, rms_level_dbfs

F32 = NDArray[np.float32]


def noise(seconds: float, seed: int = 0) -> F32:
    return 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * SAMPLE_RATE_HZ)).astype(np.float32)


def test_direct_sound_comes_when_and_as_loud_as_its_way_says() -> None:
    deaf_walls = Hall((20, 10, 6), reflection=0.0, order=1)
    near, far = (deaf_walls.impulse_response((5, 5, 1), (5 + distance, 5, 1)) for distance in (1.0, 4.0))
    late_s = (int(np.argmax(far)) - int(np.argmax(near))) / SAMPLE_RATE_HZ
    assert late_s == pytest.approx(3.0 / SOUND_M_S, abs=1 / SAMPLE_RATE_HZ)
    assert near.sum() / far.sum() == pytest.approx(4.0, rel=0.02)


def test_walls_throw_sound_back_from_where_their_mirrors_are() -> None:
    hall = Hall((20, 10, 6), reflection=0.5, order=1)
    taps = hall.impulse_response((5, 5, 3), (8, 5, 3))
    for way_m in (
        3.0,
        13.0,
        np.hypot(3, 10),
        np.hypot(3, 6),
    ):  # directly, by the wall behind, by the side, by the floor
        at = round(way_m / SOUND_M_S * SAMPLE_RATE_HZ) + 8
        assert np.abs(taps[at - 2 : at + 3]).max() > 0.3 * (1 if way_m == 3.0 else 0.5) / way_m
    assert np.abs(taps[:130]).max() < 1e-3  # nothing is earlier than the direct sound


def test_a_path_goes_on_without_seams() -> None:
    hall, sound = Hall(), noise(3)
    path = HallPath(hall, Way.still((5, 5, 1)), (9, 6, 2))
    heard = np.concatenate([path(chunk) for chunk in sound.reshape(3, -1)])
    whole = np.convolve(sound.astype(np.float64), hall.impulse_response((5, 5, 1), (9, 6, 2)))[: sound.shape[0]]
    np.testing.assert_allclose(heard, whole, atol=1e-5)


def test_what_moves_gets_louder_as_it_comes_near_and_never_clicks() -> None:
    way = Way((2, 5, 1), (18, 5, 1), speed_m_s=4.0)
    assert way.at(2.0) == pytest.approx((10, 5, 1))
    assert way.at(8.0) == pytest.approx((2, 5, 1))  # there and back
    path, tone = HallPath(Hall(reflection=0.3), way, (10, 6, 1)), np.sin(np.arange(5 * SAMPLE_RATE_HZ) * 0.02)
    heard = np.concatenate([path(chunk) for chunk in tone.astype(np.float32).reshape(5, -1)])
    levels = [rms_level_dbfs(second) for second in heard.reshape(5, -1)]
    assert levels[2] > levels[0] + 3
    assert np.abs(np.diff(heard)).max() < 1.5 * 0.02 * np.abs(heard).max()


def test_the_near_microphone_hears_the_machine_as_loud_as_it_is_and_the_far_one_softer() -> None:
    places = draw_two_microphones(np.random.default_rng(3), 1).with_crosstalk(-12.0)
    sound = noise(4)
    heard = hear_in_hall(places, sound, [noise(4, 1)])
    near, far = (rms_level_dbfs(heard.machine[SAMPLE_RATE_HZ:, column]) for column in (0, 1))
    assert near == pytest.approx(rms_level_dbfs(sound), abs=0.3)
    assert far - near == pytest.approx(-12.0 + places.far_gain_db, abs=0.5)
    assert rms_level_dbfs(heard.noise[SAMPLE_RATE_HZ:, 0]) == pytest.approx(-20.0, abs=0.3)
    mixed = heard.mixed(-5.0)
    ratio = rms_level_dbfs(mixed.machine[:, 0]) - rms_level_dbfs(mixed.noise[:, 0])
    assert ratio == pytest.approx(-5.0, abs=0.01)


def test_places_are_the_same_for_the_same_seed() -> None:
    one, other = (draw_two_microphones(np.random.default_rng(7), 3, moving=1) for _ in range(2))
    assert one == other
    assert [way.moves for way in one.noises] == [True, False, False]


def test_recordings_of_unequal_length_are_refused() -> None:
    places = draw_two_microphones(np.random.default_rng(0), 1)
    with pytest.raises(UsageError, match="machine of 16000 in a hall with places for 1"):
        hear_in_hall(places, noise(1), [noise(2)])
    with pytest.raises(UsageError, match="2 noises"):
        hear_in_hall(places, noise(1), [noise(1), noise(1)])


def test_a_stream_in_a_hall_is_heard_twice_and_can_fail() -> None:
    rng = np.random.default_rng(2)
    scene = draw_scene(DOMAINS["fan"]["source"], rng, snr_db=(-5, -5))
    stream = HallStream(SimulatedMachine("fan"), scene, draw_two_microphones(rng, 1), rng)
    blocks = [(next(stream), stream.far) for _ in range(3)]
    assert all(near.shape == far.shape == (SAMPLE_RATE_HZ,) and not np.array_equal(near, far) for near, far in blocks)
    stream.fail("rubbing")
    assert np.isfinite(next(stream)).all()


def test_a_simulated_source_gives_both_microphones() -> None:
    source = open_source(parse_source("simulate:fan?far=1&snr=-5&crosstalk=-12&moving=1&seconds=2&speed=max&seed=4"))
    blocks = [event for event in source.events() if isinstance(event, Block)]
    assert [block.far is not None and block.far.shape == block.samples.shape for block in blocks] == [True, True]
    alone = open_source(parse_source("simulate:fan?seconds=1&speed=max"))
    assert [event.far for event in alone.events() if isinstance(event, Block)] == [None]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("simulate:fan?far=2", "far is '2', must be 1 or 0"),
        ("simulate:fan?crosstalk=-12", "crosstalk has a meaning with far=1 only"),
        ("simulate:fan?far=1&crosstalk=3", "crosstalk is '3', must be a number, -60 to -6"),
    ],
)
def test_what_a_hall_does_not_have_is_refused(words: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source(parse_source(words))


def test_noise_of_the_simulator_can_be_put_into_a_hall() -> None:
    places = draw_two_microphones(np.random.default_rng(1), 1, moving=1)
    rng = np.random.default_rng(5)
    heard = hear_in_hall(places, SimulatedMachine("fan").render(1.5, rng), [render_noise("vehicles", 1.5, rng)])
    assert heard.both.shape == (24_000, 2)
    assert heard.both.dtype == np.float32
