"""What search minimises, and what becomes of candidates that cannot be evaluated."""

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data import Split
from experiments.exporting.stage import reached
from experiments.objective import OBJECTIVES
from experiments.searching.stage import candidate_objectives
from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.tasks.classes import CLASSES
from supernet.training.evaluation import Evaluator, Scores


@dataclass(frozen=True)
class Rows(Split):
    """Examples in memory."""

    x: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.x)

    def read(self, rows):
        return self.x[rows], self.labels[rows]

    def take(self, indices):
        return Rows(*self.read(indices))


GENES = np.arange(4, dtype=np.int32)[:, None]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_minimised_falls_where_what_is_shown_gets_better(name):
    objective = OBJECTIVES[name]
    minimised = [float(objective.lower(np.array(figure))) for figure in (0.25, 0.75)]
    shown = [objective.value(value) for value in minimised]
    assert (minimised[0] > minimised[1]) == objective.higher
    assert shown[0] < shown[1]
    if objective.shown == objective.figure:
        assert shown == pytest.approx([0.25, 0.75])
    # No figure of what is better the higher it is may be written down under the name of that figure.
    assert not (objective.higher and name in (objective.figure, objective.shown))
    if objective.worst is not None:
        assert objective.lower(np.array(objective.range[0 if objective.higher else 1])) == objective.worst


def test_a_classifier_that_computes_nan_has_failed():
    space = build_space("vit", "small", {"depth": [1], "width": [16, 32]})
    net = build_supernet(space)
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, np.nan), net.init(jax.random.key(0)))
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(6, 8, 8, 1)).astype(np.float32), np.zeros(6, int)  # class 0: argmax of NaN
    scores = Evaluator(net, x, labels, 4, x[None])(params, space.sample(rng, 3))
    assert scores.failed.all()
    assert np.isnan(scores.figure).all()
    assert np.isnan(OBJECTIVES["error"].of(scores)).all()


def test_an_exported_network_that_computes_nan_has_no_accuracy():
    class Broken:
        config: ClassVar = {"labels": ["a", "b"]}
        outputs: ClassVar = CLASSES

        def predict(self, examples, batch_size):
            return np.where(examples[:, :1] > 2, np.nan, [[0.0, 1.0]])

    examples = Rows(np.arange(5)[:, None], np.ones(5, int))
    assert reached(cast(Any, Broken()), examples.take(np.arange(3)), "here")["accuracy"] == 1
    with pytest.raises(UserError, match="here: the network has failed: its outputs are not finite on 2 of "):
        reached(cast(Any, Broken()), examples, "here")


def test_what_the_device_cannot_evaluate_fails_alone():
    calls = []

    def scores(genes, fraction):
        calls.append((genes[:, 0].tolist(), fraction))
        if 2 in genes:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return Scores(genes[:, 0] / 10, np.zeros(len(genes)))

    evaluate = candidate_objectives(scores, OBJECTIVES["error"])
    np.testing.assert_allclose(evaluate(GENES, 0.5), [1, 0.9, np.nan, 0.7])
    assert calls == [([0, 1, 2, 3], 0.5), *(([i], 0.5) for i in range(4))]
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        evaluate(GENES[[2, 2]])
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        evaluate(GENES[[2]])
