"""What the settings say of alarms and windows, as the rules that judge by it."""

from __future__ import annotations

from asd_daemon.hear.windows.fitness import FitnessLimits
from asd_daemon.judge.alarm.alarm_rule import AlarmRule
from asd_daemon.judge.thresholds.threshold import LearningRule
from asd_daemon.run.machine_threshold import ThresholdRule
from asd_daemon.settings.keys import AlarmSettings, MachineSettings, QualitySettings


def alarm_rule(alarm: AlarmSettings) -> AlarmRule:
    """The alarm that the settings describe."""
    return AlarmRule(
        alarm.open_after,
        alarm.of,
        alarm.close_after,
        alarm.update_every_s,
        alarm.hysteresis,
        alarm.cool_down_s,
        alarm.relapse_s,
    )


def threshold_rule(machine: MachineSettings) -> ThresholdRule:
    """Which threshold holds for a machine, as its settings say."""
    alarm = machine.alarm
    learning = LearningRule(alarm.open_after, alarm.of, machine.hop_s, alarm.false_alarms_per_week)
    return ThresholdRule(alarm.threshold, learning if alarm.threshold_learning else None)


def fitness_limits(quality: QualitySettings) -> FitnessLimits:
    """Where usable ends, as the settings say."""
    return FitnessLimits(quality.below_db, quality.above_db, quality.off_below_dbfs, deaf_after_s=quality.deaf_after_s)
