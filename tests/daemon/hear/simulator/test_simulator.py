"""Simulated machines and noises: reproducible, seamless, and with the physics that they promise."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import butter, hilbert, sosfiltfilt, welch

from asd_daemon.errors import UsageError
from asd_daemon.hear.simulator import (
    MACHINES,
    NOISES,
    NOMINAL_DBFS,
    SimulatedMachine,
    mix,
    render_noise,
    stream_noise,
)
from asd_daemon.hear.simulator.scene import DOMAINS, LEVEL_DBFS, Scene, SceneStream, draw_scene
from asd_daemon.judge.features.log_mel import log_mel
from asd_daemon.waveform import SAMPLE_RATE_HZ

FAILURES = [(machine, failure) for machine in MACHINES for failure in SimulatedMachine(machine).failures]
DAEMON = Path(__file__).resolve().parents[4] / "daemon"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def level_dbfs(samples: NDArray[np.float32]) -> float:
    return float(10 * np.log10(np.mean(samples.astype(np.float64) ** 2)))


def peak_in(
    frequency_hz: NDArray[np.float64], power: NDArray[np.float64], wanted_hz: float, within: float = 0.02
) -> float:
    """Height in dB of the highest line within a share of a frequency over the median of its surroundings."""
    near = np.abs(frequency_hz / wanted_hz - 1) < within
    around = np.abs(frequency_hz / wanted_hz - 1) < 0.3
    return float(10 * np.log10(power[near].max() / np.median(power[around])))


def envelope_spectrum(
    samples: NDArray[np.float32], low_hz: float, high_hz: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    band = sosfiltfilt(butter(4, [low_hz, high_hz], "bandpass", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    envelope = np.abs(hilbert(band)) ** 2
    lines = np.fft.rfft((envelope - envelope.mean()) * np.hanning(envelope.shape[0]))
    power = np.square(np.abs(lines), dtype=np.float64)
    frequency_hz = np.arange(power.shape[0], dtype=np.float64) * SAMPLE_RATE_HZ / envelope.shape[0]
    return frequency_hz[1:], power[1:]


@pytest.mark.parametrize("machine", MACHINES)
def test_render_same_unit_and_seed_gives_the_same_bits_and_others_differ(machine: str) -> None:
    once = SimulatedMachine(machine).render(1.0, rng(5))
    assert once.dtype == np.float32
    assert once.shape == (SAMPLE_RATE_HZ,)
    assert np.array_equal(once, SimulatedMachine(machine).render(1.0, rng(5)))
    assert not np.array_equal(once, SimulatedMachine(machine).render(1.0, rng(6)))
    assert not np.array_equal(once, SimulatedMachine(machine, serial=1).render(1.0, rng(5)))


def test_render_in_another_process_gives_the_same_bits() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from asd_daemon.hear.simulator import MACHINES, NOISES, SimulatedMachine, render_noise\n"
        "sound = [SimulatedMachine(m, 3).render(1.3, np.random.default_rng(1), None, SimulatedMachine(m).failures[0], 0.5)"
        " for m in MACHINES] + [render_noise(n, 1.3, np.random.default_rng(1)) for n in NOISES]\n"
        "print(hashlib.sha256(np.concatenate(sound).tobytes()).hexdigest())"
    )
    there = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(DAEMON)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    machines = [
        SimulatedMachine(m, 3).render(1.3, rng(1), None, SimulatedMachine(m).failures[0], 0.5) for m in MACHINES
    ]
    here = np.concatenate([*machines, *(render_noise(noise, 1.3, rng(1)) for noise in NOISES)])
    assert there == {hashlib.sha256(here.tobytes()).hexdigest()}


@pytest.mark.parametrize("block_s", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("machine", MACHINES)
def test_stream_blocks_of_any_length_join_to_the_rendered_sound(machine: str, block_s: float) -> None:
    unit = SimulatedMachine(machine)
    blocks = list(itertools.islice(unit.stream(rng(2), block_s=block_s), round(5 / block_s)))
    assert {block.shape for block in blocks} == {(round(block_s * SAMPLE_RATE_HZ),)}
    assert np.array_equal(np.concatenate(blocks), unit.render(5.0, rng(2)))


@pytest.mark.parametrize("machine", MACHINES)
def test_stream_at_the_borders_of_seconds_does_not_click(machine: str) -> None:
    sound = SimulatedMachine(machine).render(40.0, rng(3), failure=SimulatedMachine(machine).failures[0], severity=0.5)
    steps = np.abs(np.diff(sound))
    borders = steps[SAMPLE_RATE_HZ - 1 :: SAMPLE_RATE_HZ]
    assert borders.shape == (39,)
    assert np.median(borders) < 1.8 * np.median(steps)
    assert borders.max() < np.quantile(steps, 0.9995)


def test_stream_failing_and_repaired_differs_only_in_between() -> None:
    unit = SimulatedMachine("fan")
    healthy = unit.render(8.0, rng(4)).reshape(8, -1)
    stream = unit.stream(rng(4))
    heard = []
    for second in range(8):
        if second == 3:
            stream.fail("rubbing", 1.0)
        if second == 5:
            stream.repair()
        heard.append(next(stream))
    changed = [not np.array_equal(a, b) for a, b in zip(heard, healthy, strict=True)]
    assert changed[:3] == [False] * 3
    assert changed[3:6] == [True] * 3  # the third of them heals
    np.testing.assert_allclose(np.stack(heard[7:]), healthy[7:], atol=1e-6)


def test_fail_at_a_low_severity_is_weaker_than_at_a_high_one_in_the_same_stream() -> None:
    unit = SimulatedMachine("bearing")
    healthy = unit.render(6.0, rng(4)).reshape(3, -1)
    stream = unit.stream(rng(4), block_s=2.0)
    excess = []
    for block, severity in enumerate((0.0, 0.3, 1.0)):
        stream.fail("outer_race", severity)
        excess.append(float(np.std(next(stream) - healthy[block])))
    assert excess[0] == 0.0
    assert 0 < 2 * excess[1] < excess[2]


@pytest.mark.parametrize(("machine", "failure"), FAILURES)
def test_render_with_severity_going_to_zero_converges_to_healthy(machine: str, failure: str) -> None:
    unit = SimulatedMachine(machine)
    healthy = unit.render(4.0, rng(7))
    off = [
        float(np.std(unit.render(4.0, rng(7), failure=failure, severity=severity) - healthy) / np.std(healthy))
        for severity in (1.0, 0.1, 1e-3, 1e-5)
    ]
    assert off[0] > 0.15
    assert off[0] > off[2] > off[3]
    assert off[3] < 0.01
    assert np.array_equal(unit.render(4.0, rng(7), failure=failure, severity=0.0), healthy)


def texture(machine: str, seed: int, failure: str | None = None) -> NDArray[np.float64]:
    """Mean and deviation of every mel band and the pace of the whole, with loudness taken away."""
    mel = log_mel(SimulatedMachine(machine).render(10.0, rng(seed), failure=failure)).astype(np.float64)
    flat = mel - mel.mean()
    power = np.exp(flat).mean(axis=1)
    pace = np.abs(np.fft.rfft(power - power.mean()))[1:300]
    rhythm = np.log(pace.reshape(-1, 13).mean(axis=1) + 1e-3)
    return np.concatenate([flat.mean(axis=0), flat.std(axis=0), 0.5 * rhythm])


@lru_cache
def healthy_textures(machine: str) -> tuple[NDArray[np.float64], ...]:
    return tuple(texture(machine, seed) for seed in range(6))


@pytest.mark.parametrize(("machine", "failure"), FAILURES)
def test_render_failing_changes_the_texture_beyond_what_healthy_runs_differ(machine: str, failure: str) -> None:
    healthy = np.stack(healthy_textures(machine))
    among = np.linalg.norm(healthy[:, None] - healthy[None], axis=2) + np.diag(np.full(6, np.inf))
    failing = [np.linalg.norm(texture(machine, seed, failure) - healthy, axis=1).min() for seed in range(10, 13)]
    assert np.median(failing) > 1.25 * np.median(among.min(axis=1))


@pytest.mark.parametrize("machine", MACHINES)
def test_render_every_value_and_failure_is_finite_unclipped_and_of_sane_level(machine: str) -> None:
    unit = SimulatedMachine(machine)
    assert len(unit.failures) >= 2
    usual = level_dbfs(unit.render(12.0, rng(1)))
    assert usual == pytest.approx(NOMINAL_DBFS, abs=3.0)
    for name, values in unit.attributes.items():
        for value in values:
            sound = unit.render(4.0, rng(2), {name: value})
            assert np.isfinite(sound).all()
            assert NOMINAL_DBFS - 16 < level_dbfs(sound) < NOMINAL_DBFS + 16
    for failure in unit.failures:
        sound = unit.render(4.0, rng(2), failure=failure, severity=1.0)
        assert np.isfinite(sound).all()
        assert np.abs(sound).max() < 1.0
        assert level_dbfs(sound) < usual + 10


@pytest.mark.parametrize("machine", MACHINES)
def test_attributes_changed_are_heard(machine: str) -> None:
    unit = SimulatedMachine(machine)

    def bands(seed: int, attributes: dict[str, str]) -> NDArray[np.float32]:
        mel = log_mel(unit.render(8.0, rng(seed), attributes))
        return np.concatenate([mel.mean(axis=0), mel.std(axis=0)])

    same = np.linalg.norm(bands(0, {}) - bands(1, {}))
    for name, values in unit.attributes.items():
        others = [np.linalg.norm(bands(0, {}) - bands(1, {name: value})) for value in values[1:]]
        assert max(others) > 1.5 * same, name


@pytest.mark.parametrize("serial", [0, 1, 2])
def test_fan_spectrum_peaks_at_blade_pass_and_shaft(serial: int) -> None:
    unit = SimulatedMachine("fan", serial)
    frequency_hz, power = welch(unit.render(20.0, rng(1)), SAMPLE_RATE_HZ, nperseg=SAMPLE_RATE_HZ)
    rates_hz = unit.rates_hz()
    assert rates_hz["blade_pass"] / rates_hz["shaft"] == pytest.approx(
        round(rates_hz["blade_pass"] / rates_hz["shaft"])
    )
    assert peak_in(frequency_hz[1:], power[1:], rates_hz["blade_pass"]) > 12


def test_fan_load_slows_the_blades() -> None:
    unit = SimulatedMachine("fan")
    free, loaded = (unit.rates_hz({"load": load})["blade_pass"] for load in ("0", "100"))
    assert loaded < 0.97 * free


@pytest.mark.parametrize("rate", ["first_mesh", "second_mesh"])
def test_gearbox_spectrum_peaks_at_mesh_with_side_bands(rate: str) -> None:
    unit = SimulatedMachine("gearbox")
    setting = {"wt": "200"}
    frequency_hz, power = welch(unit.render(30.0, rng(1), setting), SAMPLE_RATE_HZ, nperseg=2 * SAMPLE_RATE_HZ)
    rates_hz = unit.rates_hz(setting)
    assert peak_in(frequency_hz[1:], power[1:], rates_hz[rate]) > 15


def test_gearbox_misaligned_has_higher_side_bands() -> None:
    unit = SimulatedMachine("gearbox")
    rates_hz = unit.rates_hz()
    side_hz = rates_hz["first_mesh"] + rates_hz["second_shaft"]
    heights = []
    for severity in (0.0, 1.0):
        sound = unit.render(30.0, rng(1), failure="misalignment", severity=severity)
        frequency_hz, power = welch(sound, SAMPLE_RATE_HZ, nperseg=2 * SAMPLE_RATE_HZ)
        centre = power[np.abs(frequency_hz - rates_hz["first_mesh"]) < 3].max()
        heights.append(10 * np.log10(power[np.abs(frequency_hz - side_hz) < 2].max() / centre))
    assert heights[1] > heights[0] + 5


def test_gearbox_voltage_turns_it_faster() -> None:
    unit = SimulatedMachine("gearbox")
    slow, fast = (unit.rates_hz({"volt": volt})["shaft"] for volt in ("1.0", "3.0"))
    assert fast == pytest.approx(3 * slow)


def test_bearing_rates_obey_the_kinematics() -> None:
    for serial in range(5):
        rates_hz = SimulatedMachine("bearing", serial).rates_hz({"vel": "10"})
        balls = (rates_hz["outer_race"] + rates_hz["inner_race"]) / rates_hz["shaft"]
        assert balls == pytest.approx(round(balls))  # BPFO + BPFI = n · shaft, whatever the geometry
        assert rates_hz["outer_race"] == pytest.approx(balls * rates_hz["cage"])
        assert rates_hz["cage"] < rates_hz["shaft"] / 2


@pytest.mark.parametrize("failure", ["outer_race", "inner_race", "ball"])
@pytest.mark.parametrize("vel", ["6", "14"])
def test_bearing_defect_rate_stands_in_the_envelope_spectrum(failure: str, vel: str) -> None:
    unit = SimulatedMachine("bearing")
    heights = []
    for severity in (0.0, 0.7):
        sound = unit.render(20.0, rng(2), {"vel": vel}, failure, severity)
        frequency_hz, power = envelope_spectrum(sound, 2000, 7500)
        heights.append(peak_in(frequency_hz, power, unit.rates_hz({"vel": vel})[failure]))
    assert heights[1] > heights[0] + 6
    assert heights[1] > 15


@pytest.mark.parametrize(
    ("machine", "failure", "rate", "attributes"),
    [
        ("gearbox", "tooth_damage", "second_shaft", {}),
        ("ToyCar", "damaged_gear", "wheel", {}),
        ("ToyTrain", "flat_wheel", "wheel", {}),
        ("fan", "rubbing", "shaft", {}),
    ],
)
def test_blows_of_a_failure_come_at_its_rate(machine: str, failure: str, rate: str, attributes: dict[str, str]) -> None:
    unit = SimulatedMachine(machine)
    heights = []
    for severity in (0.0, 0.9):
        frequency_hz, power = envelope_spectrum(unit.render(20.0, rng(2), attributes, failure, severity), 1500, 7500)
        heights.append(peak_in(frequency_hz, power, unit.rates_hz(attributes)[rate]))
    assert heights[1] > heights[0] + 3
    assert heights[1] > 15


def test_slider_moves_and_rests_at_its_stroke_rate() -> None:
    unit = SimulatedMachine("slider")
    sound = unit.render(40.0, rng(1))
    loud = np.sqrt(np.mean(sound.reshape(-1, 160).astype(np.float64) ** 2, axis=1))
    power = np.abs(np.fft.rfft((loud - loud.mean()) * np.hanning(loud.shape[0]))) ** 2
    frequency_hz = np.fft.rfftfreq(loud.shape[0], 0.01)
    assert frequency_hz[power.argmax()] == pytest.approx(unit.rates_hz()["stroke"], rel=0.06)


@pytest.mark.parametrize(("pattern", "opens"), [("00", 1), ("01", 2), ("02", 3), ("03", 2)])
def test_valve_clicks_as_often_as_its_pattern_says(pattern: str, opens: int) -> None:
    unit = SimulatedMachine("valve")
    seconds = 24.0
    sound = unit.render(seconds, rng(1), {"pat": pattern}).astype(np.float64)
    loud = np.log(np.mean(sound.reshape(-1, 160) ** 2, axis=1))
    rises = np.flatnonzero((loud[3:] - loud[:-3]) > 3.0)
    onsets = 1 + np.count_nonzero(np.diff(rises) > 8)
    assert onsets == pytest.approx(opens * seconds * unit.rates_hz()["cycle"], rel=0.15)


def test_valve_leak_hisses_while_it_is_closed() -> None:
    unit = SimulatedMachine("valve")
    quiet_db = []
    for severity in (0.0, 0.8):
        sound = unit.render(10.0, rng(1), failure="leak", severity=severity)
        quiet_db.append(level_dbfs(np.sort(np.abs(sound))[: sound.shape[0] // 3]))
    assert quiet_db[1] > quiet_db[0] + 3


def test_render_shortest_gives_a_tenth_of_a_second() -> None:
    for machine in MACHINES:
        assert SimulatedMachine(machine).render(0.1, rng()).shape == (1600,)
    assert render_noise("rain", 0.1, rng()).shape == (1600,)


@pytest.mark.parametrize("seconds", [0.09, 0.0, -3.0, float("nan"), float("inf")])
def test_render_unusable_length_is_refused(seconds: float) -> None:
    with pytest.raises(UsageError, match="0.1 s or more"):
        SimulatedMachine("fan").render(seconds, rng())
    with pytest.raises(UsageError, match="0.1 s or more"):
        render_noise("hum", seconds, rng())


def test_wrong_words_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'pump'.*fan, gearbox"):
        SimulatedMachine("pump")
    fan = SimulatedMachine("fan")
    with pytest.raises(UsageError, match="no attribute 'volt'"):
        fan.render(1.0, rng(), {"volt": "1"})
    with pytest.raises(UsageError, match="load has no value '75'"):
        fan.render(1.0, rng(), {"load": "75"})
    with pytest.raises(UsageError, match="'leak'.*unbalance"):
        fan.render(1.0, rng(), failure="leak")
    with pytest.raises(UsageError, match=r"severity 1.5 of rubbing"):
        fan.render(1.0, rng(), failure="rubbing", severity=1.5)
    with pytest.raises(UsageError, match="severity nan"):
        fan.render(1.0, rng(), failure="rubbing", severity=float("nan"))
    with pytest.raises(UsageError, match="'sea'.*hum"):
        render_noise("sea", 1.0, rng())


@pytest.mark.parametrize("family", NOISES)
def test_noise_is_reproducible_endless_unclipped_and_of_nominal_level(family: str) -> None:
    sound = render_noise(family, 30.0, rng(1))
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() < 1.0
    assert level_dbfs(sound) == pytest.approx(NOMINAL_DBFS, abs=6.0)
    joined = np.concatenate(list(itertools.islice(stream_noise(family, rng(1), block_s=0.3), 10)))
    assert np.array_equal(joined, sound[: joined.shape[0]])
    assert not np.array_equal(sound[:16_000], render_noise(family, 1.0, rng(2)))


def test_noise_pink_falls_by_three_decibels_an_octave() -> None:
    slopes = []
    for seed in range(6):
        frequency_hz, power = welch(render_noise("pink", 20.0, rng(seed)), SAMPLE_RATE_HZ, nperseg=4096)
        octave_db = [
            10 * np.log10(power[(frequency_hz >= low) & (frequency_hz < 2 * low)].mean())
            for low in (125, 250, 500, 1000, 2000)
        ]
        slopes.append(np.polyfit(range(5), octave_db, 1)[0])
    assert np.mean(slopes) == pytest.approx(-3.0, abs=0.7)


def test_noise_hum_stands_on_the_mains() -> None:
    frequency_hz, power = welch(render_noise("hum", 20.0, rng(1)), SAMPLE_RATE_HZ, nperseg=SAMPLE_RATE_HZ)
    assert peak_in(frequency_hz[1:], power[1:], 100.0) > 10


def test_mix_has_the_ratio_and_the_level_asked_for() -> None:
    machine, noise = SimulatedMachine("fan").render(3.0, rng(1)), render_noise("pink", 3.0, rng(2))
    whole = mix(machine, noise, snr_db=-6.0, level_dbfs=-24.0)
    assert whole.dtype == np.float32
    assert level_dbfs(whole) == pytest.approx(-24.0, abs=0.01)
    columns = np.stack([machine, noise], axis=1).astype(np.float64)
    share = np.linalg.lstsq(columns, whole.astype(np.float64), rcond=None)[0]
    assert 20 * np.log10(share[0] * machine.std() / (share[1] * noise.std())) == pytest.approx(-6.0, abs=0.05)


def test_mix_with_silence_gives_the_other_and_silence_alone_stays() -> None:
    noise, silence = render_noise("rain", 1.0, rng()), np.zeros(16_000, dtype=np.float32)
    assert level_dbfs(mix(silence, noise, 0.0, -30.0)) == pytest.approx(-30.0, abs=0.01)
    assert not mix(silence, silence, 0.0, -30.0).any()


def test_mix_of_unequal_lengths_is_refused() -> None:
    with pytest.raises(UsageError, match="100 against 200"):
        mix(np.zeros(100, dtype=np.float32), np.zeros(200, dtype=np.float32), 0.0, -30.0)


def test_mix_far_too_loud_stays_below_full_scale() -> None:
    loud = mix(render_noise("clanks", 2.0, rng(1)), render_noise("pink", 2.0, rng(2)), 0.0, 0.0)
    assert np.abs(loud).max() < 1.0


@pytest.mark.parametrize("machine", MACHINES)
def test_domains_are_playable_distinct_and_hold_the_usual_setting(machine: str) -> None:
    unit = SimulatedMachine(machine)
    usual = {name: values[0] for name, values in unit.attributes.items()}
    source, target = DOMAINS[machine]["source"], DOMAINS[machine]["target"]
    assert usual in source.settings
    assert not [setting for setting in target.settings if setting in source.settings]
    assert not set(source.noises) & set(target.noises)
    for domain in (source, target):
        assert set(domain.attributes) == set(unit.attributes)
        for name, values in domain.attributes.items():
            assert set(values) <= set(unit.attributes[name])
        assert set(domain.noises) <= set(NOISES)


def test_scene_stream_is_machine_and_noise_at_the_scene_s_ratio() -> None:
    unit = SimulatedMachine("fan")
    scene = Scene({}, "pink", snr_db=6.0, level_dbfs=-30.0)
    whole, machine, noise = (next(SceneStream(unit, scene, rng(1), 20.0, only)) for only in (None, "machine", "noise"))
    share = np.linalg.lstsq(np.stack([machine, noise], axis=1).astype(float), whole.astype(float), rcond=None)
    assert 20 * np.log10(share[0][0] / share[0][1]) == pytest.approx(6.0, abs=0.05)
    assert float(share[1][0]) < 1e-3 * float(np.sum(whole.astype(float) ** 2))
    assert level_dbfs(whole) == pytest.approx(-30.0, abs=3.0)


def test_scene_stream_fails_and_is_repaired() -> None:
    unit, scene = SimulatedMachine("gearbox"), Scene({}, "hum", snr_db=20.0, level_dbfs=-30.0)
    healthy, failing = SceneStream(unit, scene, rng(1)), SceneStream(unit, scene, rng(1))
    same = []
    for second in range(6):
        if second == 2:
            failing.fail("wear", 0.8)
        if second == 3:
            failing.repair()
        same.append(bool(np.allclose(next(healthy), next(failing), atol=1e-7)))
    assert same == [True, True, False, False, False, True]


def test_draw_scene_stays_within_its_domain_and_ranges() -> None:
    domain = DOMAINS["ToyCar"]["target"]
    scenes = [draw_scene(domain, rng(seed), (1.0, 2.0)) for seed in range(50)]
    assert {scene.noise for scene in scenes} == set(domain.noises)
    assert all(1.0 <= scene.snr_db <= 2.0 and LEVEL_DBFS[0] <= scene.level_dbfs <= LEVEL_DBFS[1] for scene in scenes)
    assert all(scene.attributes in domain.settings for scene in scenes)
    assert len({tuple(scene.attributes.values()) for scene in scenes}) == len(domain.settings)
