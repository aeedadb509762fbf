"""A far microphone on a device of its own: brought into step, kept in it where its clock runs otherwise, no trouble where it is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import SourceError
from asd_daemon.hear.source import Block, SourceEvent, SourceHealth, SourceLost
from asd_daemon.hear.sources.far_alignment import FarAlignment, correlation_peak, interpolated
from asd_daemon.hear.sources.two_devices import TwoDevices
from rig.waiting import PATIENT_S

F32 = NDArray[np.float32]
RATE, BLOCK = 16_000, 8000


def hall(seconds: float, seed: int = 0) -> NDArray[np.floating]:
    """Noise without the highest octave, so that it can be read between its samples."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(int(seconds * RATE)))
    spectrum[int(spectrum.shape[0] * 0.6) :] = 0
    return 0.1 * np.fft.irfft(spectrum)


def at(sound: NDArray[np.floating], places: NDArray[np.floating]) -> F32:
    return interpolated(sound.astype(np.float32), places)


def heard_together(
    alignment: FarAlignment, *, seconds: float, late_s: float, drift_ppm: float, seed: int = 0
) -> list[tuple[F32, F32 | None]]:
    """Both devices hear one hall; the far one's stream began `late_s` earlier, its clock runs faster. Near blocks and their far ones."""
    sound = hall(seconds + late_s + 4, seed)
    count = int(seconds * RATE / BLOCK)
    rate = 1 + drift_ppm * 1e-6
    pairs = []
    far_places = 32 + np.arange(int((seconds + late_s) * RATE * rate)) / rate
    far = at(sound, far_places)
    given, held = 0, list[tuple[int, F32]]()
    for n in range(count):
        until = int((late_s * RATE + (n + 1) * BLOCK) * rate)
        alignment.hear_far(far[given:until])
        given = until
        start = 32 + late_s * RATE + n * BLOCK
        near = at(sound, start + np.arange(BLOCK))
        held.append((alignment.hear_near(near), near))
        if len(held) > 1:  # half a second later
            first, earlier = held.pop(0)
            pairs.append((earlier, alignment.meanwhile(first, BLOCK)))
    return pairs


def likeness(near: F32, far: F32) -> float:
    return float(near @ far / np.sqrt((near @ near) * (far @ far)))


def test_values_between_samples_are_those_of_the_sound() -> None:
    tone = np.sin(0.9 * np.arange(4000)).astype(np.float32)
    places = np.asarray(100.0 + np.arange(1000) * 1.0007, np.float64)
    np.testing.assert_allclose(interpolated(tone, places), np.sin(0.9 * places), atol=3e-3)


def test_what_both_hear_is_found_to_a_part_of_a_sample_and_nothing_is_found_in_nothing() -> None:
    sound = hall(4)
    near = at(sound, 20_000.3 + np.arange(16_000))
    assert correlation_peak(near, sound.astype(np.float32)) == pytest.approx(20_000.3, abs=0.2)
    assert correlation_peak(near, hall(4, seed=9).astype(np.float32)) is None
    assert correlation_peak(near, np.zeros(64_000, np.float32)) is None


@pytest.mark.parametrize("late_s", [0.0, 0.31, 1.0])
def test_two_devices_come_into_step(late_s: float) -> None:
    pairs = heard_together(FarAlignment("fan"), seconds=16, late_s=late_s, drift_ppm=0)
    assert pairs[0][1] is None
    last = [(near, far) for near, far in pairs[-6:] if far is not None]
    assert len(last) >= 5
    assert min(likeness(near, far) for near, far in last) > 0.98


@pytest.mark.parametrize("drift_ppm", [120.0, -80.0])
def test_a_clock_that_runs_otherwise_is_measured_and_mended(drift_ppm: float) -> None:
    alignment = FarAlignment("fan")
    pairs = heard_together(alignment, seconds=80, late_s=0.4, drift_ppm=drift_ppm)
    assert alignment.drift_ppm == pytest.approx(drift_ppm, abs=8)
    last = [(near, far) for near, far in pairs[-20:] if far is not None]
    assert len(last) >= 19
    assert min(likeness(near, far) for near, far in last) > 0.97


def test_after_a_loss_it_comes_into_step_again() -> None:
    alignment = FarAlignment("fan")
    heard_together(alignment, seconds=16, late_s=0.4, drift_ppm=0)
    assert alignment.in_step
    alignment.lose_far()
    assert not alignment.in_step
    assert alignment.meanwhile(alignment.hear_near(hall(0.5).astype(np.float32)), BLOCK) is None
    pairs = heard_together(alignment, seconds=30, late_s=0.9, drift_ppm=0, seed=4)
    near, far = pairs[-3]
    assert far is not None
    assert likeness(near, far) > 0.98


class Spoken:
    """A source that says its script, one event each time it is let, then ends or fails."""

    live = True
    source_health = SourceHealth(identity="card:near")

    def __init__(self, script: list[SourceEvent], end: Exception | None = None) -> None:
        self._script, self._end = script, end
        self.done, self.closed = threading.Event(), False

    def events(self) -> Iterator[SourceEvent]:
        yield from self._script
        self.done.set()
        if self._end is not None:
            raise self._end

    def close(self) -> None:
        self.closed = True


def test_a_source_of_two_devices_gives_the_near_one_with_the_far_one_beside() -> None:
    sound = hall(24).astype(np.float32)
    far = Spoken([Block(sound[n * BLOCK : (n + 1) * BLOCK]) for n in range(46)])

    class Near(Spoken):
        def events(self) -> Iterator[SourceEvent]:
            assert far.done.wait(PATIENT_S)
            yield from super().events()

    near = Near([Block(sound[n * BLOCK + 100 : (n + 1) * BLOCK + 100]) for n in range(24)])
    source = TwoDevices("fan", near, far)
    assert source.source_health.identity == "card:near"
    blocks = [event for event in source.events() if isinstance(event, Block)]
    assert len(blocks) == 24
    assert far.closed


@pytest.mark.parametrize("end", [None, SourceError("no such device")])
def test_a_far_device_that_ends_or_fails_costs_nothing_but_itself(
    end: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    far = Spoken([SourceLost("unplugged", 0.0)], end)

    class Near(Spoken):
        def events(self) -> Iterator[SourceEvent]:
            assert far.done.wait(PATIENT_S)
            yield from super().events()

    blocks = [Block(hall(0.5).astype(np.float32)) for _ in range(4)]
    heard = list(TwoDevices("fan", Near([*blocks, SourceLost("x", 1.0)]), far).events())
    assert [type(event).__name__ for event in heard] == ["Block"] * 4 + ["SourceLost"]
    assert all(event.far is None for event in heard if isinstance(event, Block))
    assert "the far microphone is lost: unplugged" in caplog.text
