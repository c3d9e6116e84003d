"""The benchmark of ordering: whole networks are the same in any order, prefixes are not."""

from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import elastic_language
from experiments.benchmarks.ordering import measured
from tests.experiments.small_checkpoint import TEXT


@pytest.mark.slow
def test_only_prefixes_depend_on_the_order(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    found = measured(tmp_path / "text.txt", steps=3, seed=0, permutations=1)
    assert list(found) == ["50 %", "75 %", "100 %"]
    ordered, random = found["100 %"]
    np.testing.assert_allclose(ordered, random, rtol=1e-5)
    for share in ("50 %", "75 %"):
        ordered, random = found[share]
        assert abs(ordered - random) > 1e-4


@pytest.mark.slow
def test_sizes_are_compared_with_themselves_trained_alone(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    found = elastic_language.measured(tmp_path / "text.txt", parent_steps=3, steps=21, alone_steps=24, seed=0)
    assert len(found) == 1 + 2 * 3
    assert found["elastic, 100 %"] < found["parent"]  # three steps leave much to learn
    assert all(np.isfinite(list(found.values())))
