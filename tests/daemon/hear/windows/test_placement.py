"""What is said to somebody who places a microphone: each disturbance by its own kind, and nothing of a machine that is heard well."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.hear.opening import open_source
from asd_daemon.hear.source import Block
from asd_daemon.hear.source_spec import parse_source
from asd_daemon.hear.windows.placement import placement_findings

N = 8 * 16_000
T = np.arange(N) / 16_000
Sound = NDArray[np.float64]


def kinds(sound: Sound) -> list[str]:
    return [one.kind for one in placement_findings(np.asarray(sound, np.float32))]


def noise(rms: float, seed: int = 0, slope: float = 0.0) -> Sound:
    """White noise, or with a power that falls with frequency to the power of `slope` (1: pink)."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=N))
    spectrum[1:] /= np.arange(1, spectrum.shape[0]) ** (slope / 2)
    made = np.fft.irfft(spectrum, N)
    return np.asarray(rms * made / made.std())


def hum(hz: float, amplitude: float = 0.05) -> Sound:
    return np.asarray(sum(amplitude / k * np.sin(2 * np.pi * hz * k * T) for k in (1, 2, 3, 4)))


def gusts(seed: int) -> Sound:
    rng = np.random.default_rng(seed)
    slow = np.fft.rfft(rng.normal(size=N))
    slow[int(60 * N / 16_000) :] = 0
    made = np.fft.irfft(slow, N)
    strength = np.repeat(np.exp(rng.normal(0, 1.5, N // 1600)), 1600)
    return np.asarray(0.15 * strength / strength.max() * made / made.std()) + noise(0.0005, seed)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slope", [0.0, 1.0])
def test_a_room_without_a_machine_is_told_as_such(seed: int, slope: float) -> None:
    assert kinds(noise(0.002, seed, slope)) == ["room"]


@pytest.mark.parametrize("mains", [50, 60])
def test_hum_of_the_mains_is_told_with_a_doubt_whose_it_is(mains: int) -> None:
    (found,) = placement_findings(np.asarray(hum(mains) + noise(0.002), np.float32))
    assert (found.kind, found.look) == ("hum", "doubt")
    assert f"{mains} Hz" in found.words
    assert "hum" not in kinds(hum(54.3) + noise(0.002)), "a motor's tone is no hum"


@pytest.mark.parametrize("seed", range(4))
def test_wind_and_touches_are_told(seed: int) -> None:
    assert "wind" in kinds(gusts(seed))


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_sound_gate_is_told(share: float) -> None:
    is_open = np.repeat(np.random.default_rng(1).random(N // 1600) < share, 1600)
    assert kinds(noise(0.05) * is_open + noise(1e-5, 1)) == ["gate"]


@pytest.mark.parametrize(
    ("sound", "kind"),
    [
        (np.zeros(N), "silence"),
        (np.clip(noise(2.0), -1, 1), "clipping"),
        (noise(0.05) + 0.3, "dc_offset"),
        (noise(0.00005), "too_quiet"),
        (0.0004 * np.sin(2 * np.pi * 700 * T) + noise(0.0002), "soft"),
        (0.95 * np.sin(2 * np.pi * 440 * T) + noise(0.001), "loud"),
    ],
)
def test_level_and_broken_sound_are_told(sound: Sound, kind: str) -> None:
    assert kinds(sound)[0] == kind


@pytest.mark.parametrize("machine", ["fan", "gearbox", "bearing", "slider", "valve", "ToyCar", "ToyTrain"])
def test_of_a_machine_that_is_heard_well_nothing_is_said_but_that(machine: str) -> None:
    source = open_source(parse_source(f"simulate:{machine}?speed=max&seconds=8"))
    sound = np.concatenate([event.samples for event in source.events() if isinstance(event, Block)])
    assert kinds(np.asarray(sound, np.float64)) == ["good"]


def test_of_less_than_three_seconds_nothing_is_said() -> None:
    assert kinds(noise(0.05)[: 2 * 16_000]) == []
