"""Another bundle, another program: what was learned stays in use, is learned anew from what was kept, or says what it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import AsdError, BundleError, CannotJudgeError, EnrolmentError, UnknownMachineError, UsageError
from asd_daemon.hear.source import Block, ScriptedSource
from asd_daemon.judge.bundle.bundle import Bundle, file_entry, load_bundle
from asd_daemon.judge.features import steady_views, views
from asd_daemon.judge.scoring.scorer import HEARD, Scorer, WindowScore
from asd_daemon.judge.scoring.verdict import Judge
from asd_daemon.learn import enrolment, relearning, view_probes
from asd_daemon.learn.enrolled_machines import enrolled_names, locked, sweep, with_enrolled_machine
from asd_daemon.learn.enrolment import EnrolmentRequest, enrol
from asd_daemon.learn.enrolment_record import EnrolmentRecord, can_relearn, objection, read_enrolment
from asd_daemon.learn.kept_sound import read_window, write_window
from asd_daemon.learn.recovering_judge import FIRST_RETRY_S, RecoveringJudge
from asd_daemon.learn.relearning import relearn_from_kept, relearning_needs
from rig.bundles import (
    failing_noise,
    healthy_noise,
    read_manifest,
    write_manifest,
    write_tiny_bundle,
    write_tiny_model,
)
from rig.earlier_enrolment import write_earlier_enrolment
from rig.waiting import PATIENT_S

TILT = 2.0
TWO = ("steady-mean", "steady-floor")


def with_another_embedder(bundle: Bundle, folder: Path) -> Bundle:
    """The same bundle with a model of other bytes, and other numbers."""
    shutil.copytree(bundle.path, folder)
    write_tiny_model(folder / "embedder.onnx", seed=7)
    manifest: dict[str, Any] = read_manifest(folder)
    manifest["version"] = "2"
    manifest["files"]["embedder.onnx"] = file_entry(folder / "embedder.onnx").model_dump(mode="json")
    write_manifest(folder, manifest)
    return load_bundle(folder)


@pytest.fixture(autouse=True)
def two_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two views where all of them would be computed: time."""
    monkeypatch.setattr(relearning, "VIEW_NAMES", TWO)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("relearning") / "old")


