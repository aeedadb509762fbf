"""A machine that is learned with two microphones: judged without the hall, by the near one where the far one is lost, and not in din."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asd_daemon.errors import EnrolmentError
from asd_daemon.hear.simulator import SimulatedMachine, render_noise
from asd_daemon.hear.simulator.two_microphones import HeardApart, draw_two_microphones, hear_in_hall
from asd_daemon.hear.source import Block, ScriptedSource, SourceHealth
from asd_daemon.judge.bundle.bundle import Bundle, default_bundle, load_bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.learn import enrolment, relearning
from asd_daemon.learn.collecting import EnrolmentProgress
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, EnrolmentResult, enrol
from asd_daemon.learn.enrolment_record import RECORD, read_enrolment
from asd_daemon.learn.online_enrolment import ForwardedWindows
from asd_daemon.learn.relearning import relearn_from_kept

F32 = NDArray[np.float32]
VIEWS = ("steady-mean", "steady-quiet")


@pytest.fixture(scope="module")
def heard() -> list[HeardApart]:
    """A bearing that hums, and a compressor or two, machine and noise apart."""
    rng = np.random.default_rng(5)
    places, machine = draw_two_microphones(rng, 1).with_crosstalk(-14.0), SimulatedMachine("bearing")
    return [
        hear_in_hall(places, machine.render(10, rng), [render_noise(kind, 10, rng)])
        for kind in ("compressor", "pink", "hum") * 9
    ]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(default_bundle())


@pytest.fixture(autouse=True)
def few_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two views instead of seven: time."""
    monkeypatch.setattr(enrolment, "VIEW_NAMES", VIEWS)
    monkeypatch.setattr(relearning, "VIEW_NAMES", VIEWS)


def blocks(heard: list[HeardApart], ratio_db: float, *, far: bool = True) -> Iterator[Block]:
    rng = np.random.default_rng(1)
    for number, one in enumerate(heard):
        calm = ratio_db < 10 and number % 5 == 0
        near, other = one.mixed(15.0 if calm else ratio_db + float(rng.uniform(-4, 4))).both.T.copy()
        yield Block(near, far=other if far else None)


def learned(
    bundle: Bundle, root: Path, said: Iterator[Block], *, keeps: bool = True, add: bool = False, relearn: bool = False
) -> tuple[EnrolmentResult, list[str]]:
    words: list[str] = []

    def tell(progress: EnrolmentProgress) -> None:
        words.extend(filter(None, [progress.message]))

    request = EnrolmentRequest("drive", "script", None, keeps_sound=keeps, add=add, relearn=relearn)
    return enrol(bundle, root, request, ScriptedSource(said), tell), words


@pytest.fixture(scope="module")
def home(bundle: Bundle, heard: list[HeardApart], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two") / "enrolled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolment, "VIEW_NAMES", VIEWS)
        learned(bundle, root, blocks(heard[:20], -2.0))
    return root


def scorer_of(bundle: Bundle, home: Path) -> Scorer:
    return Scorer(with_enrolled_machine(bundle, home, "drive"), "drive")


def test_what_was_learned_stands_in_the_record(home: Path) -> None:
    record = read_enrolment(home, "drive")
    assert record is not None
    assert record.hall is not None
    assert record.hall.way == "cancelled"
    assert record.hall.share > 0.1
    assert record.hall.near is not None
    assert record.hall.file in record.judged_files()
    assert any(name.endswith("near/fusion.npz") for name in record.judged_files())
    assert record.sounds == 20


def test_normal_windows_stay_normal_with_both_and_with_the_near_one_alone(
    bundle: Bundle, home: Path, heard: list[HeardApart]
) -> None:
    scorer = scorer_of(bundle, home)
    for one in heard[20:24]:
        both = one.mixed(-2.0).both
        with_far, without = scorer.score(both), scorer.score(np.ascontiguousarray(both[:, 0]))
        assert not with_far.anomalous
        assert not without.anomalous
        assert with_far.hall is not None
        assert 0.05 < (with_far.hall.share or 0) <= 1
        assert without.hall is not None
        assert without.hall.share is None
        assert (
            without.threshold == with_far.threshold
        )  # a far microphone that comes and goes does not unsettle what is learned of it
        assert without.enrolled == with_far.enrolled


def test_a_hall_louder_than_ever_drowns_the_machine(bundle: Bundle, home: Path, heard: list[HeardApart]) -> None:
    scorer = scorer_of(bundle, home)
    usual, din = (scorer.score(heard[20].mixed(ratio).both).hall for ratio in (0.0, -18.0))
    assert usual is not None
    assert not usual.drowns
    assert din is not None
    assert din.drowns


