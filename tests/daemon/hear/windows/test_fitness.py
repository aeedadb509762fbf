"""Windows judged with their history: usual level, rate, deafness; what is remembered; silence found before the window ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.hear.source import Block, DeadMicrophone, SoundReturned, SourceEvent, SourceLost
from asd_daemon.hear.sources.sample_clock import SampleClock
from asd_daemon.hear.sources.source_memory import SourceMemory
from asd_daemon.hear.windows.dead_microphone import with_dead_microphone_events
from asd_daemon.hear.windows.fitness import FitnessLimits, WindowFitness
from asd_daemon.hear.windows.quality import UnfitReason, unfit_reason
from asd_daemon.hear.windows.window import Window, WindowCutter

START = datetime(2026, 1, 1, tzinfo=UTC)


def noise(level_dbfs: float, samples: int = 160_000) -> NDArray[np.float32]:
    sound = np.random.default_rng(1).uniform(-1, 1, samples)
    return np.asarray(sound / np.sqrt(np.mean(sound**2)) * 10 ** (level_dbfs / 20), np.float32)


def window(level_dbfs: float = -30, **more: float) -> Window:
    return Window(noise(level_dbfs), START, **more)  # type: ignore[arg-type]


def test_level_far_from_what_was_usual_is_unfit_and_near_it_is_not() -> None:
    fitness = WindowFitness(FitnessLimits(below_db=20, above_db=30), SourceMemory())
    assert [fitness.check(window(level)) for level in (-31, -29) * 6] == [None] * 12
    assert fitness.check(window(-48)) is None
    assert fitness.check(window(-52)) is UnfitReason.QUIET
    assert fitness.check(window(-5)) is None


def test_level_learned_while_the_machine_was_off_is_learned_anew_when_it_runs() -> None:
    memory = SourceMemory()
    fitness = WindowFitness(FitnessLimits(below_db=20, above_db=40), memory)
    for _ in range(12):
        fitness.check(window(-75))
    assert [fitness.check(window(-30)) for _ in range(13)] == [UnfitReason.LEVEL] * 12 + [None]
    assert memory.level_dbfs == pytest.approx(-30, abs=0.1)
    assert [fitness.check(window(-60)) for _ in range(30)] == [UnfitReason.QUIET] * 30, "softer teaches nothing"


def test_quiet_for_longer_than_a_long_weekend_is_doubted_unless_the_machine_is_known_to_be_off() -> None:
    def quiet_at(hours: float) -> Window:
        return Window(noise(-60), START + timedelta(hours=hours))

    memory = SourceMemory()
    memory.keep_level(-30)
    fitness = WindowFitness(FitnessLimits(quiet_for_s=96 * 3600), memory)
    assert fitness.check(quiet_at(0)) is UnfitReason.QUIET
    assert fitness.check(quiet_at(95.9)) is UnfitReason.QUIET
    assert fitness.check(quiet_at(96)) is UnfitReason.LEVEL
    fitness.mark_off()
    assert fitness.check(quiet_at(200)) is UnfitReason.QUIET
    assert fitness.check(Window(noise(-30), START + timedelta(hours=280))) is None
    assert fitness.check(quiet_at(300)) is UnfitReason.QUIET, "it ran in between"


def test_level_at_which_somebody_says_that_the_machine_is_off_holds_without_memory() -> None:
    fitness = WindowFitness(FitnessLimits(off_below_dbfs=-50))
    assert fitness.check(window(-51)) is UnfitReason.OFF
    assert fitness.check(window(-49)) is None
    assert fitness.check(Window(np.zeros(160_000, np.float32), START)) is UnfitReason.SILENCE, "not off: dead"


def test_level_without_memory_is_not_judged() -> None:
    fitness = WindowFitness()
    assert [fitness.check(window(level)) for level in (-20, -70, *(-20,) * 12, -70)] == [None] * 15


def test_usual_level_is_remembered_from_run_to_run(tmp_path: Path) -> None:
    file = tmp_path / "machines" / "fan" / "source.json"
    first = WindowFitness(None, SourceMemory(file))
    for _ in range(12):
        first.check(window(-30))
    assert json.loads(file.read_text())["level_dbfs"] == pytest.approx(-30, abs=0.1)
    assert WindowFitness(None, SourceMemory(file)).check(window(-55)) is UnfitReason.QUIET
    assert [p.name for p in file.parent.iterdir()] == ["source.json"]


def test_unfit_windows_do_not_teach_a_level() -> None:
    memory = SourceMemory()
    fitness = WindowFitness(None, memory)
    for _ in range(20):
        assert fitness.check(Window(np.zeros(160_000, np.float32), START)) is UnfitReason.SILENCE
    assert memory.level_dbfs is None


def test_samples_at_another_rate_than_promised_are_unfit() -> None:
    assert WindowFitness().check(window(rate_error=0.088)) is UnfitReason.RATE  # 48 kHz that say 44.1
    assert WindowFitness().check(window(rate_error=-0.088)) is UnfitReason.RATE
    assert WindowFitness().check(window(rate_error=0.02)) is None


def test_window_of_a_rate_that_nobody_knows_yet_is_unfit() -> None:
    assert WindowFitness().check(window(rate_error=None)) is UnfitReason.RATE_UNKNOWN  # type: ignore[arg-type]


def test_deafness_is_told_also_when_the_clock_was_set_back_meanwhile() -> None:
    fitness = WindowFitness(FitnessLimits(deaf_after_s=60))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert not fitness.mark_unusable(start)
    a_year_before = start - timedelta(days=365)
    assert not fitness.mark_unusable(a_year_before)
    assert fitness.mark_unusable(a_year_before + timedelta(seconds=60))


def test_deafness_is_told_once_a_spell() -> None:
    fitness = WindowFitness(FitnessLimits(deaf_after_s=60))
    minutes = [START + timedelta(seconds=20 * n) for n in range(8)]
    assert [fitness.mark_unusable(at) for at in minutes] == [False, False, False, True, False, False, False, False]
    assert fitness.deaf_text == ", and nothing usable for 60 s"
    fitness.mark_usable()
    assert fitness.deaf_text == ""
    assert [fitness.mark_unusable(at) for at in minutes].count(True) == 1


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"identity": 3, "level_dbfs": "x"}', '{"level_dbfs": NaN}'])
def test_memory_that_makes_no_sense_is_learned_anew(content: str, tmp_path: Path) -> None:
    file = tmp_path / "source.json"
    file.write_text(content)
    memory = SourceMemory(file)
    assert (memory.identity, memory.level_dbfs) == (None, None)
    memory.keep_level(-20.0)
    assert SourceMemory(file).level_dbfs == -20


def test_memory_that_cannot_be_written_costs_only_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "machines").write_text("a file, where a folder should be")
    memory = SourceMemory(tmp_path / "machines" / "source.json")
    memory.keep_level(-20.0)
    assert memory.level_dbfs == -20
    assert "can't be written" in caplog.text


def test_another_device_is_objected_to_and_the_first_is_remembered(tmp_path: Path) -> None:
    file = tmp_path / "source.json"
    assert SourceMemory(file).check_device("usb-id:0d8c:0014:A1") is None
    again = SourceMemory(file)
    assert again.check_device("usb-id:0d8c:0014:A1") is None
    against = again.check_device("usb-id:0d8c:0014:B2")
    assert against is not None
    assert "usb-id:0d8c:0014:B2, not usb-id:0d8c:0014:A1" in against
    assert str(file) in against


def blocks(*parts: NDArray[np.float32]) -> list[SourceEvent]:
    return [Block(part) for part in parts]


def test_silence_is_found_before_the_window_ends_once_a_spell() -> None:
    silence, sound = np.zeros(8000, np.float32), noise(-30, 8000)
    heard = list(with_dead_microphone_events(blocks(sound, *[silence] * 8, sound, *[silence] * 3)))
    assert [n for n, item in enumerate(heard) if isinstance(item, DeadMicrophone)] == [4, 15]
    assert heard[4] == DeadMicrophone("silence")
    assert [n for n, item in enumerate(heard) if isinstance(item, SoundReturned)] == [11], (
        "after the block that ends it"
    )


def test_silence_that_ends_with_the_microphone_is_said_to_be_over_by_nobody_but_who_says_it_is_back() -> None:
    silence, sound = Block(np.zeros(8000, np.float32)), Block(noise(-30, 8000))
    heard = list(with_dead_microphone_events([silence] * 4 + [SourceLost("unplugged", 1.0)] + [sound, sound]))
    assert not any(isinstance(item, SoundReturned) for item in heard)


def test_stuck_value_is_found_and_a_changing_one_is_not() -> None:
    stuck = np.full(8000, 0.3, np.float32)
    assert DeadMicrophone("stuck") in list(with_dead_microphone_events(blocks(stuck, stuck, stuck)))
    steps = [np.full(8000, level, np.float32) for level in (0.1, 0.2, 0.3, 0.4)]
    assert not any(isinstance(item, DeadMicrophone) for item in with_dead_microphone_events(blocks(*steps)))


def test_window_in_which_silence_ends_is_given_out_and_the_next_begins_with_sound() -> None:
    cutter = WindowCutter(live=True)
    list(cutter.feed(Block(np.zeros(80_000, np.float32))))
    tainted, back = cutter.feed(SoundReturned())
    assert isinstance(tainted, Window)
    assert tainted.gap_samples == 80_000
    assert back == SoundReturned()
    (clean,) = cutter.feed(Block(noise(-30, 160_000)))
    assert isinstance(clean, Window)
    assert unfit_reason(clean.samples, clean.gap_samples) is None


def test_window_that_is_filling_is_not_interrupted_by_what_is_said_between() -> None:
    cutter = WindowCutter(live=True)
    assert list(cutter.feed(Block(noise(-30, 80_000)))) == []
    assert list(cutter.feed(DeadMicrophone("silence"))) == [DeadMicrophone("silence")]
    (made,) = cutter.feed(Block(noise(-30, 80_000), rate_error=0.07))
    assert isinstance(made, Window)
    assert (made.gap_samples, made.rate_error) == (0, 0.07)
    assert list(cutter.feed(SourceLost("x", 1.0)))[-1] == SourceLost("x", 1.0)


def drive(clock: SampleClock, seconds: int, rate: float, start_s: float = 0.0, jitter_s: float = 0.0) -> float | None:
    """Half-second blocks of a device that really runs at `rate` times 16 kHz; the last error."""
    rng, error = np.random.default_rng(0), None
    for n in range(1, 2 * seconds):
        error = clock.count(8000, start_s + n * 0.5 / rate + jitter_s * float(rng.uniform()))
    return error


@pytest.mark.parametrize("ppm", [-200.0, 0.0, 150.0])
def test_clock_measures_the_drift_of_a_good_device_as_none_to_worry_about(ppm: float) -> None:
    clock = SampleClock()
    assert drive(clock, 3600, 1 + ppm / 1e6, jitter_s=0.03) == pytest.approx(0, abs=0.002)
    assert clock.drift_ppm == pytest.approx(ppm, abs=20)


def test_clock_finds_a_rate_that_is_not_what_it_says() -> None:
    clock = SampleClock()
    assert drive(clock, 20, 48 / 44.1) == 0.0, "too early to know"
    assert drive(SampleClock(), 60, 48 / 44.1) == pytest.approx(48 / 44.1 - 1, abs=0.003)
    assert clock.drift_ppm is None


@pytest.mark.parametrize("rate", [0.5, 22_050 / 16_000, 1.5, 2.0, 6.0])
def test_clock_finds_another_format_within_a_window_and_a_half(rate: float) -> None:
    assert drive(SampleClock(), 4, rate) is None
    blocks = round(20 * rate)
    error = drive(SampleClock(), blocks, rate, jitter_s=0.2)
    assert error == pytest.approx(rate - 1, abs=0.1)


def test_clock_after_a_gap_counts_anew_and_keeps_the_drift() -> None:
    clock = SampleClock()
    drive(clock, 600, 1.0001)
    clock.restart()
    assert drive(clock, 60, 1.0, start_s=5000) == pytest.approx(0, abs=1e-9)
    assert clock.drift_ppm == pytest.approx(100, abs=100)
