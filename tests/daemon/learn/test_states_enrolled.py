"""Machines with states, from their sound to what is judged: found, named by people, kept through additions, spread over time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from asd_daemon.errors import DataSetError
from asd_daemon.hear.source import Block, ScriptedSource, SourceEvent
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.scorer import Scorer, WindowScore
from asd_daemon.learn import enrolment
from asd_daemon.learn.collecting import EnrolmentProgress
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, EnrolmentResult, enrol
from asd_daemon.learn.enrolment_record import EnrolmentRecord, read_enrolment
from asd_daemon.learn.relearning import relearn_from_kept
from rig.bundles import failing_noise, healthy_noise, write_tiny_bundle

A, B = 1.0, 9.0  # tilts of two products


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("states") / "tiny")


@pytest.fixture(autouse=True)
def two_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrolment, "VIEW_NAMES", ("steady-mean", "steady-quiet"))


def sound(count: int, tilt: float, seed: int = 0, gain: float = 1.0) -> list[SourceEvent]:
    rng = np.random.default_rng(seed)
    return [Block(np.asarray(gain * healthy_noise(rng, tilt), np.float32)) for _ in range(count)]


def enrolled(bundle: Bundle, root: Path, script: Sequence[SourceEvent], **options: object) -> EnrolmentResult:
    told: list[EnrolmentProgress] = []
    request = EnrolmentRequest("pump", "script", None, **options)  # type: ignore[arg-type]
    return enrol(bundle, root, request, ScriptedSource(list(script)), told.append)


@pytest.fixture(scope="module")
def learned(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products, and off."""
    root = tmp_path_factory.mktemp("state") / "enrolled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolment, "VIEW_NAMES", ("steady-mean", "steady-quiet"))
        script = [*sound(24, A, 1), *sound(16, B, 2), *sound(10, 5.0, 3, gain=0.01)]
        enrolled(bundle, root, script, keeps_sound=True)
    return root


@pytest.fixture
def root(learned: Path, tmp_path: Path) -> Path:
    shutil.copytree(learned, tmp_path / "enrolled")
    return tmp_path / "enrolled"


def record_of(root: Path) -> EnrolmentRecord:
    record = read_enrolment(root, "pump")
    assert record is not None
    return record


def judged(bundle: Bundle, root: Path, tilt: float, gain: float = 1.0, *, ill: bool = False) -> WindowScore:
    make = failing_noise if ill else healthy_noise
    samples = np.asarray(gain * make(np.random.default_rng(77), tilt), np.float32)
    return Scorer(with_enrolled_machine(bundle, root, "pump"), "pump").score(samples)


def test_off_and_two_products_are_found_and_kept_in_the_record(root: Path) -> None:
    record = record_of(root)
    assert record.states is not None
    assert record.states.off is not None
    assert record.states.off.share == pytest.approx(0.2)
    first, second = record.states.running
    assert (first.name, first.windows, second.windows) == ("running", 24, 16)
    assert second.name.startswith("running, ")
    assert record.window_states == (first.name,) * 24 + (second.name,) * 16
    assert record.windows == record.sounds == 40, "nothing is learned from a machine that is off"
    assert record.level_dbfs[0] > record.states.off.below_dbfs
    assert record.state_names == ("off", first.name, second.name)


def test_window_is_judged_in_its_state_and_off_is_no_anomaly(bundle: Bundle, root: Path) -> None:
    first, second = (state.name for state in record_of(root).states.running)  # type: ignore[union-attr]
    for tilt, name in ((A, first), (B, second)):
        well, ill = judged(bundle, root, tilt), judged(bundle, root, tilt, ill=True)
        assert (well.operating_state, well.anomalous, well.is_off) == (name, False, False)
        assert ill.anomalous
        assert not ill.is_off
    off = judged(bundle, root, 5.0, gain=0.01)
    assert (off.operating_state, off.is_off, off.anomalous) == ("off", True, False)
    assert not judged(bundle, root, 5.0, gain=1e-4).is_off, "so quiet it never was: does the microphone still hear?"


