"""What several tests of the trainer share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rig.trainer import ForkingTrainer


@pytest.fixture(scope="session", autouse=True)
def quick_forecasts() -> Iterator[None]:
    """What a step costs is measured once rather than several times: a run forecasts before it begins, and no test asks how well."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("asd_trainer.run.step_cost.CALLS", 1)
        yield


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkingTrainer]:
    """asd-train in processes of its own."""
    with ForkingTrainer(tmp_path_factory.mktemp("trainer")) as running:
        yield running
