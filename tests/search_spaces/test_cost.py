"""Costs by table look-up: many architectures at once cost what each of them does alone, and what its terms say."""

import numpy as np
import pytest

from search_spaces.cost import CostModel, Term


@pytest.mark.parametrize("combine", [np.add, np.maximum])
def test_many_cost_what_each_does_alone(combine: np.ufunc) -> None:
    values = np.random.default_rng(0)
    columns = [(0,), (2, 1), (), (4, 0, 3), (5, 2), (6, 7, 5), (8, 1, 6)]
    sizes = (5, 3, 7, 6, 4, 8, 5, 9, 6)
    terms = [Term(of, values.integers(-1000, 1000, (*(sizes[c] for c in of), 2))) for of in columns]
    model = CostModel(len(sizes), terms, ("a", "b"), combine)
    genes = values.integers(0, sizes, (9000, len(sizes)))
    expected = np.stack(
        [term.table[tuple(genes[:, c] for c in term.columns)] + np.zeros((9000, 2), int) for term in terms]
    )
    found = model(genes)
    assert list(found) == ["a", "b"]
    for metric, name in enumerate(found):
        assert found[name].dtype == np.int64
        assert np.array_equal(found[name], combine.reduce(expected[..., metric]))
        assert np.array_equal(found[name][:200], model(genes[:200])[name])
        assert np.array_equal(found[name][:1], model(genes[:1])[name])
    assert all(costs.shape == (0,) for costs in model(genes[:0]).values())
