"""What has changed in sounds whose change is known: a tone of known Hz, blows at a known rate, a swell, a hiss, strokes out of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.judge.features.change import Change, ChangeKind
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.judge.features.recent_summaries import LEAST, RecentSummaries

F32 = NDArray[np.float32]
N = 160_000
TIME_S = np.arange(N) / 16_000
HZ = np.fft.rfftfreq(N, 1 / 16_000)


def hiss(seed: int, level: float = 0.02) -> F32:
    return np.random.default_rng(seed).normal(0, level, N).astype(np.float32)


def tone(hz: float, level: float) -> F32:
    return (level * np.sin(2 * np.pi * hz * TIME_S)).astype(np.float32)


def shaped(sound: F32, low_hz: float, high_hz: float, db: float) -> F32:
    """Louder or softer within a range of frequencies."""
    inside = (low_hz <= HZ) & (high_hz > HZ)
    return np.fft.irfft(np.fft.rfft(sound) * np.where(inside, 10 ** (db / 20), 1), N).astype(np.float32)


def swelling(sound: F32, rate_hz: float, depth: float) -> F32:
    return (sound * (1 + depth * np.cos(2 * np.pi * rate_hz * TIME_S))).astype(np.float32)


def blows(times_s: NDArray[np.floating], level: float | NDArray[np.floating] = 0.4, hz: float = 4000) -> F32:
    sound = np.zeros(N + 800)
    ring = np.exp(-np.arange(800) / 32) * np.sin(2 * np.pi * hz * np.arange(800) / 16_000)
    for at, strength in zip((times_s * 16_000).astype(int), np.broadcast_to(level, times_s.shape), strict=True):
        sound[at : at + 800] += strength * ring
    return sound[:N].astype(np.float32)


def memory(windows: Sequence[F32]) -> RecentSummaries:
    made = RecentSummaries()
    for window in windows:
        made.add(window)
    return made


HISSING = memory([hiss(seed) for seed in range(12)])


def first(normal: RecentSummaries, window: F32) -> Change:
    changes = normal.changes(window)
    assert changes
    return changes[0]


def test_until_enough_normal_windows_are_known_nothing_is_said() -> None:
    assert memory([hiss(seed) for seed in range(LEAST - 1)]).changes(hiss(50)) is None


@pytest.mark.parametrize("seed", range(30, 36))
def test_normal_window_has_no_change_that_has_a_name(seed: int) -> None:
    assert HISSING.changes(hiss(seed)) == ()


@pytest.mark.parametrize("hz", [90.0, 1234.0, 5010.0])
def test_new_tone_is_told_within_a_hertz(hz: float) -> None:
    change = first(HISSING, hiss(50) + tone(hz, 0.01))
    assert change.kind is ChangeKind.TONE
    assert change.tone_hz == pytest.approx(hz, abs=1)


def test_tone_that_was_there_before_at_nearly_the_same_speed_is_no_change() -> None:
    normal = memory([hiss(seed) + tone(1000, 0.01) for seed in range(12)])
    assert normal.changes(hiss(50) + tone(1008, 0.01)) == ()


def test_tone_that_is_a_multiple_of_a_rate_heard_too_is_told_as_such() -> None:
    changes = HISSING.changes(swelling(hiss(50), 22.1, 0.4) + tone(66.3, 0.02))
    assert changes
    assert [change.kind for change in changes] == [ChangeKind.PULSING, ChangeKind.TONE]
    assert changes[1].multiple == 3
    assert changes[1].rate_hz == pytest.approx(22.1, abs=0.11)


@pytest.mark.parametrize("rate_hz", [5.3, 17.4, 56.7, 83.1])
def test_blows_are_knocks_at_their_rate(rate_hz: float) -> None:
    change = first(HISSING, hiss(50) + blows(np.arange(0, 9.95, 1 / rate_hz)))
    assert change.kind is ChangeKind.KNOCKS
    assert change.even
    assert change.rate_hz == pytest.approx(rate_hz, abs=0.2)
    assert (change.from_hz, change.to_hz) == (3000, 6200)


def test_knocks_that_swell_with_the_shaft_tell_both_rates() -> None:
    times_s = np.arange(0, 9.95, 1 / 83.1)
    change = first(HISSING, hiss(50) + blows(times_s, 0.4 * (0.2 + 0.8 * np.cos(np.pi * 14 * times_s) ** 4)))
    assert change.kind is ChangeKind.KNOCKS
    assert change.rate_hz == pytest.approx(83.1, abs=0.2)
    assert change.swell_hz == pytest.approx(14, abs=0.2)


def test_few_blows_are_uneven_knocks_and_counted() -> None:
    change = first(HISSING, hiss(50) + blows(np.array([0.73, 1.9, 3.36, 3.98, 6.41, 8.82]), 1.0))
    assert change.kind is ChangeKind.KNOCKS
    assert not change.even
    assert change.rate_hz == pytest.approx(0.6, abs=0.2)


@pytest.mark.parametrize("rate_hz", [1.3, 10.2, 22.1])
def test_swell_is_pulsing_and_no_knocks(rate_hz: float) -> None:
    changes = HISSING.changes(swelling(hiss(50), rate_hz, 0.5))
    assert changes
    assert [change.kind for change in changes] == [ChangeKind.PULSING]
    assert changes[0].rate_hz == pytest.approx(rate_hz, abs=0.11)


def test_hiss_is_told_with_where_and_how_much() -> None:
    change = first(HISSING, shaped(hiss(50), 2540, 8000, 8))
    assert (change.kind, change.to_hz) == (ChangeKind.HISS, None)
    assert change.from_hz == pytest.approx(2540, rel=0.26)
    assert change.db == pytest.approx(8, abs=1.5)


def test_what_is_missing_at_the_top_is_duller_and_below_it_is_louder() -> None:
    duller, rumble = first(HISSING, shaped(hiss(50), 2540, 8000, -8)), first(HISSING, shaped(hiss(50), 100, 320, 12))
    assert (duller.kind, duller.to_hz) == (ChangeKind.DULLER, None)
    assert duller.from_hz == pytest.approx(2540, rel=0.26)
    assert duller.db == pytest.approx(8, abs=1.5)
    assert rumble.kind is ChangeKind.LOUDER
    assert rumble.to_hz == pytest.approx(320, rel=0.26)


@pytest.mark.parametrize(("factor", "kind"), [(2.0, ChangeKind.LOUDER), (0.5, ChangeKind.SOFTER)])
def test_all_of_it_louder_or_softer_is_told_by_its_decibels(factor: float, kind: ChangeKind) -> None:
    change = first(HISSING, (factor * hiss(50)).astype(np.float32))
    assert (change.kind, change.from_hz) == (kind, None)
    assert change.db == pytest.approx(6, abs=0.5)


@pytest.mark.parametrize(("speed", "kind"), [(1.06, ChangeKind.FASTER), (0.93, ChangeKind.SLOWER)])
def test_all_tones_moved_alike_is_a_change_of_speed(speed: float, kind: ChangeKind) -> None:
    def running(seed: int, speed: float) -> F32:
        return hiss(seed) + sum(
            (tone(hz * speed, 0.01) for hz in (450, 790, 1130, 2170, 3300)), np.zeros(N, np.float32)
        )

    change = first(memory([running(seed, 1 + 0.002 * (seed % 3)) for seed in range(12)]), running(50, speed))
    assert change.kind is kind
    assert change.percent == pytest.approx(100 * abs(speed - 1), abs=0.8)


def striking(seed: int, times_s: NDArray[np.floating]) -> F32:
    return hiss(seed) + blows(times_s)


STRIKING = memory([striking(seed, np.arange(0.05 * seed, 9.9, 0.9)) for seed in range(12)])


def test_strokes_out_of_time_are_told_with_their_usual_rate() -> None:
    late_s = np.random.default_rng(1).uniform(0, 0.25, 11)
    change = first(STRIKING, striking(50, np.arange(0.2, 9.9, 0.9)[:11] + late_s))
    assert change.kind is ChangeKind.STROKES
    assert change.rate_hz == pytest.approx(1 / 0.9, abs=0.02)


def test_strokes_that_come_sooner_but_evenly_are_faster() -> None:
    change = first(STRIKING, striking(50, np.arange(0.2, 9.9, 0.8)))
    assert change.kind is ChangeKind.FASTER
    assert change.percent == pytest.approx(12.5, abs=1.5)


def test_strokes_in_time_are_no_change() -> None:
    assert STRIKING.changes(striking(50, np.arange(0.3, 9.9, 0.9))) == ()


def test_machine_that_knocks_now_and_then_must_knock_more_than_that() -> None:
    rng = np.random.default_rng(1)
    knocking = [hiss(seed) + blows(rng.uniform(0.1, 9.8, 6), 0.4 * (seed % 3)) for seed in range(24)]
    normal = memory(knocking)
    assert normal.changes(hiss(50) + blows(rng.uniform(0.1, 9.8, 6), 0.8)) == ()


def test_memory_is_bounded_and_takes_one_in_so_many() -> None:
    normal = RecentSummaries(most=8, every=6)
    for _ in range(40):
        normal.add(hiss(1))
    assert len(normal) == 8
    few = RecentSummaries(most=8, every=6)
    for _ in range(4 + 11):
        few.add(hiss(1))
    assert len(few) == 4 + 2


def test_summaries_of_a_machine_stay_below_a_megabyte() -> None:
    kept = sum(value.nbytes for window in HISSING._windows for value in vars(window).values())
    assert kept / len(HISSING) * 24 < 1_000_000


def fastest_s(work: Callable[[], object]) -> float:
    """Seconds of the processor, the least of a few calls."""
    times_s = []
    for _ in range(5):
        begin_s = time.process_time()
        work()
        times_s.append(time.process_time() - begin_s)
    return min(times_s)


def test_figures_are_quick_enough_to_make_beside_the_judge() -> None:
    window = hiss(50)
    HISSING.changes(window)
    ratio = fastest_s(lambda: HISSING.changes(window)) / fastest_s(lambda: log_mel(window))
    assert ratio < 30, "6 log-mels of the window; this only catches a blunder"
