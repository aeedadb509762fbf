"""What several tests of the trainer share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rig.trainer import ForkingTrainer


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkingTrainer]:
    """asd-train in processes of its own."""
    with ForkingTrainer(tmp_path_factory.mktemp("trainer")) as running:
        yield running
