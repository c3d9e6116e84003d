"""Distillation: AlphaNet's divergence against its definition, who teaches whom, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces import UserError
from supernet.tasks.distillation import Distillation, Lesson, example_losses, lesson
from supernet.tasks.divergences import alpha_divergence, soften

RNG = np.random.default_rng(0)
P = jax.nn.softmax(jnp.asarray(RNG.normal(0, 2, (6, 5)), jnp.float32))
Z = jnp.asarray(RNG.normal(0, 2, (6, 5)), jnp.float32)


def divergence(p, z, alpha):
    q = jax.nn.softmax(z)
    if alpha == 1:
        return jnp.sum(p * (jnp.log(p) - jnp.log(q)), -1)
    return jnp.sum(q * ((p / q) ** alpha - 1), -1) / (alpha * (alpha - 1))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 0.5), (-1.0, 2.0)])
def test_unclipped_value_and_gradient_are_those_of_the_larger_divergence(low, high):
    def ours(z):
        return alpha_divergence(P, z, low, high, np.inf)

    def expected(z):
        return jnp.maximum(divergence(P, z, low), divergence(P, z, high))

    np.testing.assert_allclose(ours(Z), expected(Z), rtol=1e-4)
    gradients = [jax.grad(lambda z, f=f: f(z).sum())(Z) for f in (ours, expected)]
    np.testing.assert_allclose(*gradients, rtol=2e-4, atol=1e-5)


def test_no_divergence_and_no_gradient_where_student_and_teacher_agree():
    z = jnp.log(P)
    np.testing.assert_allclose(alpha_divergence(P, z, -1.0, 1.0, 5.0), 0, atol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda z: alpha_divergence(P, z, -1.0, 1.0, 5.0).sum())(z), 0, atol=1e-5)


def test_the_order_that_wins_is_the_one_that_sees_the_mistake():
    teacher = jnp.array([[0.5, 0.5 - 1e-4, 1e-4]])
    misses = jnp.log(jnp.array([[1 - 2e-6, 1e-6, 1e-6]]))
    invents = jnp.log(jnp.array([[0.3, 0.3, 0.4]]))
    high = divergence(teacher, misses, 1)[0]
    np.testing.assert_allclose(alpha_divergence(teacher, misses, -1.0, 1.0, 5.0), high, rtol=1e-3)
    assert high > 5
    found = alpha_divergence(teacher, invents, -1.0, 1.0, 1e9)
    np.testing.assert_allclose(found, divergence(teacher, invents, -1), rtol=1e-3)
    assert found[0] > divergence(teacher, invents, 1)[0]


def test_the_clip_bounds_value_and_gradient():
    teacher, z = jnp.array([[1.0 - 1e-8, 1e-8]]), jnp.log(jnp.array([[0.4, 0.6]]))
    free, clipped = (alpha_divergence(teacher, z, -1.0, 1.0, clip)[0] for clip in (1e12, 5.0))
    assert free > 1e6 > 5 > clipped
    assert jnp.abs(jax.grad(lambda z: alpha_divergence(teacher, z, -1.0, 1.0, 5.0).sum())(z)).max() < 10


def test_a_teacher_with_zeros_gives_finite_gradients():
    teacher = jax.nn.one_hot(jnp.arange(6) % 5, 5)
    assert np.isfinite(jax.grad(lambda z: alpha_divergence(teacher, z, -1.0, 1.0, 5.0).sum())(30 * Z)).all()


def test_losses_mix_labels_and_teacher_by_the_share():
    targets = jax.nn.one_hot(jnp.arange(6) % 5, 5)
    labelled = -jnp.sum(targets * jax.nn.log_softmax(Z), -1)
    for settings, taught in (
        (Distillation("largest", temperature=2.0), -4 * jnp.sum(P * jax.nn.log_softmax(Z / 2), -1)),
        (Distillation("largest", loss="alpha"), alpha_divergence(P, Z, -1.0, 1.0, 5.0)),
    ):
        for share in (0.25, 1.0):
            given = Lesson.taught(P, share, float(settings.loss == "alpha"))
            np.testing.assert_allclose(
                example_losses(settings, Z, targets, given), (1 - share) * labelled + share * taught, rtol=1e-4
            )
        np.testing.assert_allclose(example_losses(settings, Z, targets, Lesson.labels(targets)), labelled, rtol=1e-6)


def _taught(given: Lesson) -> jax.Array:
    assert given.probabilities is not None
    return given.probabilities


def test_who_teaches_whom():
    targets = jnp.zeros((6, 5))
    logits = {None: 3 * Z, 0: Z, 1: 2 * Z}.__getitem__
    settings = Distillation("ensemble", 0.7, 2.0, "alpha")
    for roles in (("random", "random", "smallest"), ("random", "random", "random")):
        assert lesson(settings, roles, 0, logits, None, targets).share == 0
        taught = lesson(settings, roles, 0, logits, P, targets)
        np.testing.assert_array_equal(taught.probabilities, P)
        assert (taught.share, taught.alpha) == (np.float32(0.7), 0)
        last = lesson(settings, roles, 2, logits, P, targets)
        np.testing.assert_allclose(_taught(last), (soften(Z, 2.0) + soften(2 * Z, 2.0)) / 2, rtol=1e-6)
        assert (last.share, last.alpha) == (np.float32(0.7), 1)
    sandwich = ("largest", "random", "smallest")
    last = lesson(settings, sandwich, 2, logits, None, targets)
    np.testing.assert_allclose(_taught(last), soften(2 * Z, 2.0), rtol=1e-6)  # the largest is not random

    settings = Distillation("largest", 1.0)
    assert lesson(settings, sandwich, 0, logits, None, targets).share == 0
    for roles, path, teacher in ((sandwich, 1, Z), (sandwich, 2, Z), (("random", "smallest"), 0, 3 * Z)):
        taught = lesson(settings, roles, path, logits, None, targets)
        np.testing.assert_allclose(_taught(taught), soften(teacher, 1.0), rtol=1e-6)
    settings = Distillation("external", loss="alpha", teachers=("x:y",))
    for path in range(3):
        assert lesson(settings, sandwich, path, logits, P, targets).alpha == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, r"weight: 1\.5 is not in 0\.\.1"),
        ({"temperature": 0.0}, r"temperature: 0\.0 is not positive"),
        ({"clip": -1.0}, r"clip: -1\.0 is not positive"),
        ({"alpha_min": 0.5}, r"alpha_min: 0\.5 is not negative"),
        ({"type": "external"}, "teachers: none for type 'external'"),
        ({"type": "largest", "teachers": ("a:b",)}, "teachers: not used by type 'largest'"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Distillation(**settings)


def test_roles_that_cannot_teach_are_refused():
    for roles in (("largest", "smallest"), ("random",)):
        Distillation("largest").check_roles(roles)
    for roles in (("random", "smallest"), ("random", "random")):
        Distillation("ensemble").check_roles(roles)
    for roles in (("smallest", "random"), ("largest", "smallest"), ("random",)):
        with pytest.raises(UserError, match="draws no random path that a later path"):
            Distillation("ensemble").check_roles(roles)
