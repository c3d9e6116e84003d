"""Labels: classes give what their one-hot distributions give, and unlabelled outputs count for nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.tasks.classes import CLASSES as OUTPUTS
from supernet.tasks.distillation import Distillation, Lesson, example_losses
from supernet.tasks.labels import gradient_norms, output_losses, over_outputs

LOGITS = jax.random.normal(jax.random.key(0), (4, 3, 5)) * 2
CLASSES = jax.random.randint(jax.random.key(1), (4, 3), 0, 5)
TEACHER = jax.nn.softmax(jax.random.normal(jax.random.key(2), (4, 3, 5)))


def right(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Share of each example's outputs that are right."""
    return OUTPUTS.mean(OUTPUTS.figures(logits, targets).astype(jnp.float32), targets)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("function", [right, gradient_norms, lambda z, y: over_outputs(output_losses(z, y), y)])
def test_classes_are_one_hot_distributions(function, outputs):
    logits, classes = (LOGITS[:, 0], CLASSES[:, 0]) if outputs == 1 else (LOGITS, CLASSES)
    np.testing.assert_allclose(function(logits, classes), function(logits, jax.nn.one_hot(classes, 5)), rtol=1e-5)


@pytest.mark.parametrize("classes", [CLASSES, CLASSES.at[0].set(-1).at[2, 1].set(-1), jax.nn.one_hot(CLASSES, 5)])
def test_norms_are_those_of_the_gradient_of_an_example(classes):
    gradient = jax.grad(lambda z: jnp.sum(over_outputs(output_losses(z, classes), classes)))(LOGITS)
    expected = jnp.sqrt(jnp.sum(gradient**2, axis=(1, 2)))
    np.testing.assert_allclose(gradient_norms(LOGITS, classes), expected, rtol=1e-5)


def test_outputs_without_a_label_count_for_nothing():
    some = CLASSES.at[:, 1].set(-1)
    changed = LOGITS.at[:, 1].add(3.0)
    for given in (Lesson.labels(some), Lesson.taught(TEACHER, 0.5, 0.0)):
        losses = example_losses(Distillation("largest", 0.5), LOGITS, some, given)
        np.testing.assert_array_equal(losses, example_losses(Distillation("largest", 0.5), changed, some, given))
    left = CLASSES[:, jnp.array([0, 2])]
    np.testing.assert_allclose(right(LOGITS, some), right(LOGITS[:, jnp.array([0, 2])], left), rtol=1e-6)
    np.testing.assert_array_equal(right(LOGITS, jnp.full((4, 3), -1)), np.zeros(4))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_text_is_taught_as_its_tokens_are(alpha):
    settings = Distillation("largest", 0.7, 2.0)
    text = example_losses(settings, LOGITS, CLASSES, Lesson.taught(TEACHER, 0.7, alpha))
    flat = [array.reshape(12, -1) for array in (LOGITS, jax.nn.one_hot(CLASSES, 5), TEACHER)]
    tokens = example_losses(settings, flat[0], flat[1], Lesson.taught(flat[2], 0.7, alpha))
    np.testing.assert_allclose(text, tokens.reshape(4, 3).mean(axis=1), rtol=1e-5)
