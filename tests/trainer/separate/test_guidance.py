from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asd_daemon.errors import DataSetError
from asd_trainer.data.clip import Clip
from asd_trainer.data.dataset import ClipTable, read_dataset
from asd_trainer.separate.guidance import choose, materials

REALBENCH = Path(__file__).resolve().parents[3].parent / "shared" / "realbench"


def clip(machine: str, split: Any, number: int, supplement: Any = None) -> Clip:
    return Clip(Path(f"{machine}/{split}/{number}.wav"), machine, "00", split, "source", "normal", (), supplement, 2025)


CLEAN = tuple(clip("fan", "supplemental", n, "machine") for n in range(3))
NOISE = tuple(clip("lathe", "supplemental", n, "noise") for n in range(2))
TRAIN = tuple(clip(machine, "train", n) for machine in ("fan", "lathe", "valve") for n in range(4))
TEST = tuple(clip(machine, "test", n) for machine in ("fan", "lathe", "valve") for n in range(4))


def read(one: Clip) -> NDArray[np.float32]:
    return np.full(100, 0.1 + hash(one.path) % 7 / 100, np.float32)


def test_choose_of_mixed_data_set_gives_each_machine_what_it_has() -> None:
    chosen = choose(ClipTable((*CLEAN, *NOISE, *TRAIN, *TEST)))
    assert {name: guidance.kind for name, guidance in chosen.items()} == {
        "fan": "clean",
        "lathe": "noise",
        "valve": "none",
    }
    assert (chosen["fan"].machines, chosen["fan"].noises) == (CLEAN, NOISE)
    assert chosen["lathe"].machines == TRAIN[4:8]
    assert chosen["lathe"].noises == NOISE


def test_choose_without_any_noise_clips_lets_other_machines_be_the_noise() -> None:
    chosen = choose(ClipTable((*CLEAN, *TRAIN, *TEST)))
    assert chosen["fan"].noises == TRAIN[4:]
    assert chosen["lathe"].kind == "none"


def test_choose_never_takes_a_test_clip() -> None:
    for guidance in choose(ClipTable((*CLEAN, *NOISE, *TRAIN, *TEST))).values():
        assert all(one.split != "test" for one in (*guidance.machines, *guidance.noises))


def test_materials_reads_every_clip_once_and_marks_noisy_ones() -> None:
    seen: list[Clip] = []

    def reading(one: Clip) -> NDArray[np.float32]:
        seen.append(one)
        return read(one)

    made = materials(choose(ClipTable((*CLEAN, *NOISE, *TRAIN))).values(), reading)
    assert sorted(made) == ["fan", "lathe"]
    assert [made[name].noisy for name in ("fan", "lathe")] == [False, True]
    assert len(seen) == len(set(seen)) == len(CLEAN) + len(NOISE) + 4


def test_materials_without_any_supplement_says_so() -> None:
    with pytest.raises(DataSetError, match="no machine has clean or noise-only clips"):
        materials(choose(ClipTable(TRAIN)).values(), read)


def test_materials_of_silent_clips_names_the_machine() -> None:
    with pytest.raises(DataSetError, match="fan: no machine sound"):
        materials(
            choose(ClipTable((*CLEAN, *NOISE, *TRAIN))).values(),
            lambda one: np.zeros(100, np.float32) if one in CLEAN else read(one),
        )


@pytest.mark.realbench
@pytest.mark.skipif(not REALBENCH.is_dir(), reason="the realbench recordings are not here")
def test_choose_of_realbench_finds_clean_noise_and_none() -> None:
    chosen = choose(read_dataset([REALBENCH]))
    kinds = {name: (guidance.kind, len(guidance.machines), len(guidance.noises)) for name, guidance in chosen.items()}
    assert kinds == {
        "droneEight": ("noise", 70, 20),
        "droneSquare": ("clean", 12, 30),
        "fan": ("none", 0, 0),
        "lathe": ("noise", 22, 10),
    }