def test_state_that_was_never_heard_is_anomalous_until_somebody_names_it(bundle: Bundle, root: Path) -> None:
    assert judged(bundle, root, 16.0).anomalous
    added = enrolled(bundle, root, sound(16, 16.0, 5), add=True, state="product C")
    assert [state.name for state in added.learned.running][-1] == "product C"
    assert judged(bundle, root, 16.0).operating_state == "product C"
    assert not judged(bundle, root, 16.0).anomalous
    assert not judged(bundle, root, A).anomalous
    assert judged(bundle, root, 16.0, ill=True).anomalous
    assert judged(bundle, root, 5.0, gain=0.01).is_off, "what is known of off stays"


def test_windows_that_are_added_without_a_name_go_to_the_state_they_are_nearest_to(bundle: Bundle, root: Path) -> None:
    added = enrolled(bundle, root, sound(3, B, 6), add=True)
    assert {state.name: state.learned.held_out.shape[0] for state in added.learned.running}.popitem()[1] == 19


def test_machine_with_one_normal_learns_a_state_and_off_by_name(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "enrolled"
    one = enrolled(bundle, root, sound(20, A, 1)).record
    assert one.states is None
    assert one.state_names == ()
    assert judged(bundle, root, B).anomalous
    enrolled(bundle, root, sound(16, B, 2), add=True, state="B")
    assert [state.name for state in record_of(root).states.running] == ["running", "B"]  # type: ignore[union-attr]
    done = enrolled(bundle, root, sound(2, 5.0, 3, gain=0.02), add=True, state="off")
    assert done.learned.words == "3 states: off, running (56% of the time), B (44% of the time)"
    assert judged(bundle, root, A, gain=0.02).is_off
    with pytest.raises(DataSetError, match="too little to tell the two by their level"):
        enrolled(bundle, root, sound(2, 5.0, 3, gain=0.9), add=True, state="off")


def test_states_outlive_views_that_are_computed_otherwise(bundle: Bundle, root: Path) -> None:
    before = record_of(root)
    file = root / "pump" / "enrolled.json"
    content = json.loads(file.read_text())
    content["views"]["steady-mean"]["sums"][0] += 9.0
    content["window_states"] = ["A"] * 24 + ["B"] * 16
    file.write_text(json.dumps(content))
    after = relearn_from_kept(bundle, root, "pump")
    assert after.states is not None
    assert after.states.off == before.states.off  # type: ignore[union-attr]
    assert [(state.name, state.windows) for state in after.states.running] == [("A", 24), ("B", 16)]
    assert after.sound_rows == tuple(range(40))


def test_record_is_understood_by_who_knows_no_states(root: Path) -> None:
    content = json.loads((root / "pump" / "enrolled.json").read_text())
    assert "states" not in content["entry"], "an entry with unknown keys would be refused"
    record = EnrolmentRecord.model_validate({k: v for k, v in content.items() if k not in ("states", "window_states")})
    assert record.judged_entry.states is None


def test_windows_spread_over_time_are_one_a_slot_and_few_are_kept_as_sound(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asd_daemon.learn.collecting.MOST_SOUNDS", 10)
    root, script = tmp_path / "enrolled", [*sound(30, A, 1), *sound(30, B, 2)]
    told: list[EnrolmentProgress] = []
    request = EnrolmentRequest("pump", "script", 40, over_s=800.0, keeps_sound=True)
    with pytest.raises(DataSetError, match="usable windows"):
        enrol(bundle, root, request, ScriptedSource(script[:20]), told.append)
    assert len(list((root / "pump" / "collecting").glob("window-*.npz"))) <= 11
    done = enrol(bundle, root, request, ScriptedSource(script * 2), told.append)
    assert 16 <= done.record.windows <= 40
    assert done.record.sounds <= 10
    assert any((progress.message or "").startswith("going on with") for progress in told)
    assert all(row < done.record.windows for row in done.record.sound_rows)