def test_a_machine_that_gets_louder_is_no_din(bundle: Bundle, home: Path, heard: list[HeardApart]) -> None:
    louder = heard[20].mixed(0.0).both + 3 * heard[21].machine
    hall = scorer_of(bundle, home).score(louder.astype(np.float32)).hall
    assert hall is not None
    assert not hall.drowns


def test_a_calm_hall_leaves_the_near_microphone_as_it_is(
    bundle: Bundle, heard: list[HeardApart], tmp_path: Path
) -> None:
    result, words = learned(bundle, tmp_path / "enrolled", blocks(heard[:18], 45.0))
    assert result.record.hall is not None
    assert result.record.hall.way == "near"
    assert result.record.hall.near is None
    assert any("judged by the near one" in word for word in words)
    scorer = scorer_of(bundle, tmp_path / "enrolled")
    both = heard[19].mixed(45.0).both
    assert scorer.score(both).score == scorer.score(np.ascontiguousarray(both[:, 0])).score


def test_without_kept_sound_one_microphone_is_learned_and_that_is_said(
    bundle: Bundle, heard: list[HeardApart], tmp_path: Path
) -> None:
    result, words = learned(bundle, tmp_path / "enrolled", blocks(heard[:16], -2.0), keeps=False)
    assert result.record.hall is None
    assert any("keep.enrolment_sound" in word for word in words)


def test_learned_with_one_microphone_it_goes_on_with_one(
    bundle: Bundle, heard: list[HeardApart], tmp_path: Path
) -> None:
    root = tmp_path / "enrolled"
    result, _ = learned(bundle, root, blocks(heard[:16], 3.0, far=False))
    assert result.record.hall is None
    verdict = scorer_of(bundle, root).score(heard[20].mixed(3.0).both)
    assert verdict.hall is None
    result, _ = learned(bundle, root, blocks(heard[16:20], 3.0), add=True)
    assert result.record.hall is None


def test_windows_are_added_to_a_machine_of_two(
    bundle: Bundle, home: Path, heard: list[HeardApart], tmp_path: Path
) -> None:
    root = tmp_path / "enrolled"
    shutil.copytree(home, root)
    result, _ = learned(bundle, root, blocks(heard[20:24], -2.0), add=True)
    assert result.record.windows == 24
    assert result.record.hall is not None
    assert result.record.hall.way == "cancelled"


def test_it_is_learned_anew_from_what_was_kept(
    bundle: Bundle, home: Path, heard: list[HeardApart], tmp_path: Path
) -> None:
    root = tmp_path / "enrolled"
    shutil.copytree(home, root)
    record = relearn_from_kept(bundle, root, "drive")
    assert record.hall is not None
    assert record.hall.way == "cancelled"
    assert not scorer_of(bundle, root).score(heard[20].mixed(-2.0).both).anomalous
    for file in (root / "drive").rglob("*.flac"):
        samples, rate = soundfile.read(file)
        soundfile.write(file, samples[:, 0], rate)
    with pytest.raises(EnrolmentError, match="learn it anew"):
        relearn_from_kept(bundle, root, "drive")


def test_what_a_judge_hears_of_two_microphones_is_learned_while_it_judges(heard: list[HeardApart]) -> None:
    windows = ForwardedWindows(SourceHealth())
    windows.forward(heard[0].both)
    block = next(iter(windows.events()))
    assert isinstance(block, Block)
    assert block.far is not None
    np.testing.assert_array_equal(np.stack([block.samples, block.far], axis=1), heard[0].both)


def test_a_damaged_file_of_the_hall_is_named(bundle: Bundle, home: Path, tmp_path: Path) -> None:
    root = tmp_path / "enrolled"
    shutil.copytree(home, root)
    [file] = (root / "drive").rglob("hall.npz")
    file.write_bytes(b"x" + file.read_bytes()[1:])
    with pytest.raises(EnrolmentError, match="hall.npz"):
        with_enrolled_machine(bundle, root, "drive")


def test_a_record_of_an_earlier_version_has_no_hall(home: Path, tmp_path: Path) -> None:
    root = tmp_path / "enrolled"
    shutil.copytree(home, root)
    file = root / "drive" / RECORD
    content = json.loads(file.read_text())
    del content["hall"]
    file.write_text(json.dumps(content))
    record = read_enrolment(root, "drive")
    assert record is not None
    assert record.hall is None
    assert datetime.fromisoformat(record.created).astimezone(UTC).year >= 2024
