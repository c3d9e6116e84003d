"""What search minimises, and what becomes of candidates that cannot be evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.objective import OBJECTIVES, objective_of
from experiments.search import judged
from search_spaces import build_space
from supernet.evaluation import Evaluator, Scores
from supernet.supernet import build_supernet

GENES = np.arange(4, dtype=np.int32)[:, None]


def test_a_classifier_that_computes_nan_has_failed():
    space = build_space("vit", "small", {"depth": [1], "width": [16, 32]})
    net = build_supernet(space)
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, np.nan), net.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 8, 8, 1)).astype(np.float32), np.zeros(6, int)  # class 0: argmax of NaN
    scores = Evaluator(net, x, labels, 4, x[None])(params, space.sample(rng, 3))
    assert (scores.accuracy > 0).all()
    assert np.isnan(objective_of(space).of(scores)).all()


def test_what_the_device_cannot_evaluate_fails_alone():
    calls = []

    def scores(genes, fraction):
        calls.append((genes[:, 0].tolist(), fraction))
        if 2 in genes:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return Scores(genes[:, 0] / 10, np.zeros(len(genes)))

    evaluate = judged(scores, OBJECTIVES["error"])
    np.testing.assert_allclose(evaluate(GENES, 0.5), [1, 0.9, np.nan, 0.7])
    assert calls == [([0, 1, 2, 3], 0.5), *(([i], 0.5) for i in range(4))]
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        evaluate(GENES[[2, 2]])
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        evaluate(GENES[[2]])
