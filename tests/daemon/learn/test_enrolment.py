"""Learning a machine on the box: from its healthy sound to a state that `run` and `score` know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from asd_daemon.cli.program import cli
from asd_daemon.errors import BundleError, DataSetError
from asd_daemon.hear.source import Block, ScriptedSource, SourceEvent
from asd_daemon.judge.bundle.bundle import Bundle
from asd_daemon.judge.scoring.scorer import Scorer
from asd_daemon.learn import enrolment
from asd_daemon.learn.collecting import EnrolmentProgress
from asd_daemon.learn.enrolled_machines import with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, enrol
from asd_daemon.learn.enrolment_record import read_enrolment
from rig.bundles import failing_noise, healthy_noise, write_tiny_bundle

TILT = 2.0  # of a machine that the bundle does not know


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("enrolment") / "tiny")


@pytest.fixture(autouse=True)
def one_view(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All views where the commands are tested, one elsewhere: time."""
    if "commands" not in request.node.name:
        monkeypatch.setattr(enrolment, "VIEW_NAMES", ("steady-mean",))


def sound(count: int, seed: int = 5, tilt: float = TILT) -> list[SourceEvent]:
    rng = np.random.default_rng(seed)
    return [Block(healthy_noise(rng, tilt)) for _ in range(count)]


def heard_of(collection: list[EnrolmentProgress]) -> list[int]:
    return [progress.windows for progress in collection]


def ignore(_: EnrolmentProgress) -> None: ...


