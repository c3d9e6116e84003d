"""The benchmark of ordering: whole networks are the same in any order, prefixes are not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import elastic_language, ordering
from experiments.benchmarks.ordering import measured
from tests.experiments.small_checkpoint import TEXT


@pytest.mark.slow
def test_prefixes_are_better_in_order_than_at_random(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    found = measured(tmp_path / "text.txt", steps=100, seed=1, permutations=4)
    assert list(found) == ["50 %", "75 %", "100 %"]
    ordered, *random = found["100 %"]
    np.testing.assert_allclose(ordered, random, rtol=1e-5)
    ordered, *random = found["75 %"]
    assert ordered < min(random)
    ordered, *random = found["50 %"]  # single random orders can be better
    assert ordered < np.mean(random)


@pytest.mark.slow
def test_sizes_are_compared_with_themselves_trained_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "_HELD_OUT", 64)
    for module in (elastic_language, ordering):
        monkeypatch.setattr(module, "SPACE", dataclasses.replace(ordering.SPACE, depth=(2,), context=32))
    (tmp_path / "text.txt").write_text(TEXT)
    found = elastic_language.measured(tmp_path / "text.txt", parent_steps=3, steps=21, alone_steps=24, seed=0)
    assert len(found) == 1 + 2 * 3
    assert found["elastic, 100 %"] < found["parent"]  # three steps leave much to learn
    assert all(np.isfinite(list(found.values())))
