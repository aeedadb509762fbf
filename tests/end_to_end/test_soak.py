"""Short forms of the long ones that `make soak` runs: the same code, fewer cycles."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.bundles import write_tiny_bundle
from rig.microphone import missing
from soak.configuration import fuzz
from soak.day import listen
from soak.microphone import suffer
from soak.rollout import torment


def test_configurations_that_are_broken_at_random_are_accepted_or_refused_with_file_key_and_reason(
    tmp_path: Path,
) -> None:
    verdicts = fuzz(120, tmp_path, seed=1)
    assert sum(verdicts.values()) == 120
    assert verdicts["accepted"] > 0
    assert verdicts["refused by key"] > 0


def test_ten_minutes_of_sound_are_accounted_for_window_by_window(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "tiny")
    report = listen(600, tmp_path, tmp_path / "tiny")
    assert report.heard == report.scored + report.unusable + report.dropped == 60
    assert report.told_scores == report.scored
    assert report.descriptors[1] <= report.descriptors[0]


def test_box_that_is_killed_while_bundles_are_rolled_out_is_never_without_one_and_has_the_last_in_the_end(
    tmp_path: Path,
) -> None:
    count = torment(10, tmp_path, seed=5, pause_s=0.5, tried=0.0, longest_s=8.0)
    assert sum(count.kills.values()) == 10
    assert (count.dropped_bundles, count.judged) == (0, count.waited_for)
    assert count.updates > 0
    assert count.windows > 0


@pytest.mark.microphone
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_microphone_that_is_unplugged_frozen_and_starved_leaves_nothing_behind(tmp_path: Path) -> None:
    report = suffer(3, tmp_path)
    assert {name: len(times) for name, times in report.back_s.items()} == {
        "absent at boot": 1,
        "unplugged": 1,
        "frozen": 1,
        "starved": 1,
    }
    assert report.readings[-1].children == report.readings[0].children
    assert report.readings[-1].descriptors <= report.readings[0].descriptors
