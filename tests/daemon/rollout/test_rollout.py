"""A box between its server and its machines: what is offered is tried, installed in its window, watched, and given up when it is worse."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asd_daemon.errors import BundleError, RolloutError, UntriedBundleError
from asd_daemon.judge.bundle.bundle import Bundle, default_bundle
from asd_daemon.judge.scoring.installed_bundles import install_bundle, roll_back
from asd_daemon.rollout.box import RolloutRules
from asd_daemon.rollout.current import current_folder
from asd_daemon.rollout.fetching import FOLDER, Fetching, FetchJob
from asd_daemon.rollout.offer import Ring
from asd_daemon.rollout.returning import JudgedMachine, PastAlert
from asd_daemon.rollout.rollout import Rollout
from asd_daemon.rollout.rollout_state import MachineTrial, Named, TrialRecord, read_state, state_file
from asd_daemon.tell.notifications.quiet_hours import QuietHours, parse_quiet_time
from asd_daemon.watch.log import RepeatLimit
from rig.broker import free_port
from rig.bundle_server import MISSING, BundleServer
from rig.plant import Plant

NIGHT = datetime(2026, 11, 28, 2, 30, tzinfo=UTC)


@dataclass
class FakeTrial:
    """Says what a process would have said."""

    seen: MachineTrial = field(default_factory=lambda: MachineTrial(windows=1000))
    failures: int = 0
    kills: int = 0
    trouble: str = ""
    is_running: bool = False
    started: list[Path] = field(default_factory=list)

    def start(self, folder: Path, key: Path, machines: Sequence[JudgedMachine]) -> None:
        self.started.append(folder)
        self.is_running = True

    def collect(self, record: TrialRecord) -> None:
        record.machines["fan"] = self.seen
        if self.failures:
            record.failures, self.is_running = record.failures + 1, False
        if self.kills:
            record.kills, self.is_running, self.kills = record.kills + 1, False, self.kills - 1

    def stop(self) -> None:
        self.is_running = False


class FetcherHere:
    """Fetches in this process; that of its own has tests of its own."""

    def __init__(self) -> None:
        self._result: dict[str, Any] | None = None

    @property
    def is_busy(self) -> bool:
        return self._result is not None

    def start(self, job: FetchJob, heard: Callable[[dict[str, Any]], None]) -> None:
        try:
            self._result = Fetching(job, datetime.now(UTC)).run()
        except RolloutError as e:
            self._result = {"state": "failed", "reason": str(e)}

    def result(self) -> dict[str, Any] | None:
        result, self._result = self._result, None
        return result

    def close(self) -> None:
        """Nothing runs."""


@dataclass
class FakeBox:
    """A daemon that judges with whatever it took on last."""

    root: Path
    loaded_folder: Path = field(default_factory=lambda: default_bundle().resolve())
    is_busy: str | None = None
    fails: str | None = None
    says: list[PastAlert] = field(default_factory=list)
    refuses: str | None = None
    objects: str | None = None
    too_busy_for: str = "none"
    machines: list[JudgedMachine] = field(default_factory=lambda: [JudgedMachine("fan", 1.0, 10.0)])

    def loaded(self) -> Path:
        return self.loaded_folder

    def words(self) -> str:
        return self.loaded_folder.name

    def take_on(self) -> None:
        if self.refuses is not None and self.refuses in str(current_folder(self.root)):
            raise BundleError("a model can't be opened")
        if self.too_busy_for in current_folder(self.root).name:
            raise UntriedBundleError("could not be tried now: the box is busy")
        self.loaded_folder = current_folder(self.root)

    def objection(self, new: Bundle) -> str | None:
        return self.objects

    def judged(self, new: Bundle | None = None) -> list[JudgedMachine]:
        return self.machines

    def busy(self) -> str | None:
        return self.is_busy

    def failing(self) -> str | None:
        return self.fails

    def alerts(self, since: datetime) -> list[PastAlert]:
        return self.says


def self_test_that_takes_no_time(bundle: Bundle) -> int:
    return len(bundle.manifest.reference)


def box_that_is_too_busy_for(version: str, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """From now on a self-test of that version is broken off by the box."""

    def is_killed(bundle: Bundle) -> int:
        if bundle.version == version:
            raise UntriedBundleError(f"{bundle.path.name}: could not be tried now: its start: was killed")
        return self_test_that_takes_no_time(bundle)

    for module in modules or ("rollout.fetching", "judge.scoring.installed_bundles"):
        monkeypatch.setattr(f"asd_daemon.{module}.bounded_self_test", is_killed)


def box_that_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    box_that_is_too_busy_for("none", monkeypatch)


@dataclass
class Site:
    """A box with its server, whose clocks the test turns."""

    plant: Plant
    server: BundleServer
    box: FakeBox
    trial: FakeTrial
    rules: RolloutRules
    clock_s: float = 0.0
    at: datetime = NIGHT

    def __post_init__(self) -> None:
        self.begin()

    @property
    def root(self) -> Path:
        return self.box.root

    def begin(self) -> None:
        """The daemon starts, or starts anew."""
        self.rollout = Rollout(
            self.root,
            lambda: self.rules,
            self.box,
            self.trial,  # type: ignore[arg-type]
            clock_s=lambda: self.clock_s,
            now=lambda: self.at,
            chance=lambda: 0.5,
        )
        self.rollout.look()  # after half of ten minutes it asks

    def kill(self) -> None:
        """The daemon ends; what it holds is let go."""
        self.rollout.close()
        if self.rollout._lock is not None:
            self.rollout._lock.close()

    def look(self, seconds: float = 1.0) -> str:
        """What is told after so much time; a fetch that was begun is waited for."""
        self.clock_s += seconds
        self.at += timedelta(seconds=seconds)
        self.rollout.look()
        if self.rollout._asking.is_busy:
            self.rollout.look()
        report = self.rollout.report()
        assert report is not None
        return f"{report['phase']}: {report['reason']}" if report["reason"] else str(report["phase"])

    def current(self) -> str:
        return current_folder(self.root).name.rsplit("-", 1)[0]


@pytest.fixture
def site(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for module in ("rollout.fetching", "judge.scoring.installed_bundles"):
        monkeypatch.setattr(f"asd_daemon.{module}.bounded_self_test", self_test_that_takes_no_time)
    monkeypatch.setattr("asd_daemon.rollout.asking.Fetcher", FetcherHere)
    root = tmp_path / "state" / "bundles"
    install_bundle(plant.first, root, plant.public)
    with BundleServer(plant.www) as server:
        job = FetchJob(
            url=server.url, channel="stable", ring=None, node="box", key=plant.public, root=root, insecure=True
        )
        quiet = QuietHours((parse_quiet_time("02:00-04:00"),), UTC)
        rules = RolloutRules(job, 86_400.0, 3 * 86_400.0, "3d", quiet, "02:00-04:00")
        site = Site(plant, server, FakeBox(root, current_folder(root)), FakeTrial(), rules)
        yield site
        site.kill()


def tried(site: Site) -> None:
    """A second version is offered and fetched, and its trial has begun."""
    site.plant.offer(site.plant.version("2"))
    assert site.look(400) == "trial: beside the present one for 3d"


def test_bundle_is_fetched_tried_for_its_time_and_installed_in_its_window(site: Site) -> None:
    tried(site)
    assert site.look(86_400) == "trial: beside the present one for 3d"
    assert site.current() == "tiny-1"
    shortened(site, trial_s=3 * 3600.0, window=site.rules.window, window_words="02:00-04:00")
    said = [site.look(60) for _ in range(2 * 60)]
    assert set(said) == {"trial: beside the present one for 3d"}
    site.at = NIGHT + timedelta(hours=12)
    said = [site.look(60) for _ in range(60)]
    assert said[-1] == "waiting: for the window 02:00-04:00"
    site.box.is_busy = "for the end of an alert of fan"
    site.at = NIGHT
    assert site.look() == "waiting: for the end of an alert of fan"
    site.box.is_busy = None
    assert site.look() == "installed"
    assert site.current() == "tiny-2"
    assert site.box.loaded_folder.name.startswith("tiny-2")
    assert not (site.root / FOLDER / "candidate").exists()
    report = site.rollout.report()
    assert report is not None
    assert report["offered"] == "tiny 2"


def shortened(site: Site, **more: Any) -> None:
    """Without a trial and at any time."""
    changes = {"trial_s": 0.0, "window": QuietHours(), "window_words": None, **more}
    site.rules = RolloutRules(**{**site.rules.__dict__, **changes})


def test_bundle_that_is_worse_in_its_trial_stays_out_and_is_not_fetched_again(site: Site) -> None:
    shortened(site, trial_s=5.0)
    site.trial.seen = MachineTrial(
        windows=20_000, new_above=12, opened=[NIGHT + timedelta(hours=n) for n in range(1, 5)]
    )
    site.plant.offer(site.plant.version("2"))
    site.look(400)
    said = site.look(6)
    assert said.startswith("refused: worse than the present one: 20000 windows: 4 false alarms beside 0")
    assert site.current() == "tiny-1"
    asked = len(site.server.asked)
    assert site.look(90_000) == said
    assert [path for path, _, _ in site.server.asked[asked:]] == ["/rollout.json"]
    site.plant.offer(site.plant.folder / "bundle-2")  # somebody wants it all the same
    site.trial.seen = MachineTrial(windows=20_000)
    assert site.look(90_000).startswith("trial")


def test_trial_whose_process_fails_again_and_again_stays_out(site: Site) -> None:
    site.trial.failures, site.trial.trouble = 1, "a model takes all memory"
    site.plant.offer(site.plant.version("2"))
    site.look(400)
    site.look()
    assert site.look() == "refused: judging beside the present one failed: a model takes all memory"
    assert len(site.trial.started) == 3


def test_trial_goes_on_after_a_restart_with_what_was_counted(site: Site) -> None:
    tried(site)
    site.look(40)
    site.kill()
    site.begin()
    said = [site.look(60) for _ in range(3)]
    assert set(said) == {"trial: beside the present one for 3d"}
    record = site.rollout._ledger.state.trial
    assert record is not None
    assert record.seconds >= 200
    assert len(site.trial.started) == 2


def test_where_no_machine_is_judged_by_the_bundle_there_is_nothing_to_try(site: Site) -> None:
    site.box.machines = []
    site.plant.offer(site.plant.version("2"))
    assert site.look(400) == "idle"
    assert site.look() == "installed"
    assert site.trial.started == []


def test_bundle_that_does_not_know_a_machine_is_refused_before_its_trial(site: Site) -> None:
    site.box.objects = "it does not know fan, which is judged by the present one"
    site.plant.offer(site.plant.version("2"))
    assert site.look(400) == "refused: it does not know fan, which is judged by the present one"


def installed(site: Site) -> None:
    shortened(site)
    site.plant.offer(site.plant.version("2"))
    assert site.look(400) == "installed"
    assert site.current() == "tiny-2"


def test_bundle_with_which_judging_fails_is_taken_back_and_not_installed_again(site: Site) -> None:
    installed(site)
    site.box.fails = "fan: the model gives no numbers"
    assert site.look() == "returned: judging fails: fan: the model gives no numbers"
    site.box.fails = None
    assert (site.current(), site.box.loaded_folder.name[:6]) == ("tiny-1", "tiny-1")
    assert site.look(90_000).startswith("returned: judging fails")
    assert site.current() == "tiny-1"


def test_answer_from_before_the_return_does_not_call_it_current(site: Site) -> None:
    installed(site)
    site.rollout._asking._next_s = site.clock_s
    site.rollout.look()  # asks: what is offered is current
    assert site.rollout._asking.is_busy
    site.box.fails = "fan: broken"
    assert site.look() == "returned: judging fails: fan: broken"


def test_process_that_fetches_again_what_was_given_up_meanwhile_changes_nothing(site: Site) -> None:
    installed(site)
    asking = site.rollout._asking
    asking._next_s = site.clock_s
    site.rollout.look()
    offered = site.rollout._ledger.state.offered
    assert offered is not None
    site.box.fails = "fan: broken"
    asking._hear({"offered": offered.model_dump()})
    asking._hear({"progress": {"here_bytes": 1, "bytes": 2}})
    asking._fetcher.result = lambda: None  # type: ignore[method-assign]  # it is still at it
    said = [site.look() for _ in range(3)]
    assert set(said) == {"returned: judging fails: fan: broken"}


def test_bundle_that_can_not_be_opened_is_taken_back_at_once(site: Site) -> None:
    site.box.refuses = "tiny-2"
    shortened(site)
    site.plant.offer(site.plant.version("2"))
    assert site.look(400) == "returned: it can't be used: a model can't be opened"
    assert (site.current(), site.box.loaded_folder.name[:6]) == ("tiny-1", "tiny-1")


def test_jump_of_alerts_in_the_first_hours_takes_the_bundle_back_and_one_alert_does_not(site: Site) -> None:
    installed(site)
    for _ in range(11):
        site.look(60)
    site.box.says = [PastAlert("fan", site.at, None, is_normal=False)]
    assert site.look(60) == "installed"
    site.box.says.append(PastAlert("fan", site.at, None, is_normal=False))
    assert site.look(60).startswith("returned: 2 alerts on 1 of 1 machine within")
    assert site.current() == "tiny-1"


def test_alerts_after_the_first_hours_are_those_of_the_machine(site: Site) -> None:
    installed(site)
    for _ in range(6 * 60 + 2):
        site.look(60)
    site.box.says = [PastAlert("fan", site.at, None, is_normal=False)] * 9
    site.box.fails = "fan: broken"
    assert site.look() == "installed"


def test_what_somebody_makes_current_by_hand_stays(site: Site) -> None:
    installed(site)
    roll_back(site.root, site.plant.public)
    assert site.look().startswith("returned: tiny-1-")
    assert site.box.loaded_folder.name.startswith("tiny-1")
    site.look(90_000)
    assert site.current() == "tiny-1"


@pytest.mark.parametrize("has_switched", [False, True])
def test_kill_while_it_is_installed_is_settled_at_the_next_start(site: Site, has_switched: bool) -> None:
    tried(site)
    state = site.rollout._ledger.state
    assert state.candidate is not None
    from asd_daemon.rollout.rollout_state import Switch

    state.is_tried, state.switch = True, Switch(named=state.candidate, before=None, at=site.at)
    site.rollout._ledger.save()
    if has_switched:
        install_bundle(site.root / FOLDER / "candidate" / state.candidate.id, site.root, site.plant.public)
    site.kill()
    site.begin()
    shortened(site)
    assert site.look() == "installed"
    assert (site.current(), site.box.loaded_folder.name[:6]) == ("tiny-2", "tiny-2")


def test_newer_offer_takes_the_place_of_one_in_trial(site: Site) -> None:
    tried(site)
    site.plant.offer(site.plant.version("3"))
    site.look(90_000)
    report = site.rollout.report()
    assert report is not None
    assert (report["offered"], report["phase"]) == ("tiny 3", "trial")
    assert [folder.name for folder in (site.root / FOLDER / "candidate").iterdir()] == [
        site.rollout._ledger.state.candidate.id  # type: ignore[union-attr]
    ]


def test_candidate_that_was_damaged_meanwhile_is_not_installed(site: Site) -> None:
    tried(site)
    (folder,) = (site.root / FOLDER / "candidate").iterdir()
    (folder / "embedder.onnx").write_bytes(b"x")
    site.rollout._ledger.state.is_tried = True
    shortened(site)
    assert "embedder.onnx" in site.look()
    assert site.current() == "tiny-1"


def test_candidate_that_is_gone_is_fetched_again(site: Site) -> None:
    tried(site)
    shutil.rmtree(site.root / FOLDER / "candidate")
    site.rollout._ledger.state.is_tried = True
    assert site.look() == "idle: it is fetched again"
    shortened(site)
    assert site.look(90_000) == "installed"


def test_failures_make_the_questions_rarer_and_by_chance(site: Site) -> None:
    site.server.fault_of = lambda _: MISSING
    site.plant.offer(site.plant.version("2"))
    times: list[float] = []
    for _ in range(4000):
        before = len(site.server.asked)
        site.look(10)
        if len(site.server.asked) > before:
            times.append(site.clock_s)
        if len(times) == 5:
            break
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == [60, 120, 240, 480]
    assert site.look().startswith("idle: http://127.0.0.1")


def test_ring_that_is_not_due_waits_and_takes_it_when_it_is_widened(site: Site) -> None:
    shortened(site)
    site.plant.offer(site.plant.version("2"), [Ring(name="canary"), Ring(name="plant", percent=0)])
    assert site.look(400).startswith("idle: 0 % of ring plant take it")
    site.plant.offer(None, [Ring(name="canary"), Ring(name="plant")])
    assert site.look(90_000) == "installed"


def test_of_two_daemons_one_does_it_and_the_other_takes_on_what_is_current(site: Site) -> None:
    shortened(site)
    site.plant.offer(site.plant.version("2"))
    other = FakeBox(site.root, current_folder(site.root))
    second = Rollout(site.root, lambda: site.rules, other, FakeTrial())  # type: ignore[arg-type]
    site.look(1)
    second.look()
    assert site.look(400) == "installed"
    second.look()
    assert other.loaded_folder.name.startswith("tiny-2")
    report = second.report()
    assert report is not None
    assert report["phase"] == "installed"
    second.close()


def test_spoiled_state_begins_anew(site: Site) -> None:
    state_file(site.root).parent.mkdir(exist_ok=True)
    site.kill()
    state_file(site.root).write_text("{spoiled")
    shortened(site)
    site.begin()
    site.plant.offer(site.plant.version("2"))
    assert site.look(400) == "installed"


def test_without_a_server_there_is_no_thread_and_nothing_is_told(site: Site) -> None:
    quiet = Rollout(site.root, lambda: None, site.box, site.trial)  # type: ignore[arg-type]
    quiet.start()
    assert quiet._thread is None
    assert quiet.report() is None
    quiet.close()


def test_account_for_the_page_says_the_answer_the_share_the_trial_and_its_counts(site: Site) -> None:
    assert account(site)["checked_at"] is None
    tried(site)
    facts = account(site)
    assert datetime.fromisoformat(facts["checked_at"]) == site.at
    assert (facts["phase"], facts["offered"], facts["judges"]) == ("trial", "tiny 2", ["fan"])
    assert (facts["channel"], facts["ring"], facts["window"]) == ("stable", None, "02:00-04:00")
    site.trial.seen = MachineTrial(windows=1500, opened=[site.at, site.at + timedelta(hours=2)])
    site.box.says = [PastAlert("fan", site.at, site.at + timedelta(minutes=5), is_normal=True)]
    for _ in range(2):
        site.look(60)
    trial = account(site)["trial"]
    assert (trial["present"], trial["new"], trial["windows"], trial["of_s"]) == (1, 2, 1500, 3 * 86_400)
    assert 60 <= trial["seconds"] <= 180
    asking = site.rollout._asking
    asking._next_s = site.clock_s
    site.rollout.look()
    asking._hear({"progress": {"here_bytes": 43, "bytes": 100}})
    asking._fetcher.result = lambda: None  # type: ignore[method-assign]  # it is still at it
    site.rollout.look()
    assert (account(site)["percent"], account(site)["is_asking"]) == (43, True)


def test_account_says_a_server_that_is_not_reached(site: Site) -> None:
    job = site.rules.job.model_copy(update={"url": f"http://127.0.0.1:{free_port()}"})
    shortened(site, job=job)
    site.look(400)
    facts = account(site)
    assert facts["failures"] == 1
    assert "refused" in facts["reason"]
    assert facts["checked_at"] is None


def test_question_that_is_answered_is_remembered_over_a_restart(site: Site) -> None:
    tried(site)
    checked = account(site)["checked_at"]
    site.kill()
    site.begin()
    assert account(site)["checked_at"] == checked


def test_bundle_that_the_box_is_too_busy_to_test_is_tried_again_less_and_less_often(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortened(site)
    box_that_is_too_busy_for("2", monkeypatch)
    site.plant.offer(site.plant.version("2"))
    times: list[float] = []
    for _ in range(900):
        before = len(site.server.asked)
        said = site.look(10)
        if len(site.server.asked) > before:
            times.append(site.clock_s)
        if len(times) == 5:
            break
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [300, 600, 1200, 2400]
    assert said.startswith("untried: ")
    again = f"{site.at + timedelta(seconds=4800):%Y-%m-%dT%H:%M:%SZ}"
    assert said.endswith(f"could not be tried now: its start: was killed; tried 5 times, again after {again}")
    assert site.rollout._ledger.state.refused == {}
    files = len(list((site.root / FOLDER / "candidate").rglob("*.onnx")))
    assert files == 1  # what has come is not fetched again
    site.kill()
    site.begin()  # the pause goes on
    assert site.look(4700).startswith("untried: ")
    box_that_has_time(monkeypatch)
    assert site.look(200) == "installed"
    assert site.current() == "tiny-2"
    assert site.rollout._ledger.state.untried is None


def test_bundle_that_is_bad_is_refused_though_it_could_not_be_tried_before(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    box_that_is_too_busy_for("2", monkeypatch)
    site.plant.offer(site.plant.version("2"))
    assert site.look(400).startswith("untried")

    def fails(bundle: Bundle) -> int:
        raise BundleError("scores 3 for fan here, but 2 where it was made")

    monkeypatch.setattr("asd_daemon.rollout.fetching.bounded_self_test", fails)
    assert site.look(400).startswith("refused: scores 3")


def test_bundle_that_can_not_be_tried_at_its_installation_waits_and_is_installed_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortened(site)
    box_that_is_too_busy_for("2", monkeypatch, "judge.scoring.installed_bundles")
    site.plant.offer(site.plant.version("2"))
    assert site.look(400).startswith("waiting: for a box that is less busy: tiny-2")
    assert site.look(61).endswith("tried twice")
    assert site.look(61).endswith("tried twice")  # the second pause is two minutes
    assert site.current() == "tiny-1"
    box_that_has_time(monkeypatch)
    assert site.look(60) == "installed"


def test_trial_that_the_box_has_killed_goes_on_and_is_not_refused(site: Site) -> None:
    tried(site)
    site.trial.trouble = "its process was ended by signal SIGKILL"
    for number in range(5):
        site.trial.kills = 1
        assert site.look(1).startswith("trial: its process was ended by signal SIGKILL")
        assert len(site.trial.started) == number + 1
        assert site.look(60 * 2**number) == "trial: beside the present one for 3d"
    assert site.rollout._ledger.state.refused == {}


def test_bundle_that_can_not_be_tried_when_it_shall_judge_is_not_given_up(site: Site) -> None:
    site.box.too_busy_for = "tiny-2"
    shortened(site)
    site.plant.offer(site.plant.version("2"))
    assert site.look(400).startswith("installed: the one before it judges still: could not be tried now")
    assert (site.current(), site.box.loaded_folder.name[:6]) == ("tiny-2", "tiny-1")
    site.box.too_busy_for = "none"
    assert site.look(61) == "installed"
    assert site.box.loaded_folder.name.startswith("tiny-2")


def test_return_that_the_box_is_too_busy_for_is_done_later_even_after_a_kill(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(site)
    box_that_is_too_busy_for("1", monkeypatch)
    site.box.fails = "fan: broken"
    assert site.look().startswith("installed: it will be given up, judging fails: fan: broken; the one before it, ")
    assert site.current() == "tiny-2"
    site.kill()
    site.box.fails = None
    box_that_has_time(monkeypatch)
    site.begin()
    assert site.look() == "returned: judging fails: fan: broken"
    assert (site.current(), site.box.loaded_folder.name[:6]) == ("tiny-1", "tiny-1")


def test_what_is_fetched_is_named_while_it_comes_and_no_line_is_taken_for_a_repeat(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "asd_daemon.rollout")
    monkeypatch.setattr(caplog.handler, "filters", [RepeatLimit(most=1)])  # one handler serves all tests
    installed(site)
    asking = site.rollout._asking
    asking._hear({"offered": {"id": "x", "name": "tiny", "version": "3", "serial": 9}})
    asking._hear({"progress": {"here_bytes": 1, "bytes": 2}})
    result, asking._fetcher.result = asking._fetcher.result, lambda: None  # type: ignore[method-assign]
    asking._fetcher._result = {}  # it is still at it
    assert site.look() == "fetching"
    report = site.rollout.report()
    assert report is not None
    assert report["offered"] == "tiny 3"
    asking._fetcher.result = result  # type: ignore[method-assign]
    asking._fetcher._result = None
    site.rollout._candidate.refuse(Named(id="x", name="tiny", version="3"), "it is bad")
    said = [record.getMessage() for record in caplog.records]
    for line in ("rollout: tiny 2: installed", "rollout: tiny 3: fetching", "rollout: tiny 3: refused, it is bad"):
        assert line in said


def test_programs_own_that_is_current_again_by_hand_is_called_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(site)
    monkeypatch.setattr("asd_daemon.rollout.current.default_bundle", lambda: current_folder(site.root))
    roll_back(site.root, site.plant.public)
    assert site.look().startswith("returned: the program's own bundle is current: it was made current by hand")


def test_kill_while_it_goes_back_is_settled_with_the_reason(site: Site) -> None:
    installed(site)
    switch = site.rollout._ledger.state.switch
    assert switch is not None
    switch.returns = "judging fails: fan: broken"
    site.rollout._ledger.save()
    roll_back(site.root, site.plant.public, trusts_own=True)
    site.kill()
    site.begin()
    assert site.look() == "returned: judging fails: fan: broken"


def test_alert_that_the_new_one_would_have_told_is_kept_at_once(site: Site) -> None:
    tried(site)
    site.look(40)
    site.trial.seen = MachineTrial(windows=1001, opened=[site.at])
    site.look(1)
    site.kill()
    site.trial.seen = MachineTrial(windows=1)
    kept = read_state(state_file(site.root)).trial
    assert kept is not None
    assert kept.opened == 1


def account(site: Site) -> dict[str, Any]:
    facts = site.rollout.account()
    assert facts is not None
    return facts
