"""Predictors learn what they can, and their cross-validated tau owes nothing to what they were shown."""

import numpy as np
import pytest

from search_spaces import PREDICTORS, Predictor, UserError, build_space, cross_validated_tau
from search_spaces.predictor import one_hot


@pytest.fixture(scope="module")
def space():
    return build_space("vit", "small")


@pytest.fixture(scope="module")
def genes(space) -> np.ndarray:
    return np.unique(space.sample(np.random.default_rng(0), 300), axis=0)


@pytest.fixture(scope="module")
def additive(space, genes) -> np.ndarray:
    """One term a value of each active gene, in the unit of a loss."""
    terms = np.random.default_rng(1).normal(size=int(space.cardinalities.sum()))
    return 2.3 + 1e-3 * one_hot(space, genes) @ terms


@pytest.fixture(scope="module")
def noise(genes) -> np.ndarray:
    return np.random.default_rng(2).normal(size=len(genes))


def test_features_are_one_hot_and_zero_where_a_gene_means_nothing(space, genes):
    features = one_hot(space, genes)
    active = space.active(genes)
    assert features.shape == (len(genes), space.cardinalities.sum())
    parts = np.split(features, np.cumsum(space.cardinalities)[:-1], axis=1)
    for gene, part in enumerate(parts):
        np.testing.assert_array_equal(part.sum(axis=1), active[:, gene])
        np.testing.assert_array_equal(part.argmax(axis=1), np.where(active[:, gene], genes[:, gene], 0))
    assert not active.all()


def test_features_do_not_depend_on_genes_that_mean_nothing(space, genes):
    other = np.where(space.active(genes), genes, space.cardinalities - 1).astype(np.int32)
    assert not np.array_equal(other, genes)
    np.testing.assert_array_equal(one_hot(space, genes), one_hot(space, other))


@pytest.mark.parametrize("kind", PREDICTORS)
def test_an_additive_function_is_learned_and_noise_is_not(space, genes, additive, noise, kind):
    least = {"ridge": 0.95, "svr": 0.9, "gradient_boosting": 0.6, "random_forest": 0.5}[kind]
    assert cross_validated_tau(space, genes, additive, kind) > least
    # Tau-b of independent rankings of n has a standard deviation of about sqrt(4 / (9 n)).
    assert abs(cross_validated_tau(space, genes, noise, kind)) < 4 * np.sqrt(4 / (9 * len(genes)))


@pytest.mark.parametrize("kind", PREDICTORS)
def test_copies_of_an_architecture_do_not_leak(space, genes, noise, kind):
    """Four copies of each, two of them not canonical: whatever lies in another fold would give noise away."""
    few, targets = genes[:60], noise[:60]
    loose = np.where(space.active(few), few, space.cardinalities - 1).astype(np.int32)
    copies = np.concatenate([few, few, loose, loose])
    assert cross_validated_tau(space, copies, np.tile(targets, 4), kind) < 0.25
    fitted = Predictor.fit(space, copies, np.tile(targets, 4), kind)(few)
    assert np.corrcoef(fitted, targets)[0, 1] > 0.5  # the leak would be large


@pytest.mark.parametrize("kind", PREDICTORS)
def test_the_same_seed_gives_the_same_predictions(space, genes, additive, kind):
    first, second = (Predictor.fit(space, genes[:100], additive[:100], kind, seed=5)(genes) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float64
    assert first.shape == (len(genes),)
    assert Predictor.fit(space, genes, additive, kind)(genes[:0]).shape == (0,)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_predictions_follow_the_unit_of_the_targets(space, genes, additive, kind):
    plain = Predictor.fit(space, genes[:100], additive[:100], kind)(genes)
    # A power of two rounds nothing, which the ties between splits of a tree need.
    np.testing.assert_array_equal(Predictor.fit(space, genes[:100], 2**20 * additive[:100], kind)(genes), 2**20 * plain)


@pytest.mark.parametrize("kind", PREDICTORS)
def test_equal_targets_are_predicted_and_rank_nothing(space, genes, kind):
    constant = np.full(len(genes), 0.1)
    np.testing.assert_allclose(Predictor.fit(space, genes, constant, kind)(genes), 0.1)
    assert np.isnan(cross_validated_tau(space, genes, constant, kind))


def test_wrong_input(space, genes, additive):
    with pytest.raises(UserError, match=r"predictor: 'rigde' is not known. Did you mean 'ridge'"):
        Predictor.fit(space, genes, additive, "rigde")
    with pytest.raises(UserError, match=r"predictor: target 3 is nan. Leave out"):
        Predictor.fit(space, genes, np.where(np.arange(len(genes)) == 3, np.nan, additive))
    with pytest.raises(UserError, match="no architectures to learn from"):
        cross_validated_tau(space, genes[:0], additive[:0])
    copies = np.concatenate([genes[:3]] * 2)
    with pytest.raises(UserError, match=r"predictor\.folds: 4 folds of 3 distinct architectures"):
        cross_validated_tau(space, copies, np.zeros(6), folds=4)