@pytest.fixture(scope="module")
def learned(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("state") / "enrolled"
    enrol(bundle, root, EnrolmentRequest("pump", "script", 16), ScriptedSource(sound(20)), ignore)
    return root


def test_enrol_unknown_machine_is_told_apart_from_its_failure(bundle: Bundle, learned: Path) -> None:
    known = with_enrolled_machine(bundle, learned, "pump")
    assert known.machines == ("fan", "press-3", "pump")
    scorer = Scorer(known, "pump")
    rng = np.random.default_rng(123)
    healthy = [scorer.score(healthy_noise(rng, TILT)) for _ in range(5)]
    assert not any(s.anomalous for s in healthy)
    assert np.mean([s.score for s in healthy]) == pytest.approx(1, abs=0.2)
    failing = scorer.score(failing_noise(rng, TILT))
    assert failing.anomalous
    assert failing.views


def test_enrol_opens_no_model_and_writes_no_embedding(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr("asd_daemon.judge.bundle.onnx_sessions.EmbedderSession.__init__", refuse)
    monkeypatch.setattr("asd_daemon.judge.bundle.onnx_sessions.SeparatorSession.__init__", refuse)
    done = enrol(bundle, tmp_path, EnrolmentRequest("pump", "script", 16), ScriptedSource(sound(16)), ignore)
    assert done.record.models is None
    folder = tmp_path / "pump" / done.record.entry.folder
    assert sorted(file.name for file in folder.iterdir()) == ["calibration.json", "fusion.npz", "sound.npz"]
    assert Scorer(with_enrolled_machine(bundle, tmp_path, "pump"), "pump").score(
        healthy_noise(np.random.default_rng(1), TILT)
    )


def test_enrol_stops_at_the_windows_that_were_asked_for(bundle: Bundle, learned: Path) -> None:
    record = read_enrolment(learned, "pump")
    assert record is not None
    assert record.windows == 16
    assert not (learned / "pump" / "collecting").exists()


def test_enrol_unfit_windows_are_left_out_and_counted(bundle: Bundle, tmp_path: Path) -> None:
    script = sound(17)
    script[3] = Block(np.zeros(160_000, np.float32))
    told: list[EnrolmentProgress] = []
    done = enrol(bundle, tmp_path, EnrolmentRequest("pump", "script", None), ScriptedSource(script), told.append)
    assert done.record.windows == 16
    assert told[-1].unusable == 1
    assert "a window was not usable: silence" in [progress.message for progress in told]


def test_enrol_too_little_sound_keeps_what_was_collected_and_goes_on_with_it(bundle: Bundle, tmp_path: Path) -> None:
    script = sound(18)
    with pytest.raises(DataSetError, match="10 usable windows of 10 s were heard, at least 16 are needed"):
        enrol(bundle, tmp_path, EnrolmentRequest("pump", "script", None), ScriptedSource(script[:10]), ignore)
    assert read_enrolment(tmp_path, "pump") is None
    told: list[EnrolmentProgress] = []
    done = enrol(bundle, tmp_path, EnrolmentRequest("pump", "script", None), ScriptedSource(script[10:]), told.append)
    assert done.record.windows == 18
    assert told[0].message == "going on with 10 windows collected before"
    once = enrol(bundle, tmp_path / "at once", EnrolmentRequest("pump", "script", None), ScriptedSource(script), ignore)
    assert done.threshold == pytest.approx(once.threshold, rel=1e-6)


def test_enrol_sound_that_becomes_another_is_refused_and_the_old_state_stays(
    bundle: Bundle, learned: Path, tmp_path: Path
) -> None:
    shutil.copytree(learned, tmp_path / "enrolled")
    before = read_enrolment(tmp_path / "enrolled", "pump")
    script = [block for n in range(4) for block in sound(6, seed=n, tilt=3.0 * n)]
    with pytest.raises(DataSetError, match="too changeable"):
        enrol(
            bundle,
            tmp_path / "enrolled",
            EnrolmentRequest("pump", "s", None, relearn=True),
            ScriptedSource(script),
            ignore,
        )
    assert read_enrolment(tmp_path / "enrolled", "pump") == before
    assert (
        not Scorer(with_enrolled_machine(bundle, tmp_path / "enrolled", "pump"), "pump")
        .score(healthy_noise(np.random.default_rng(9), TILT))
        .anomalous
    )


def test_enrol_after_sound_that_was_too_changeable_listens_on(bundle: Bundle, tmp_path: Path) -> None:
    script = [block for n in range(4) for block in sound(5, seed=n, tilt=3.0 * n)]
    with pytest.raises(DataSetError, match="call enroll again for more windows, or with --anew"):
        enrol(bundle, tmp_path, EnrolmentRequest("pump", "s", 20), ScriptedSource(script), ignore)
    told: list[EnrolmentProgress] = []
    with pytest.raises(DataSetError, match="too changeable"):
        enrol(bundle, tmp_path, EnrolmentRequest("pump", "s", 20), ScriptedSource(script), told.append)
    assert (told[0].windows, told[0].wanted) == (20, 40)
    assert told[-1].windows == 40


def test_enrol_add_knows_both_and_relearn_the_new_one_only(bundle: Bundle, learned: Path, tmp_path: Path) -> None:
    root = tmp_path / "enrolled"
    shutil.copytree(learned, root)
    more = enrol(bundle, root, EnrolmentRequest("pump", "s", None, add=True), ScriptedSource(sound(16, seed=8)), ignore)
    assert more.record.windows == 32
    fresh = enrol(
        bundle, root, EnrolmentRequest("pump", "s", None, relearn=True), ScriptedSource(sound(17, seed=9)), ignore
    )
    assert fresh.record.windows == 17
    assert len(list((root / "pump").iterdir())) == 2  # the record and one state


def test_enrol_same_sound_twice_counts_once_and_stays_as_watchful(bundle: Bundle, tmp_path: Path) -> None:
    """A copy has its original at distance 0: counted, it made every threshold boundless."""
    root, told = tmp_path / "enrolled", list[EnrolmentProgress]()
    before = enrol(bundle, root, EnrolmentRequest("pump", "s", 16), ScriptedSource(sound(20)), ignore)
    again = enrol(bundle, root, EnrolmentRequest("pump", "s", 16, add=True), ScriptedSource(sound(20)), told.append)
    assert again.record.windows == 16
    assert "16 of 32 windows are copies of others and count once" in [progress.message for progress in told]
    assert again.threshold == pytest.approx(before.threshold)
    more = enrol(bundle, root, EnrolmentRequest("pump", "s", None, add=True), ScriptedSource(sound(20)), ignore)
    assert more.record.windows == 20
    with pytest.raises(DataSetError, match="20 of 24 windows are copies of others: at least 16 different"):
        enrol(bundle, tmp_path, EnrolmentRequest("loop", "s", None), ScriptedSource(sound(4) * 6), ignore)


def test_with_enrolled_damaged_file_is_refused(bundle: Bundle, learned: Path, tmp_path: Path) -> None:
    shutil.copytree(learned, tmp_path / "enrolled")
    (file,) = (tmp_path / "enrolled" / "pump").glob("*/fusion.npz")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"fusion\.npz: has \d+ bytes"):
        with_enrolled_machine(bundle, tmp_path / "enrolled", "pump")
    (tmp_path / "enrolled" / "pump" / "enrolled.json").write_text("{")
    with pytest.raises(BundleError, match=r"enrolled\.json"):
        with_enrolled_machine(bundle, tmp_path / "enrolled", "pump")


def test_enrol_damaged_collected_window_says_what_to_do(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataSetError):
        enrol(bundle, tmp_path, EnrolmentRequest("pump", "script", None), ScriptedSource(sound(2)), ignore)
    file = tmp_path / "pump" / "collecting" / "window-000001.npz"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(BundleError, match=r"window-000001\.npz: is damaged: .*delete it"):
        enrol(bundle, tmp_path, EnrolmentRequest("pump", "script", None), ScriptedSource(sound(16)), ignore)


def command(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_commands_enroll_a_folder_and_score_with_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    rng = np.random.default_rng(4)
    (tmp_path / "train").mkdir()
    for n in range(16):
        soundfile.write(tmp_path / "train" / f"{n:02d}.wav", healthy_noise(rng, TILT), 16_000, subtype="PCM_16")
    soundfile.write(tmp_path / "broken.wav", failing_noise(rng, TILT), 16_000, subtype="PCM_16")
    source = f"folder:{tmp_path / 'train'}"
    done = command("enroll", "--machine", "pump", "--bundle", bundle.path, "--source", source)
    assert done.exit_code == 0, done.output
    assert "pump: learned from 16 windows" in done.stdout
    assert "(normal windows score about 1)" in done.stdout
    assert f"next: asd-daemon run --machine pump --bundle {bundle.path}\n" in done.stdout
    scored = command("score", tmp_path / "broken.wav", "--machine", "pump", "--bundle", bundle.path, "--json")
    assert json.loads(scored.stdout)["anomalous"] is True
    again = command("enroll", "--machine", "pump", "--bundle", bundle.path, "--source", source)
    assert again.exit_code == 2
    assert "--add extends that, --relearn replaces it" in again.stderr
    both = command("enroll", "--machine", "pump", "--add", "--relearn")
    assert both.exit_code == 2
    anew = command("enroll", "--machine", "pump", "--bundle", bundle.path, "--source", source, "--relearn", "--json")
    assert json.loads(anew.stdout)["windows"] == 16
    words = ("--bundle", bundle.path, "--source", source, "--relearn", "--scoring", "paper")
    by_paper = command("enroll", "--machine", "pump", *words)
    assert by_paper.exit_code == 0, by_paper.output
    assert "normal windows score about 1" not in by_paper.stdout, "they lie some hundredths apart"
    assert "judged by the embeddings of what is heard, beside those of its normal sound" in by_paper.stdout
    assert f"next: asd-daemon run --machine pump --bundle {bundle.path} --scoring paper\n" in by_paper.stdout


def test_commands_enroll_a_simulated_machine(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASD_STATE_DIR", str(tmp_path / "state"))
    words = ("enroll", "--machine", "blower", "--bundle", bundle.path, "--source", "simulate:fan?speed=max&seconds=170")
    done = command(*words)
    assert done.exit_code == 0, done.output
    assert "blower: learned from 17 windows" in done.stdout
