"""D-optimal designs: the best rows by brute force, orthogonal where that is possible, and what MIP begins with."""

import itertools

import numpy as np
import pytest

from search import MIP
from search.design import d_optimal
from search_spaces.predictor import one_hot


def log_determinant(rows: np.ndarray, penalty: float = 1.0) -> float:
    full = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
    return np.linalg.slogdet(penalty * np.eye(full.shape[1]) + full.T @ full)[1]


def test_each_row_raises_the_determinant_most() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 4))
    chosen = d_optimal(rows, 6, 0.5).tolist()
    assert len(set(chosen)) == 6
    for i, row in enumerate(chosen):
        others = [other for other in range(30) if other not in chosen[:i]]
        gained = {other: log_determinant(rows[[*chosen[:i], other]], 0.5) for other in others}
        assert gained[row] == pytest.approx(max(gained.values()))


def test_four_of_eight_corners_are_orthogonal() -> None:
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    design = corners[d_optimal(corners, 4, 1e-3)]
    assert (design.T @ design).tolist() == (4 * np.eye(3)).tolist()
    assert design.sum(axis=0).tolist() == [0, 0, 0]


def test_there_are_never_more_rows_than_candidates() -> None:
    assert sorted(d_optimal(np.eye(3), 5, 1.0).tolist()) == [0, 1, 2]


def test_mip_begins_with_a_design(small, limits) -> None:
    searcher = MIP(small, limits(small, "macs<=100%", "macs<=50%"), 0, population=4, first=20)
    asked = searcher.ask(searcher.init())
    assert len(np.unique(asked, axis=0)) == len(asked) == 20
    drawn = small.sample(np.random.default_rng(0), 20)
    assert log_determinant(one_hot(small, asked)) > log_determinant(one_hot(small, drawn))
    free = 1 + int((small.cardinalities - 1).sum())
    default = MIP(small, limits(small, "macs<=100%"), 0)
    assert len(default.ask(default.init())) == min(free + 2, 64)


def test_a_first_generation_of_nothing_is_refused(tiny, limits) -> None:
    with pytest.raises(ValueError, match=r"search\.first: 0 is less than 1"):
        MIP(tiny, limits(tiny, "macs<=100%"), 0, first=0)
