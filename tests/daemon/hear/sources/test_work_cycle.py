"""A simulated machine that stands still and changes its product."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.errors import UsageError
from asd_daemon.hear.opening import open_source
from asd_daemon.hear.source import Block
from asd_daemon.hear.source_spec import parse_source
from asd_daemon.hear.sources.work_cycle import parse_cycle
from asd_daemon.waveform import rms_level_dbfs


def heard(options: str) -> list[Block]:
    source = open_source(parse_source(f"simulate:fan?speed=max&{options}"))
    return [event for event in source.events() if isinstance(event, Block)]


def test_steps_come_again_and_again() -> None:
    cycle = parse_cycle("load=50+m-n=X:2,off:1,on:1")
    assert [cycle.step_at(second) for second in range(9)] == [0, 0, 1, 2, 0, 0, 1, 2, 0]
    assert [step.setting for step in cycle.steps] == [{"load": "50", "m-n": "X"}, None, {}]


def test_machine_that_is_off_leaves_its_place_alone_to_be_heard() -> None:
    levels = np.array([rms_level_dbfs(block.samples) for block in heard("snr=20&seconds=12&cycle=on:4,off:4")])
    on, off = np.concatenate([levels[1:4], levels[9:]]), levels[5:8]
    assert on.min() - off.max() > 15
    assert off.min() > -60


def test_failure_stays_while_the_machine_stands_still() -> None:
    def cycles(failing: str) -> list[np.ndarray]:
        return [block.samples for block in heard(f"snr=20&seconds=12&cycle=on:4,off:4{failing}")]

    well, ill = cycles(""), cycles("&fail=blade_chip&fail_after=2")
    assert np.array_equal(well[6], ill[6]), "off, nothing of it is heard"
    assert not np.allclose(well[10], ill[10], atol=1e-3)


@pytest.mark.parametrize("text", ["", "on", "on:0", "on:x", "load:5", "=5:5", "load=:5", "on:5,", "on:5,off:-1"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cycle"):
        parse_cycle(text)


def test_setting_that_the_machine_does_not_have_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="load has no value '7'"):
        open_source(parse_source("simulate:fan?cycle=on:9,load=7:9"))
