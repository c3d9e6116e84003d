"""Pieces of every family, and what fits of their costs recover."""

import numpy as np
import pytest

from search_spaces import FAMILIES, Cost, SearchSpace, build_space
from search_spaces.cost import product
from search_spaces.piece_costs import PieceCosts, fit_peak, fit_sum, left_out_error
from search_spaces.pieces import Pieces

PRESETS = [(family, preset) for family in FAMILIES for preset in FAMILIES[family].presets]


@pytest.fixture(scope="module")
def small() -> SearchSpace:
    return build_space("vit", "small")


@pytest.mark.parametrize(("family", "preset"), PRESETS)
def test_pieces_add_up_to_the_costs_of_every_network(family, preset):
    space = build_space(family, preset)
    genes, pieces = space.sample(np.random.default_rng(0), 300), Pieces(space)
    counts, costs = pieces.counts(genes), space.cost(genes)
    costs = {metric: costs[metric] for metric in Cost._fields}
    np.testing.assert_array_equal(counts @ pieces.costs, np.stack(list(costs.values()), axis=1))
    assert len(np.unique(pieces.costs, axis=0)) == len(pieces) < space.num_genes * 20
    summed = pieces.model(pieces.costs, ("x", "y", "z"))(genes)
    assert all((summed[a] == costs[b]).all() for a, b in zip("xyz", costs, strict=True))
    dearest = pieces.model(pieces.costs, ("x", "y", "z"), np.maximum)(genes)
    for i, name in enumerate("xyz"):
        np.testing.assert_array_equal(dearest[name], np.where(counts > 0, pieces.costs[:, i], 0).max(axis=1))


def test_like_layers_share_their_pieces(small):
    # 3 widths: one pair of ends, 3 attentions, 3 MLPs each, whatever the layer.
    assert len(Pieces(small)) == 3 * (1 + 3 + 3)
    one, two = (
        small.encode({"width": 32, "depth": 3, "heads": heads, "mlp_ratio": [1.0, 1.0, 1.0]}).genes
        for heads in ([2, 2, 4], [4, 2, 2])
    )
    counts = Pieces(small).counts(np.array([one, two], np.int32))
    np.testing.assert_array_equal(counts[0], counts[1])
    assert sorted(counts[0][counts[0] > 0].tolist()) == [1, 1, 2, 3]


def test_a_sum_of_known_pieces_is_recovered_and_outliers_do_not_matter(small):
    rng, pieces = np.random.default_rng(1), Pieces(small)
    truth = rng.uniform(1e5, 1e6, len(pieces))
    train, test = (pieces.counts(small.sample(rng, n)) for n in (80, 200))
    exact = fit_sum(train, pieces.costs, 7e5 + train @ truth)
    np.testing.assert_allclose(exact(test), 7e5 + test @ truth, rtol=1e-3)
    disturbed = 7e5 + train @ truth
    disturbed[::10] *= 4
    robust = fit_sum(train, pieces.costs, disturbed)
    assert np.median(np.abs(robust(test) / (7e5 + test @ truth) - 1)) < 0.02


def test_pieces_that_were_never_measured_follow_the_others(small):
    rng, pieces = np.random.default_rng(2), Pieces(small)
    genes = small.sample(rng, 300)
    widest = genes[:, small.columns["width"]] == 2
    counts = pieces.counts(genes)
    macs = 3.0 * small.cost(genes)["macs"]
    fitted = fit_sum(counts[~widest], pieces.costs, macs[~widest])
    assert (counts[~widest].sum(axis=0) == 0).sum() == 7
    np.testing.assert_allclose(fitted(counts[widest]), macs[widest], rtol=0.01)


def test_values_are_never_negative(small):
    rng, pieces = np.random.default_rng(3), Pieces(small)
    counts = pieces.counts(small.sample(rng, 60))
    fitted = fit_sum(counts, pieces.costs, rng.uniform(1e6, 2e6, 60))
    assert fitted.values.min() >= 0
    assert fitted.constant >= 0


def test_the_peak_by_hand():
    # Networks {0}, {0, 1}, {1, 2}: piece 1 costs 7 at most by the second, 2 is bounded by 12 and by its size alone.
    counts = np.array([[1, 0, 0, 0], [2, 1, 0, 0], [0, 1, 1, 0]])
    costs = np.array([[0, 0, 4], [0, 0, 7], [0, 0, 8], [0, 0, 100]])
    fitted = fit_peak(counts, costs, np.array([4.0, 7.0, 12.0]))
    assert fitted.values.tolist() == [4, 7, 12, 150]  # most for its size: 12 / 8
    assert fitted(counts).tolist() == [4, 7, 12]
    assert fitted(np.zeros((1, 4), np.int64)).tolist() == [0]


def test_a_peak_never_exceeds_what_was_measured(small):
    rng, pieces = np.random.default_rng(4), Pieces(small)
    counts = pieces.counts(small.sample(rng, 60))
    measured = np.round(rng.uniform(1e5, 9e5, 60))
    assert (fit_peak(counts, pieces.costs, measured)(counts) <= measured).all()


def test_the_error_of_what_is_left_out():
    counts, measured = np.ones((10, 1), np.int64), np.array([1.0] * 9 + [2.0])
    error = left_out_error(lambda c, m: PieceCosts("sum", 1, np.zeros(1, np.int64)), counts, measured)
    assert error == pytest.approx(0.05)


def test_products_do_not_warn_of_what_the_processor_does_beside_them() -> None:
    assert np.isnan(product(np.array([[np.inf, 1]]), np.array([[0], [1.0]]))).all()  # an invalid operation
