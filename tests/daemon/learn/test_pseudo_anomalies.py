"""Windows changed as failing machines change."""

from __future__ import annotations

import numpy as np
import pytest

from asd_daemon.learn.pseudo_anomalies import KINDS, pseudo_anomalies


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_changed_windows_keep_length_and_differ_and_repeat_with_the_seed(rng: np.random.Generator) -> None:
    waveform = (0.05 * rng.standard_normal(160_000)).astype(np.float32)
    waveform.reshape(40, 4000)[:, :640] *= 6
    once, again = (pseudo_anomalies(waveform, np.random.default_rng(1)) for _ in range(2))
    assert set(once) == set(KINDS)
    for kind, changed in once.items():
        assert changed.shape == waveform.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert np.abs(changed - waveform).max() > 0.005, kind
        np.testing.assert_array_equal(changed, again[kind])
