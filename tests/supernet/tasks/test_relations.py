"""Relations of a teacher's and a student's tokens, against plain NumPy, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.tasks.relations import COMPARED, Relations, relation_heads

HEADS, TOKENS = 3, 4
RNG = np.random.default_rng(0)
TEACHER = tuple(RNG.normal(size=(2, TOKENS, 12)) for _ in range(3))  # queries, keys, values of 12 channels
STUDENT = tuple(RNG.normal(size=(2, TOKENS, 8)) for _ in range(3))  # 3 heads of 2 channels; 2 are left over


def numpy_loss(student: list[np.ndarray], compared: str) -> np.ndarray:
    """The loss of each example as the paper has it, and as its code does where scores are compared."""
    total = np.zeros(2)
    for ours, theirs in zip(student, TEACHER, strict=True):
        for head in range(HEADS):
            relations = []
            for channels in (ours, theirs):
                size = channels.shape[-1] // HEADS
                part = channels[..., head * size : (head + 1) * size]
                scores = part @ part.swapaxes(1, 2) / np.sqrt(size)
                if compared == "probabilities":
                    scores = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
                relations.append(scores)
            total += np.mean((relations[0] - relations[1]) ** 2, axis=(1, 2)) / HEADS
    return total


@pytest.mark.parametrize("compared", COMPARED)
def test_losses_and_gradients_are_those_of_plain_numpy(compared: str) -> None:
    outputs, targets = Relations(HEADS, compared), relation_heads(tuple(map(jnp.asarray, TEACHER)), HEADS)

    def loss(student: list[jax.Array], size: int) -> jax.Array:
        return outputs.losses(relation_heads(tuple(student), HEADS, size), targets)

    student = [jnp.asarray(a, jnp.float32) for a in STUDENT]
    for size in (0, 5):  # filled up with zeros, as those of smaller networks are
        np.testing.assert_allclose(loss(student, size), numpy_loss(list(STUDENT), compared), rtol=1e-5)
        gradients = jax.grad(lambda student, size=size: jnp.sum(loss(student, size)))(student)
        for i, of in enumerate(gradients):
            for place in np.ndindex(of.shape):
                moved = []
                for step in (1e-5, -1e-5):
                    changed = [a.copy() for a in STUDENT]
                    changed[i][place] += step
                    moved.append(numpy_loss(changed, compared).sum())
                expected = (moved[0] - moved[1]) / 2e-5
                assert float(of[place]) == pytest.approx(expected, rel=2e-4, abs=2e-6)
                assert place[-1] < 6 or float(of[place]) == 0  # what is left over is not compared


def test_a_teacher_and_its_rotation_are_equal() -> None:
    outputs, own = Relations(HEADS), relation_heads(tuple(map(jnp.asarray, TEACHER)), HEADS)
    assert not np.any(outputs.losses(own, own))
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    turned = [np.concatenate([part @ rotation for part in np.split(a, HEADS, axis=-1)], axis=-1) for a in TEACHER]
    found = outputs.losses(relation_heads(tuple(map(jnp.asarray, turned)), HEADS), own)
    np.testing.assert_allclose(found, 0, atol=1e-12)


def test_what_only_fills_a_batch_counts_for_nothing() -> None:
    outputs, own = Relations(HEADS), relation_heads(tuple(map(jnp.asarray, TEACHER)), HEADS)
    targets, given = own.at[1].set(jnp.nan), own + 1.0
    assert outputs.counted(targets).tolist() == [True, False]
    assert float(outputs.mean(outputs.losses(given, targets), targets)[1]) == 0
    assert float(outputs.gradient_norms(given, targets)[1]) == 0
    expected = jax.grad(lambda given: outputs.losses(given, own)[0])(given)
    assert float(outputs.gradient_norms(given, targets)[0]) == pytest.approx(float(jnp.linalg.norm(expected)), rel=1e-5)
