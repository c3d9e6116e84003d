"""Scores of untrained networks: computed once, their places, and what predictors learn from them."""

import numpy as np
import pytest

from experiments.untrained import Scored
from search_spaces import build_space
from search_spaces.predictor import cross_validated_tau
from supernet.proxies import LayerProxy, Proxy


class Sum(Proxy):
    """The sum of the genes."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, genes) -> float:
        self.asked += 1
        return float(genes.sum())


class Smaller(Sum):
    """One whose smaller scores are better."""

    larger_is_better = False


class Layers(LayerProxy):
    """A part a gene; as many as the first gene says and two more."""

    def __init__(self) -> None:
        pass

    def layers(self, genes) -> np.ndarray:
        return np.asarray(genes[: genes[0] + 2], float)


class Failing(Sum):
    """Not a number for what begins with 0."""

    def __call__(self, genes) -> float:
        return float("nan") if genes[0] == 0 else float(genes[1])


GENES = np.array([[0, 3, 1], [1, 0, 0], [2, 1, 1], [1, 0, 0]], np.int32)


def test_each_network_is_computed_once() -> None:
    proxy, told = Sum(), []
    scored = Scored({"sum": proxy}, lambda: told.append(1))
    assert scored.totals(GENES)[:, 0].tolist() == [4, 1, 4, 1]
    scored.tokens(GENES, 4)
    assert (proxy.asked, len(told)) == (3, 3)


def test_places_are_mean_ranks_and_failures_come_last() -> None:
    assert Scored({"sum": Sum()}).places(GENES).tolist() == pytest.approx([5 / 6, 1 / 6, 5 / 6, 1 / 6])
    assert Scored({"smaller": Smaller()}).places(GENES).tolist() == pytest.approx([1 / 6, 5 / 6, 1 / 6, 5 / 6])
    both = Scored({"sum": Sum(), "smaller": Smaller()}).places(GENES)
    assert both.tolist() == pytest.approx([0.5] * 4)
    assert Scored({"failing": Failing()}).places(GENES).argmin() == 0
    assert Scored({"sum": Sum()}).places(GENES[:1]).tolist() == [0]


def test_tokens_hold_parts_by_layer() -> None:
    scored = Scored({"layers": Layers(), "sum": Sum()})
    assert scored.totals(GENES)[:, 0].tolist() == [3, 1, 4, 1]
    tokens = scored.tokens(GENES, 4)
    assert tokens[0].tolist() == [[0, 3, 0, 0], [4, 0, 0, 0]]
    assert tokens[2].tolist() == [[2, 1, 1, 0], [4, 0, 0, 0]]
    assert scored.tokens(GENES, 2)[2].tolist() == [[2, 1], [4, 0]]  # more layers than were learned from


@pytest.mark.parametrize("kind", ["parzc", "proxy_forest"])
def test_predictors_learn_targets_from_scores(kind: str) -> None:
    """Errors that follow from one of two proxies: predictions of unseen networks have their order."""
    space = build_space("nas_bench_201", "small")
    rng = np.random.default_rng(0)
    genes = np.unique(space.sample(rng, 40), axis=0)
    scored = Scored({"sum": Sum(), "layers": Layers()})
    errors = -genes.sum(axis=1) + 0.01 * rng.random(len(genes))
    fit = scored.fit(kind)
    predicted = fit(genes[:25], errors[:25], 0)(genes[25:])
    assert np.corrcoef(predicted, errors[25:])[0, 1] > 0.8
    if kind == "proxy_forest":
        assert cross_validated_tau(space, genes, errors, kind, 5, 0, fit) > 0.7


@pytest.mark.parametrize("kind", ["parzc", "proxy_forest"])
def test_equal_targets_order_nothing(kind: str) -> None:
    """A search goes on where all networks are equally bad so far."""
    genes = np.array([[i % 3, i // 3, 1] for i in range(12)], np.int32)
    assert Scored({"sum": Sum()}).fit(kind)(genes, np.full(12, 0.9), 0)(genes[:4]).tolist() == pytest.approx([0.9] * 4)
