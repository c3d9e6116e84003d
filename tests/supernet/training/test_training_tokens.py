"""The training step and the evaluator on tokens: masked references, teaching, one program, unlabelled tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from search_spaces.randomness import Purpose, stream
from supernet.tasks.distillation import Distillation
from supernet.training.evaluation import Evaluator
from supernet.training.training import TrainStep
from tests.supernet.families import small

LANGUAGE = small("language")
NET, SPACE, X = LANGUAGE.net, LANGUAGE.space, LANGUAGE.x
LABELS = jax.random.randint(jax.random.key(5), X.shape, 0, NET.classes).at[0].set(-1).at[1, 3].set(-1)
ROLES = ("largest", "random", "smallest")
GENES = np.stack([SPACE.largest.genes, SPACE.sample(np.random.default_rng(0), 1)[0], SPACE.smallest.genes])
WEIGHTS = np.array([1, 0.5, 2], np.float32)


def masked(params, genes):
    return NET.apply_masked(params, jnp.asarray(genes), X, program=SPACE.program(genes))


def cross_entropy(logits, distribution):
    """Mean over sequences of the mean over their labelled tokens; 0 for a sequence without any."""
    of_tokens = -jnp.sum(distribution * jax.nn.log_softmax(logits), -1) * (LABELS >= 0)
    return jnp.mean(of_tokens.sum(axis=1) / jnp.maximum((LABELS >= 0).sum(axis=1), 1))


@pytest.mark.parametrize("taught", [0.0, 0.75])
def test_a_step_is_the_gradient_of_the_masked_reference(taught):
    distillation = Distillation("largest", taught) if taught else None
    step = TrainStep(NET, optax.sgd(1.0), distillation)
    params = jax.tree.map(jnp.copy, LANGUAGE.params)
    one_hot = jax.nn.one_hot(LABELS, NET.classes)
    teacher = jax.nn.softmax(masked(params, GENES[0]))

    def total(params):
        losses = []
        for i, genes in enumerate(GENES):
            labelled, learned = (cross_entropy(masked(params, genes), p) for p in (one_hot, teacher))
            losses.append(WEIGHTS[i] * (labelled if i == 0 else (1 - taught) * labelled + taught * learned))
        return sum(losses), losses

    (_, losses), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    expected = jax.tree.map(lambda p, g: np.asarray(p - g), params, gradient)
    state, result = step(step.init(params), GENES, ROLES, WEIGHTS, X, LABELS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), state.params, expected)
    np.testing.assert_allclose([w * p.loss for w, p in zip(WEIGHTS, result.paths, strict=True)], losses, rtol=1e-4)
    logits = masked(LANGUAGE.params, GENES[2])
    hits = (jnp.argmax(logits, -1) == LABELS) & (LABELS >= 0)
    share = jnp.mean(hits.sum(axis=1) / jnp.maximum((LABELS >= 0).sum(axis=1), 1))
    np.testing.assert_allclose(result.paths[2].figure, share, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(result.paths[0].example_losses)[0], 0)


@pytest.mark.parametrize(
    ("kind", "restored"), [("none", False), ("largest", False), ("largest", True), ("ensemble", True)]
)
def test_whoever_teaches_there_is_one_program_a_width(kind, restored):
    """Also where weights come from a checkpoint, which binds them to a device."""
    step = TrainStep(NET, optax.sgd(0.01), Distillation(kind))
    params = jax.tree.map(jnp.copy, LANGUAGE.params)
    state = step.init(jax.device_put(params, jax.devices()[0]) if restored else params)
    rng = np.random.default_rng(1)
    for _ in range(6):
        genes = np.stack([SPACE.largest.genes, *SPACE.sample(rng, 2)]).astype(np.int32)
        state, _ = step(state, genes, ("largest", "random", "random"), WEIGHTS, X, LABELS)
    assert step.programs_compiled == SPACE.programs == 2


def test_scores_are_losses_without_a_gradient():
    step = TrainStep(NET, optax.sgd(1.0))
    found = step.score(LANGUAGE.params, GENES, X, np.asarray(LABELS))
    one_hot = jax.nn.one_hot(LABELS, NET.classes)
    expected = [cross_entropy(masked(LANGUAGE.params, genes), one_hot) for genes in GENES]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_evaluator_counts_tokens_and_not_texts():
    x, labels = np.asarray(X), np.asarray(LABELS)
    evaluator = Evaluator(NET, x, labels, batch_size=3, calibration=x[None, :2])
    scores = evaluator(LANGUAGE.params, GENES)
    order, half = stream(0, Purpose.EVALUATION_ORDER).permutation(len(x)), evaluator(LANGUAGE.params, GENES, 0.5)
    for found, rows in ((scores, order), (half, order[:6])):
        there = labels[rows] >= 0
        for i, genes in enumerate(GENES):
            logits = np.asarray(masked(LANGUAGE.params, genes))[rows]
            losses = -np.take_along_axis(
                np.asarray(jax.nn.log_softmax(logits)), np.maximum(labels[rows], 0)[..., None], axis=-1
            )[..., 0]
            np.testing.assert_allclose(found.loss[i], losses[there].mean(), rtol=1e-5)
            assert found.figure[i] == (logits.argmax(-1) == labels[rows])[there].mean()
    np.testing.assert_allclose(scores.perplexity, np.exp(scores.loss))
