"""The benchmark of sorted fine-tuning: both models train, and are measured at each exit."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks import sorted_exits
from tests.experiments.small_checkpoint import TEXT


def test_both_models_are_measured_at_each_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"width": (16,), "depth": (1, 2), "kv_heads": (1,), "mlp_width": (16,), "context": 16}
    monkeypatch.setattr(sorted_exits, "SPACE", dataclasses.replace(sorted_exits.SPACE, **tiny))
    (tmp_path / "text.txt").write_text(TEXT)
    found = sorted_exits.measured(tmp_path / "text.txt", steps=30, seed=0)
    assert {name: len(figures) for name, figures in found.items()} == {"normal": 2, "sorted": 2, "seconds": 2}
    assert found["sorted"][0] < found["normal"][0]
    assert all(np.isfinite(figure) for figures in found.values() for figure in figures)