@pytest.fixture(scope="module")
def new(old: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return with_another_embedder(old, tmp_path_factory.mktemp("relearning") / "new")


def enrolled(bundle: Bundle, root: Path, machine: str, windows: int = 16, **options: Any) -> EnrolmentRecord:
    """A machine that is learned by two views."""
    rng = np.random.default_rng(windows)
    script = [Block(healthy_noise(rng, TILT)) for _ in range(windows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enrolment, "VIEW_NAMES", TWO)
        request = EnrolmentRequest(machine, "script", None, **options)
        return enrol(bundle, root, request, ScriptedSource(script), lambda _: None).record


@pytest.fixture(scope="module")
def learned(old: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`kept` and `seen` are learned now, with and without their sound; version 0.2 learned `heard` by the embedder and `early` without."""
    root = tmp_path_factory.mktemp("state") / "enrolled"
    enrolled(old, root, "kept", keeps_sound=True)
    enrolled(old, root, "seen")
    write_earlier_enrolment(old, root, "heard")
    write_earlier_enrolment(old, root, "early", ("moments", "quiet"))
    return root


@pytest.fixture
def root(learned: Path, tmp_path: Path) -> Path:
    shutil.copytree(learned, tmp_path / "enrolled")
    return tmp_path / "enrolled"


def record_of(root: Path, machine: str) -> EnrolmentRecord:
    record = read_enrolment(root, machine)
    assert record is not None
    return record


def compute_otherwise(root: Path, machine: str, *views_changed: str) -> None:
    """Let a record be of a version that computed some views otherwise."""
    file = root / machine / "enrolled.json"
    content = json.loads(file.read_text())
    for view in views_changed:
        content["views"][view]["sums"][0] += 9.0
    file.write_text(json.dumps(content))


def tells(bundle: Bundle, root: Path, machine: str) -> bool:
    """Whether a machine is judged, and judged right."""
    scorer = Scorer(with_enrolled_machine(bundle, root, machine), machine)
    rng = np.random.default_rng(8)
    return not scorer.score(healthy_noise(rng, TILT)).anomalous and scorer.score(failing_noise(rng, TILT)).anomalous


@pytest.mark.parametrize("machine", ["kept", "seen", "early"])
def test_machine_whose_views_need_no_model_does_not_notice_another_one(
    old: Bundle, new: Bundle, root: Path, machine: str
) -> None:
    for bundle in (old, new, old):
        assert objection(record_of(root, machine), bundle) is None
        assert tells(bundle, root, machine)


def test_machine_learned_now_has_neither_bank_nor_models(root: Path) -> None:
    record = record_of(root, "seen")
    assert record.models is None
    assert not [name for name in record.files if name.endswith("bank.npy")]
    assert record.contrast is None or np.isfinite(record.contrast)


def test_machine_that_the_embedder_of_another_bundle_judged_must_be_heard_again_and_stays_as_it_is(
    old: Bundle, new: Bundle, root: Path
) -> None:
    assert tells(old, root, "heard")
    with pytest.raises(
        EnrolmentError,
        match="view heard needs its models, and tiny 2 has others; learn it anew with `asd-daemon enroll --machine heard --relearn`",
    ):
        with_enrolled_machine(new, root, "heard")
    needs = relearning_needs(new, root, enrolled_names(root))
    assert [(need.machine, need.can_be_done) for need in needs] == [("heard", False)]
    before = record_of(root, "heard")
    with pytest.raises(
        EnrolmentError, match="no sound was kept; learn it anew with `asd-daemon enroll --machine heard"
    ):
        relearn_from_kept(new, root, "heard")
    assert record_of(root, "heard") == before
    assert tells(old, root, "heard")


def test_earlier_machine_is_judged_without_a_small_view_whose_models_are_gone(
    old: Bundle, new: Bundle, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_earlier_enrolment(old, root, "mostly", ("moments", "quiet", HEARD))
    none = replace(new, manifest=new.manifest.model_copy(update={"embedder": None}))
    whole = Scorer(with_enrolled_machine(old, root, "mostly"), "mostly")
    assert not caplog.records
    rng = np.random.default_rng(12)
    for bundle in (new, none):
        assert objection(record_of(root, "mostly"), bundle) is None
        assert not relearning_needs(bundle, root, ["mostly"])
        assert tells(bundle, root, "mostly")
        scorer = Scorer(with_enrolled_machine(bundle, root, "mostly"), "mostly")
        assert scorer.views == ("moments", "quiet")
        assert scorer.models == (None, None)
        window = healthy_noise(rng, TILT)
        of_all = dict(whole.score(window).views)
        expected = (of_all["moments"] + of_all["quiet"]) / 2
        assert scorer.score(window).score == pytest.approx(expected, rel=1e-5)
    assert "mostly: judged without heard, 33 % of its score" in caplog.text


@pytest.mark.parametrize("machine", ["heard", "early"])
def test_earlier_machine_is_not_extended_by_windows_of_other_views(old: Bundle, root: Path, machine: str) -> None:
    before = record_of(root, machine)
    with pytest.raises(EnrolmentError, match=f"learn it anew with `asd-daemon enroll --machine {machine} --relearn`"):
        enrolled(old, root, machine, windows=17, add=True)
    assert record_of(root, machine) == before
    assert tells(old, root, machine)
    assert enrolled(old, root, machine, windows=17, relearn=True).views_used == set(TWO)


def test_views_computed_otherwise_are_learned_anew_from_the_sound(old: Bundle, root: Path) -> None:
    compute_otherwise(root, "kept", "steady-mean")
    with pytest.raises(
        EnrolmentError, match="view steady-mean is computed otherwise by this asd-edge; a daemon learns"
    ):
        with_enrolled_machine(old, root, "kept")
    said: list[str] = []
    record = relearn_from_kept(old, root, "kept", said.append)
    assert (record.windows, record.sounds, record.source, set(record.views_used)) == (16, 16, "script", set(TWO))
    assert record.relearned is not None
    assert "computed otherwise" in record.relearned
    assert "3 of 16 kept windows heard again" in said
    assert tells(old, root, "kept")
    assert len(list((root / "kept").iterdir())) == 2  # the record and one state


def test_views_computed_otherwise_without_sound_leave_the_others_or_must_be_heard_again(
    old: Bundle, root: Path
) -> None:
    compute_otherwise(root, "seen", "steady-mean")
    assert can_relearn(record_of(root, "seen"))
    said: list[str] = []
    assert relearn_from_kept(old, root, "seen", said.append).views_used == {"steady-floor"}
    assert "judged without steady-mean: no sound was kept to hear again" in said
    assert tells(old, root, "seen")
    compute_otherwise(root, "seen", "steady-floor")
    assert not can_relearn(record_of(root, "seen"))
    with pytest.raises(EnrolmentError, match="no sound was kept; learn it anew"):
        relearn_from_kept(old, root, "seen")


def test_extension_of_views_computed_otherwise_hears_the_kept_sound_again_or_is_refused(
    old: Bundle, root: Path
) -> None:
    for machine in ("kept", "seen"):
        compute_otherwise(root, machine, "steady-mean")
    record = enrolled(old, root, "kept", windows=2, add=True, keeps_sound=True)
    assert (record.windows, record.sounds, set(record.views_used)) == (18, 18, set(TWO))
    assert objection(record, old) is None
    before = record_of(root, "seen")
    with pytest.raises(EnrolmentError, match="no sound was kept to hear again, so it can't be extended"):
        enrolled(old, root, "seen", windows=2, add=True)
    assert record_of(root, "seen") == before


def test_damaged_files_are_learned_anew_from_the_vectors(old: Bundle, root: Path) -> None:
    record = record_of(root, "seen")
    (root / "seen" / record.entry.folder / "fusion.npz").write_bytes(b"damaged")
    with pytest.raises(EnrolmentError, match=r"fusion\.npz"):
        with_enrolled_machine(old, root, "seen")
    assert relearn_from_kept(old, root, "seen").relearned == "its files were damaged"
    assert tells(old, root, "seen")


def test_record_of_the_future_is_read_and_its_views_are_learned_anew(old: Bundle, root: Path) -> None:
    file = root / "kept" / "enrolled.json"
    content = json.loads(file.read_text())
    content["entry"]["views"] = ["of-the-future"] * len(content["entry"]["views"])
    content["a_field_of_the_future"] = {"x": 1}
    file.write_text(json.dumps(content))
    with pytest.raises(EnrolmentError, match="view of-the-future is not known to this asd-edge"):
        with_enrolled_machine(old, root, "kept")
    assert "of-the-future" not in relearn_from_kept(old, root, "kept").views_used
    assert tells(old, root, "kept")


def test_probe_tells_views_apart_and_says_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    first = dict(view_probes.view_probes())
    assert set(first) == set(views.VIEW_NAMES)
    view_probes.view_probes.cache_clear()
    assert all(probe.same_as(first[view]) for view, probe in view_probes.view_probes().items())
    monkeypatch.setattr(steady_views, "TINY", 1e-3)
    view_probes.view_probes.cache_clear()
    again = view_probes.view_probes()
    assert not again["steady-floor"].same_as(first["steady-floor"])
    assert again["steady-mean"].same_as(first["steady-mean"])
    view_probes.view_probes.cache_clear()


def test_window_kept_as_sound_is_the_same_to_sixteen_bits_of_its_peak(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for gain in (1.0, 0.4, 1e-3, 0.0):
        window = np.asarray(np.clip(rng.normal(size=160_000) * 0.25, -1, 1) * gain, np.float32)
        file = write_window(tmp_path, 3, window)
        assert np.abs(read_window(file) - window).max() <= 2 * gain / 32_768
        assert file.stat().st_mode & 0o077 == 0
        file.unlink()


def test_relearning_beside_another_is_refused(old: Bundle, root: Path) -> None:
    with locked(root, "kept"), pytest.raises(UsageError, match="is being learned or changed by somebody else"):
        relearn_from_kept(old, root, "kept")


def test_enrolment_that_fails_leaves_no_folder_and_old_ones_are_swept(
    old: Bundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(p.name for p in (root / "kept").iterdir())

    def breaks(*_: object) -> None:
        raise BundleError("it does not open")

    with monkeypatch.context() as patch:
        patch.setattr("asd_daemon.learn.enrolled_machines.Scorer", breaks)
        with pytest.raises(BundleError, match="does not open"):
            relearn_from_kept(old, root, "kept")
    assert sorted(p.name for p in (root / "kept").iterdir()) == before
    (root / "kept" / "20200101T000000").mkdir()
    sweep(root / "kept", record_of(root, "kept"))
    assert sorted(p.name for p in (root / "kept").iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's file")
def test_record_that_may_not_be_read_is_one_line_with_what_to_do(old: Bundle, root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from asd_daemon.errors import EnrolmentError\n"
        "from asd_daemon.learn.enrolment_record import read_enrolment\n"
        "import os; root = Path(sys.argv[1]); os.chroot(root.parent); os.setgid(65534); os.setuid(65534)\n"
        "try: read_enrolment(Path('/enrolled'), 'heard')\n"
        "except EnrolmentError as e: print(e)\n"
    )
    root.parent.chmod(0o755)
    root.chmod(0o755)
    for folder_mode, file_mode in ((0o700, 0o600), (0o755, 0o600)):
        (root / "heard").chmod(folder_mode)
        (root / "heard" / "enrolled.json").chmod(file_mode)
        done = subprocess.run([sys.executable, "-c", code, root], capture_output=True, text=True, check=False)
        assert "/enrolled/heard/enrolled.json: can't be read: no right to" in done.stdout, done.stderr
        assert "sudo chown -R --reference=" in done.stdout
        assert len(done.stdout.splitlines()) == 1


class Ear:
    """A judge that finds everything normal."""

    def score(self, waveform: NDArray[np.float32]) -> Any:
        return WindowScore(1.0, 2.0, False, None)


class Opening:
    """Opens what it is told to."""

    def __init__(self, *outcomes: Judge | Exception) -> None:
        self.outcomes = list(outcomes)

    def __call__(self) -> Judge:
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


WINDOW = np.zeros(160_000, np.float32)


def joined() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("relearn-"):
            thread.join(PATIENT_S)


def test_judge_that_can_not_be_opened_is_told_once_and_tried_again() -> None:
    now, told = [0.0], list[Exception | None]()
    opening = Opening(EnrolmentError("no right to read it"), EnrolmentError("no right to read it"), Ear())
    judge = RecoveringJudge("fan", opening, unjudged=told.append, clock_s=lambda: now[0])
    judge.open()
    for _ in range(3):
        with pytest.raises(CannotJudgeError, match="no right to read it"):
            judge.score(WINDOW)
    now[0] += FIRST_RETRY_S
    with pytest.raises(CannotJudgeError):
        judge.score(WINDOW)
    assert [str(error) for error in told] == ["no right to read it"]
    now[0] += 2 * FIRST_RETRY_S
    assert judge.score(WINDOW).score == 1.0
    assert told[-1] is None


def test_judge_is_learning_while_it_is_learned_anew_and_judges_after() -> None:
    may_end = threading.Event()

    def relearn(told: Callable[[str], None]) -> None:
        told("3 of 16 windows")
        assert may_end.wait(PATIENT_S)

    judge = RecoveringJudge("fan", Opening(EnrolmentError("other models"), Ear()), relearn)
    judge.open()
    with pytest.raises(UnknownMachineError, match="is learned anew from what was kept"):
        judge.score(WINDOW)
    may_end.set()
    joined()
    assert judge.score(WINDOW).score == 1.0


def test_judge_whose_relearning_fails_says_why_and_does_not_try_the_same_again() -> None:
    now, told, tries = [0.0], list[Exception | None](), list[int]()

    def relearn(_: Callable[[str], None]) -> None:
        tries.append(1)
        raise EnrolmentError("no sound was kept")

    judge = RecoveringJudge(
        "fan", Opening(EnrolmentError("other models")), relearn, told.append, clock_s=lambda: now[0]
    )
    judge.open()
    joined()
    for _ in range(3):
        with pytest.raises(CannotJudgeError, match="no sound was kept"):
            judge.score(WINDOW)
        now[0] += 1000
    assert len(tries) == len(told) == 1


def test_judge_that_breaks_is_the_trouble_of_its_machine_alone() -> None:
    class Breaks:
        def score(self, waveform: NDArray[np.float32]) -> Any:
            raise np.linalg.LinAlgError("SVD did not converge")

    told: list[Exception | None] = []
    judge = RecoveringJudge("fan", Opening(Breaks()), unjudged=told.append)
    judge.open()
    with pytest.raises(CannotJudgeError, match="did not converge"):
        judge.score(WINDOW)
    assert isinstance(told[-1], AsdError)


def test_judge_of_an_unknown_machine_waits_for_a_lesson_only_where_one_can_come() -> None:
    unknown = Opening(UnknownMachineError("knows no machine"))
    with pytest.raises(UnknownMachineError):
        RecoveringJudge("fan", unknown, waits_for_lesson=True).open()
    told: list[Exception | None] = []
    judge = RecoveringJudge("fan", unknown, unjudged=told.append).open()
    with pytest.raises(CannotJudgeError, match="knows no machine"):
        judge.score(WINDOW)
    assert len(told) == 1
