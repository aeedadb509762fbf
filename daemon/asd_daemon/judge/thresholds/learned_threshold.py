"""A threshold that keeps its word: the tail of what opens false alarms, learned from what is heard.

A box hears 60 480 windows a week and enrolment knows a hundred of them. What opens an alert is the k-th largest score of the last n
windows; its largest value in each hour is kept for some weeks. Hours follow each other far more loosely than windows, so their tail is
what a budget of alarms a week is a quantile of. The tail above a base level is a generalised Pareto distribution (Pickands 1975; streamed
as SPOT: Siffer et al., KDD 2017); the quantile is the predictive one (Coles and Tawn 1996), which counts what few hours leave unknown.

What guards it: windows of an open alert and of some hours before it don't teach; an alert that went by itself teaches that it was, not how
loud it was (a censored peak; without it the tail would be cut off at its own threshold and sink); the threshold moves so far a day and so
far in all. Pure: no clock is asked, nothing is kept on disk.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime

import numpy as np

from asd_daemon.judge.thresholds.generalised_pareto import excess_quantile
from asd_daemon.judge.thresholds.tail_memory import Stretch, TailMemory
from asd_daemon.judge.thresholds.threshold import EnrolledThreshold, Held, LearningRule, Threshold

DAY_S = 86_400
WEEK_S = 7.0 * DAY_S
DIGITS = 6  # of scores that are remembered
MOST_GAP_S = 3 * 86_400.0  # a longer silence between two hours is no time that was listened through
QUARANTINED = 24 * 14  # stretches that are held for somebody's word
LEAST_STRETCHES = 24  # from so many on they say anything
MOST_DAYS_AT_ONCE = 7  # of moving, after a pause


class LearnedThreshold:
    """One machine's."""

    def __init__(self, rule: LearningRule, enrolled: EnrolledThreshold, memory: TailMemory | None = None) -> None:
        """Go on from a memory, or begin anew where it belongs to another enrolment.

        Raises:
            ValueError: an enrolled threshold that does not lie above the centre.
        """
        if not enrolled.threshold > enrolled.centre:
            raise ValueError(f"the enrolled threshold must lie above the centre: {enrolled}")
        self._rule, self._enrolled = rule, enrolled
        self._room = enrolled.threshold - enrolled.centre
        subject = rule.subject(enrolled.enrolment)
        is_known = memory is not None and memory.subject == subject
        self._memory = memory.model_copy(deep=True) if memory and is_known else TailMemory(subject=subject)
        self._recent: deque[float] = deque(self._memory.recent, maxlen=rule.of)
        newest = max(self._memory.numbers, default=0) if self._memory.current is None else self._memory.current.number
        self._threshold = self._judge(self._day(newest), at_once=self._memory.budget != rule.false_alarms_per_week)

    @property
    def memory(self) -> TailMemory:
        """All that is known, to go on from later."""
        self._memory.recent = list(self._recent)
        return self._memory.model_copy(deep=True)

    @property
    def threshold(self) -> Threshold:
        """As it stands."""
        return self._threshold

    @property
    def drift(self) -> float:
        """How far the last day's level lies above the usual one, as a fraction of the enrolled room; 0 until a day has taught."""
        known = self._memory
        if len(known.levels) < LEAST_STRETCHES or not known.last_day:
            return 0.0
        usual = float(np.median(known.levels)) if known.usual is None else known.usual
        return (float(np.median(known.last_day)) - usual) / self._room

    @property
    def stretch(self) -> int | None:
        """Which stretch of time is heard now, counted from 1970."""
        return None if self._memory.current is None else self._memory.current.number

    def hear(self, score: float, at: datetime, *, alert_open: bool) -> Threshold | None:
        """Take in a usable window after the alarm has judged it; the threshold, where it became another one.

        Args:
            score: of the window.
            at: UTC time of the window.
            alert_open: whether an alert is open after it.
        """
        known, before = self._memory, self._threshold
        number = self._stretch(at.timestamp())
        if known.current is not None and number != known.current.number:
            self._end_stretch(number)
        self._follow_alert(at, alert_open)
        self._recent.append(score)
        if len(self._recent) >= self._rule.open_after:
            peak = sorted(self._recent)[-self._rule.open_after]
            so_far = known.current or Stretch(number, peak, score, 0)
            windows = so_far.windows + 1
            level = so_far.level + (score - so_far.level) / windows
            known.current = Stretch(number, max(so_far.peak, peak), level, windows)
        known.tainted = known.tainted or alert_open
        return self._threshold if self._threshold != before else None

    def drop_alert(self) -> None:
        """The open alert ended without anybody knowing how its machine was: it teaches nothing, not even that it was false."""
        self._memory.opened_at = None
        self._recent.clear()

    def accept(self, since: datetime, until: datetime) -> Threshold:
        """Somebody says that what was heard then was normal: it teaches, alerts or not; the threshold after that, which moves at once."""
        first, last = self._stretch(since.timestamp()), self._stretch(until.timestamp())
        known = self._memory
        normal = [s for s in known.quarantine if first <= s.number <= last]
        for stretch in normal:
            self._teach(stretch)
        if normal:
            known.usual = float(np.median([s.level for s in normal]))
        known.quarantine = [s for s in known.quarantine if not first <= s.number <= last]
        known.alarms = [a for a in known.alarms if not first <= a[0] <= last]
        self._threshold = self._judge(self._day(last), at_once=True)
        return self._threshold

    def _stretch(self, timestamp: float) -> int:
        return int(timestamp // self._rule.stretch_s)

    def _day(self, number: int) -> int:
        return int(number * self._rule.stretch_s // DAY_S)

    def _follow_alert(self, at: datetime, alert_open: bool) -> None:
        """Notice that an alert opens, and keep what led to it from teaching; or that it closes."""
        known, rule = self._memory, self._rule
        if alert_open and known.opened_at is None:
            known.opened_at, known.opened_over = at, self._threshold.value
            guarded = self._stretch(at.timestamp() - rule.guard_s)
            self._set_apart([s for s in known.pending if s.number >= guarded])
            known.pending = [s for s in known.pending if s.number < guarded]
        elif not alert_open and known.opened_at is not None:
            if 0 <= (at - known.opened_at).total_seconds() <= rule.passing_s:
                self._count_alarm(self._stretch(known.opened_at.timestamp()))
            known.opened_at = None
            self._recent.clear()  # as the alarm's are

    def _count_alarm(self, first: int) -> None:
        """An alert since a stretch is taken for a false one: stretches that crossed the threshold count, how far does not; others teach."""
        known, over = self._memory, self._memory.opened_over
        crossed = {first} | {s.number for s in known.quarantine if s.number >= first and s.peak > over}
        if known.current is not None and known.current.peak > over:
            crossed.add(known.current.number)
        before = {number for number, _ in known.alarms}
        known.alarms += [(number, _kept(over)) for number in sorted(crossed - before)]
        for stretch in (s for s in known.quarantine if s.number >= first and s.peak <= over):
            self._teach(stretch)
        known.quarantine = [s for s in known.quarantine if s.number < first or s.peak > over]

    def _is_quiet(self) -> bool:
        """Whether the last day's usual window lies nearer to what was enrolled than to the threshold, alert or not."""
        known, middle = self._memory, self._enrolled.centre + self._room / 2
        return bool(known.last_day) and float(np.median(known.last_day)) <= middle

    def _end_stretch(self, number: int) -> None:
        """The stretch that was heard is over; `number` is the next one."""
        known, over = self._memory, self._memory.current
        if over is None:
            return
        if over.number < number:  # else the clock was set back, and what was heard belongs nowhere
            known.last_day = [*known.last_day, _kept(over.level)][-round(DAY_S / self._rule.stretch_s) :]
            if known.tainted or self.drift > self._rule.drifted:
                self._set_apart([over])
            else:
                known.pending.append(over)
        ripe = self._stretch(number * self._rule.stretch_s - self._rule.guard_s) - 1
        for stretch in (s for s in known.pending if s.number <= ripe):
            self._teach(stretch)
        known.pending = [s for s in known.pending if ripe < s.number < number]
        known.current, known.tainted = None, known.opened_at is not None
        if self._day(number) != self._day(over.number):
            if known.opened_at is not None and self._threshold.state == "provisional" and self._is_quiet():
                # else an alert that too low a threshold keeps open would never be learned away
                self._count_alarm(self._stretch(known.opened_at.timestamp()))
            self._forget()
            self._threshold = self._judge(self._day(number))

    def _set_apart(self, stretches: list[Stretch]) -> None:
        self._memory.quarantine = (self._memory.quarantine + stretches)[-QUARANTINED:]

    def _teach(self, stretch: Stretch) -> None:
        known = self._memory
        place = int(np.searchsorted(known.numbers, stretch.number))
        if place < len(known.numbers) and known.numbers[place] == stretch.number:
            known.peaks[place] = max(known.peaks[place], _kept(stretch.peak))
        else:
            known.numbers.insert(place, stretch.number)
            known.peaks.insert(place, _kept(stretch.peak))
            known.levels.insert(place, _kept(stretch.level))
        known.windows += stretch.windows

    def _forget(self) -> None:
        """Let go the oldest. Counted in what was heard, not in dates: a clock that jumps must not cost what is known."""
        known = self._memory
        most = round(self._rule.memory_days * DAY_S / self._rule.stretch_s)
        known.numbers, known.peaks, known.levels = known.numbers[-most:], known.peaks[-most:], known.levels[-most:]
        known.alarms = [a for a in known.alarms if known.numbers and a[0] >= known.numbers[0]][-most:]

    def _judge(self, day: int, *, at_once: bool = False) -> Threshold:
        """The threshold of a day; `at_once`: it may go as far as it may go in all."""
        known, rule, base, room = self._memory, self._rule, self._enrolled, self._room
        days = len({self._day(n) for n in [*known.numbers, *(n for n, _ in known.alarms)]})
        is_calibrated = days >= rule.least_days and known.windows >= rule.least_windows
        says_anything = days >= rule.early_days and len(known.peaks) >= LEAST_STRETCHES
        wanted = self._wanted() if says_anything else None
        aim = base.threshold if wanted is None else wanted
        lowest = base.centre + rule.narrowest * room if is_calibrated else base.threshold
        target = min(max(aim, lowest), base.centre + rule.widest * room)
        value = target if at_once else self._within_reach(target, day, is_calibrated=is_calibrated)
        held: Held | None = "limit" if target != aim else None
        if value != target:
            held = "fall" if value > target else "drift" if self.drift > rule.drifted else "rise"
        known.value, known.moved, known.budget = value, day, rule.false_alarms_per_week
        return Threshold(value, "calibrated" if is_calibrated else "provisional", known.windows, days, wanted, held)

    def _within_reach(self, target: float, day: int, *, is_calibrated: bool) -> float:
        """How near to a target the threshold may come by a day."""
        known, rule = self._memory, self._rule
        if known.value is None:
            before, passed = self._enrolled.threshold, 1
        else:  # a clock that was set back costs a day of moving, not all
            before, passed = known.value, min(day - known.moved, MOST_DAYS_AT_ONCE) if day >= known.moved else 1
        rise_per_day = rule.rise_per_day if is_calibrated else rule.move_per_day
        rise = 0.0 if self.drift > rule.drifted else passed * rise_per_day * self._room
        return min(max(target, before - passed * rule.move_per_day * self._room), before + rise)

    def _wanted(self) -> float:
        """The level that as many alerts a week cross as there may be."""
        known, rule = self._memory, self._rule
        gaps = np.minimum(np.diff(known.numbers), MOST_GAP_S / rule.stretch_s)
        weeks = (float(gaps.sum()) + 1) * rule.stretch_s / WEEK_S
        peaks, alarms = np.sort(known.peaks), np.array([over for _, over in known.alarms])
        share = min(0.5, max(0.1, 30 / peaks.size))
        base = float(peaks[-round(share * peaks.size) - 1])
        above, crossed = peaks[peaks > base] - base, alarms[alarms > base] - base
        per_week = (above.size + crossed.size) / weeks
        if rule.false_alarms_per_week >= 0.9 * per_week:  # so many that the peaks themselves say where
            return float(peaks[max(peaks.size - round(rule.false_alarms_per_week * weeks), 0)])
        return base + excess_quantile(above, rule.false_alarms_per_week / per_week, crossed)


def _kept(score: float) -> float:
    """A score as it is remembered."""
    return float(f"{score:.{DIGITS}g}")
