"""Cutting blocks into windows: nothing is lost, doubled or shifted, and every time stamp is right."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from asd_daemon.hear.source import Block, DeadMicrophone, SoundReturned, SourceEvent, SourceLost, UnreadableRecording
from asd_daemon.hear.windows.window import Window, WindowCutter

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
N = 160_000


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def ramp(start: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.arange(start, start + count, dtype=np.float32)


def cut(
    heard: Iterable[SourceEvent], **options: int
) -> list[Window | SourceLost | UnreadableRecording | DeadMicrophone | SoundReturned]:
    cutter = WindowCutter(live=False, now=Clock(), **options)
    return [item for h in heard for item in cutter.feed(h)]


def windows(heard: Iterable[SourceEvent], **options: int) -> list[Window]:
    return [item for item in cut(heard, **options) if isinstance(item, Window)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 90_000), min_size=1, max_size=12), st.sampled_from([N, 80_000, 50_000]))
def test_windows_of_any_blocks_are_those_of_the_whole_sound(sizes: list[int], hop: int) -> None:
    starts = np.cumsum([0, *sizes])
    found = windows([Block(ramp(int(a), n)) for a, n in zip(starts, sizes, strict=False)], hop_samples=hop)
    total = sum(sizes)
    expected = range(0, total - N + 1, hop)
    assert [int(w.samples[0]) for w in found] == list(expected)
    for window, start in zip(found, expected, strict=True):
        assert window.samples.shape == (N,)
        assert window.samples[-1] == start + N - 1
        assert window.started_at == START + timedelta(seconds=start / 16_000)


def test_gap_inside_a_window_gives_it_out_unfit_and_starts_anew() -> None:
    found = windows([Block(ramp(0, 100_000)), Block(ramp(200_000, N), gap_samples=100_000)])
    assert [w.gap_samples for w in found] == [60_000, 0]
    assert found[0].samples[99_999] == 99_999
    assert not found[0].samples[100_000:].any()
    assert found[1].samples[0] == 200_000
    assert found[1].started_at == START + timedelta(seconds=200_000 / 16_000)


def test_loss_gives_out_the_begun_window_before_it_is_passed_on() -> None:
    lost = SourceLost("unplugged", 2.0)
    found = cut([Block(ramp(0, 10)), lost, lost, Block(ramp(50, N), gap_samples=40)])
    assert [type(item) for item in found] == [Window, SourceLost, SourceLost, Window]
    assert [item.gap_samples for item in found if isinstance(item, Window)] == [N - 10, 0]


def test_gap_between_windows_spoils_none() -> None:
    found = windows([Block(ramp(0, N)), Block(ramp(N + 5, N), gap_samples=5)])
    assert [w.gap_samples for w in found] == [0, 0]


def test_gap_just_after_an_overlapping_window_gives_out_nothing_twice() -> None:
    found = windows([Block(ramp(0, N)), Block(ramp(N + 5, N), gap_samples=5)], hop_samples=80_000)
    assert [(int(w.samples[0]), w.gap_samples) for w in found] == [(0, 0), (N + 5, 0)]


def test_recording_shorter_than_a_window_is_repeated_and_says_so() -> None:
    (window,) = windows([Block(ramp(1, 48_000)), Block(ramp(48_001, 16_000), last=True)])
    assert (window.padded_samples, window.gap_samples) == (N - 64_000, 0)
    assert window.sound.shape == (64_000,)
    assert window.sound[-1] == 64_000
    assert np.array_equal(window.samples[64_000:128_000], window.sound)


def test_recordings_never_share_a_window() -> None:
    found = windows([Block(ramp(0, N + 32_000), last=True), Block(ramp(500_000, N), last=True)])
    assert [int(w.samples[0]) for w in found] == [0, 500_000]


def test_refusal_passes_and_breaks_no_window() -> None:
    refused = UnreadableRecording(Path("a.wav"), "broken")
    found = cut([refused, Block(ramp(0, N))])
    assert found[0] is refused
    assert isinstance(found[1], Window)


def test_live_windows_are_stamped_by_the_wall_clock_even_when_it_is_set() -> None:
    clock = Clock()
    cutter = WindowCutter(live=True, now=clock)
    clock.now = START + timedelta(seconds=10)
    (first,) = cutter.feed(Block(ramp(0, N)))
    clock.now = START + timedelta(hours=1)
    (second,) = cutter.feed(Block(ramp(0, N)))
    assert isinstance(first, Window)
    assert isinstance(second, Window)
    assert (first.started_at, first.ended_at) == (START, START + timedelta(seconds=10))
    assert second.ended_at == START + timedelta(hours=1)


def test_live_window_that_is_interrupted_is_stamped_by_its_last_sound() -> None:
    clock = Clock()
    cutter = WindowCutter(live=True, now=clock)
    assert list(cutter.feed(Block(ramp(0, 16_000)))) == []
    clock.now = START + timedelta(seconds=60)
    window, _ = cutter.feed(SourceLost("gone", 60))
    assert isinstance(window, Window)
    assert window.started_at == START - timedelta(seconds=1)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 90_000), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([N, 80_000, 50_000]),
)
def test_a_far_microphone_is_cut_alike_and_left_out_where_it_was_not_heard_all_the_time(
    blocks: list[tuple[int, bool]], hop: int
) -> None:
    starts = np.cumsum([0, *(size for size, _ in blocks)])
    said = [
        Block(ramp(int(start), size), far=-ramp(int(start), size) if hears else None)
        for start, (size, hears) in zip(starts, blocks, strict=False)
    ]
    heard = np.concatenate([np.full(size, hears) for size, hears in blocks])
    for window in windows(said, hop_samples=hop):
        first = int(window.samples[0])
        if heard[first : first + N].all():
            assert window.far is not None
            np.testing.assert_array_equal(window.far, -window.samples)
            assert window.both.shape == (N, 2)
        else:
            assert window.far is None
            assert window.both.shape == (N,)


def test_a_short_recording_of_two_microphones_is_repeated_in_both() -> None:
    [window] = windows([Block(ramp(0, 100_000), last=True, far=-ramp(0, 100_000))])
    assert window.far is not None
    np.testing.assert_array_equal(window.far, -window.samples)


def test_after_a_gap_the_far_microphone_joins_anew() -> None:
    said = [Block(ramp(0, 100_000), far=ramp(5, 100_000)), Block(ramp(0, N), gap_samples=7, far=ramp(9, N))]
    unfit, clean = windows(said)
    assert unfit.far is None
    assert clean.far is not None
    assert clean.far[0] == 9
