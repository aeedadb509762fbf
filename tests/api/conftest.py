"""What the tests of the Python API share: two simulated machines as a data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from asd_trainer.data.simulation import write_dataset
from asd_trainer.data.simulation_plan import SimulationPlan


@pytest.fixture(scope="session")
def example_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("api") / "data"
    plan = SimulationPlan(
        machines=("fan", "valve"), source_train=10, target_train=2, test=4, supplemental=0, severity=(0.9, 1.0)
    )
    write_dataset(root, plan)
    return root
