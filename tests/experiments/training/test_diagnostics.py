"""Diagnostics: scalar products against vectors at hand, the warning's rule, and what a short training leaves behind."""

import numpy as np
import pytest

from experiments.training.diagnostics import collapsed, cosines_of, entropy, gradient_scalars

RNG = np.random.default_rng(0)


def test_gradient_scalars_are_those_of_the_vectors():
    vectors = RNG.normal(size=(5, 40))
    paths, before = vectors[:4], vectors[4]
    found = gradient_scalars(vectors @ vectors.T, 4)
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in paths] for b in paths])
    between = cosines[np.triu_indices(4, 1)]
    np.testing.assert_allclose(cosines_of(paths @ paths.T), cosines, rtol=1e-12)
    assert found["gradients/cosine_between_paths"] == pytest.approx(between.mean())
    assert found["gradients/lowest_cosine_between_paths"] == pytest.approx(between.min())
    assert found["gradients/variance_over_paths"] == pytest.approx(np.var(paths, axis=0, ddof=1).sum())
    expected = np.mean([before @ p / np.linalg.norm(before) / np.linalg.norm(p) for p in paths])
    assert found["gradients/cosine_with_step_before"] == pytest.approx(expected)


def test_one_path_has_no_variance_and_the_first_step_no_step_before():
    vector = RNG.normal(size=(1, 40))
    products = np.zeros((2, 2))
    products[:1, :1] = vector @ vector.T
    assert gradient_scalars(products, 1) == {}


def test_entropy_is_one_for_uniform_and_zero_for_certainty():
    assert entropy(np.full(7, 1 / 7)) == pytest.approx(1)
    assert entropy(np.array([0.0, 1.0, 0.0])) == 0
    assert entropy(np.ones(1)) == 1


@pytest.mark.parametrize(
    ("error", "best", "progress", "expected"),
    [
        (0.2, 0.2, 0.3, False),
        (0.5, 0.2, 0.3, False),
        (0.6, 0.2, 0.3, True),  # more than half way back to guessing
        (0.89, 0.88, 0.3, False),  # has not learned yet, and it is early
        (0.89, 0.88, 0.6, True),
    ],
)
def test_an_end_collapses_when_it_loses_half_or_never_learns(error, best, progress, expected):
    assert collapsed(error, best, 0.9, progress) is expected
