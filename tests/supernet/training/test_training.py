"""The training step and the evaluator on a small vision transformer: sums, teaching, averaging, untouched weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from search_spaces import UserError, build_space
from search_spaces.randomness import Purpose, stream
from supernet.engine.supernet import build_supernet
from supernet.tasks.distillation import Distillation
from supernet.training.evaluation import Evaluator
from supernet.training.optimizer import OptimizerSettings, decayed
from supernet.training.step_results import StepResult
from supernet.training.training import TrainStep

SPACE = build_space("vit", "small", {"width": [16, 24], "depth": [1, 2, 3], "head_dim": 8})
NET = build_supernet(SPACE)
X = jax.random.normal(jax.random.key(1), (12, 8, 8, 1))
TARGETS = jax.nn.one_hot(jnp.arange(12) % 10, 10)
GENES = np.stack([SPACE.largest.genes, *SPACE.sample(np.random.default_rng(0), 2), SPACE.smallest.genes]).astype(
    np.int32
)
ROLES = ("largest", "random", "random", "smallest")


def _weights(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _step(settings=None, steps=100, **keywords):
    step = TrainStep(NET, (settings or OptimizerSettings(clip_norm=None)).build(steps), **keywords)
    return step, step.init(NET.init(jax.random.key(0)))


def _close(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def test_gradients_of_the_paths_are_summed_with_their_weights():
    step = TrainStep(NET, optax.sgd(1.0))
    state = step.init(NET.init(jax.random.key(0)))
    before = jax.tree.map(jnp.copy, state.params)
    weights = _weights(1, 0.5, 2, 0)

    def total(params):
        def loss(genes):
            logits = NET.apply_masked(params, jnp.asarray(genes), X, program=SPACE.program(genes))
            return -jnp.mean(jnp.sum(TARGETS * jax.nn.log_softmax(logits), -1))

        return sum(w * loss(g) for w, g in zip(weights, GENES, strict=True))

    expected = jax.tree.map(lambda p, g: p - g, before, jax.grad(total)(before))
    state, result = step(state, GENES, ROLES, weights, X, TARGETS)
    _close(state.params, expected)
    assert len(result.paths) == 4
    gradient = optax.tree.norm(jax.tree.map(jnp.subtract, before, state.params))
    np.testing.assert_allclose(result.gradient_norm, gradient, rtol=1e-4)
    again, _ = step(state, GENES, ROLES, _weights(0, 0, 0, 0), X, TARGETS)
    _close(again.params, expected)


def test_programs_are_no_more_than_stream_widths_over_200_architectures():
    step, state = _step()
    for row in SPACE.sample(np.random.default_rng(3), 200):
        state, _ = step(state, row[None], ("random",), _weights(1), X, TARGETS)
    assert step.programs_compiled == SPACE.programs == 2
    assert int(state.step) == 200


def _logits(result: StepResult, path: int) -> jax.Array:
    logits = result.paths[path].logits
    assert logits is not None
    return logits


def test_others_learn_from_the_largest_path():
    def losses(weight, temperature=1.0):
        step, state = _step(distillation=Distillation("largest", weight, temperature))
        _, result = step(state, GENES, ROLES, _weights(1, 1, 1, 1), X, TARGETS)
        return result

    labels, taught, soft = losses(0.0), losses(1.0), losses(1.0, 3.0)
    teacher = jax.nn.softmax(_logits(labels, 0))
    np.testing.assert_allclose(taught.paths[0].loss, labels.paths[0].loss, rtol=1e-6)
    for i in (1, 2, 3):
        student = _logits(labels, i)
        expected = -jnp.mean(jnp.sum(teacher * jax.nn.log_softmax(student), -1))
        np.testing.assert_allclose(taught.paths[i].loss, expected, rtol=1e-5)
        softened = jax.nn.softmax(_logits(labels, 0) / 3)
        expected = -9 * jnp.mean(jnp.sum(softened * jax.nn.log_softmax(student / 3), -1))
        np.testing.assert_allclose(soft.paths[i].loss, expected, rtol=1e-5)


def test_the_largest_teaches_by_a_pass_of_its_own_where_it_is_not_trained():
    step, state = _step(distillation=Distillation("largest"))
    student, teacher = (
        NET.apply_masked(state.params, jnp.asarray(g), X, program=SPACE.program(g)) for g in GENES[[1, 0]]
    )
    expected = -jnp.mean(jnp.sum(jax.nn.softmax(teacher) * jax.nn.log_softmax(student), -1))
    _, result = step(state, GENES[1:2], ("random",), _weights(1), X, TARGETS)
    np.testing.assert_allclose(result.paths[0].loss, expected, rtol=1e-4)


def test_scores_are_losses_without_a_gradient():
    step, state = _step()
    found = step.score(state.params, GENES, X, np.arange(12) % 10)
    for genes, loss in zip(GENES, found, strict=True):
        logits = NET.apply_masked(state.params, jnp.asarray(genes), X, program=SPACE.program(genes))
        np.testing.assert_allclose(loss, -jnp.mean(jnp.sum(TARGETS * jax.nn.log_softmax(logits), -1)), rtol=1e-4)


def test_example_weights_weigh_examples():
    step, state = _step()
    weights = np.linspace(0, 2, 12, dtype=np.float32)
    _, result = step(state, GENES[:1], ("random",), _weights(1), X, TARGETS, weights)
    losses = result.paths[0].example_losses
    np.testing.assert_allclose(result.paths[0].loss, np.mean(weights * np.asarray(losses)), rtol=1e-5)
    norms = np.linalg.norm(jax.nn.softmax(_logits(result, 0)) - TARGETS, axis=-1)
    np.testing.assert_allclose(result.paths[0].example_norms, norms, rtol=1e-5)


def test_a_measured_step_is_the_same_step_and_knows_all_products():
    plain, state = _step()
    measured, other = _step()
    weights = _weights(1, 0.5, 2, 1)
    before = None
    for _ in range(2):
        vectors = [
            np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
            for gradient, _ in measured.gradients(other.params, GENES, ROLES, np.ones(4, np.float32), X, TARGETS)
        ]
        state, _ = plain(state, GENES, ROLES, weights, X, TARGETS)
        other, result = measured(other, GENES, ROLES, weights, X, TARGETS, measure=True)
        assert result.products is not None
        rows = np.array([*vectors, np.zeros_like(vectors[0]) if before is None else before])
        np.testing.assert_allclose(result.products, rows @ rows.T, rtol=1e-3, atol=1e-4)
        _close(other.params, state.params)
        before = weights @ np.array(vectors)


def test_moving_average_follows_its_formula():
    step, state = _step(average_decay=0.9)
    average = jax.tree.map(np.asarray, state.params)
    for number in range(4):
        state, _ = step(state, GENES[:1], ROLES[:1], _weights(1), X, TARGETS)
        decay = min(0.9, (1 + number) / (10 + number))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * np.asarray(p), average, state.params)
    _close(state.average, average)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("untouched", ["move", "hold"])
def test_untouched_weights_move_or_hold_as_set(kind, untouched):
    settings = OptimizerSettings(type=kind, untouched=untouched, clip_norm=None, weight_decay=0.1)
    step, state = _step(settings)
    state, _ = step(state, GENES[:1], ROLES[:1], _weights(1), X, TARGETS)
    before = np.asarray(state.params["layers"]["fc1"]["kernel"])
    state, _ = step(state, GENES[3:], ROLES[3:], _weights(1), X, TARGETS)
    after = np.asarray(state.params["layers"]["fc1"]["kernel"])
    deepest, first = after[-1] - before[-1], (after[0] - before[0])[:16, :16]
    assert (deepest == 0).all() == (untouched == "hold")
    assert (first != 0).any()


def test_only_kernels_decay():
    mask = decayed(NET.init(jax.random.key(0)))
    names = {path[-1].key: leaf for path, leaf in jax.tree_util.tree_leaves_with_path(mask)}
    assert names == {name: name == "kernel" for name in names}
    assert {"kernel", "bias", "scale", "position"} <= names.keys()


@pytest.mark.parametrize(
    ("settings", "steps", "message"),
    [
        ({"learning_rate": 0.0}, 10, "learning_rate: 0.0 is out of range"),
        ({"betas": (0.9, 1.0)}, 10, "betas"),
        ({"final_learning_rate": 1.0}, 10, "final_learning_rate"),
        ({"warmup_steps": 10}, 10, "warmup_steps: 10 is not less than the 10 training steps"),
    ],
)
def test_settings_out_of_range_are_refused(settings, steps, message):
    with pytest.raises(UserError, match=message):
        OptimizerSettings(**settings).build(steps)


def test_rate_warms_up_then_follows_the_cosine():
    rate = OptimizerSettings(learning_rate=1.0, warmup_steps=10, final_learning_rate=0.1).rate(110)
    np.testing.assert_allclose(np.array([rate(n) for n in (0, 5, 10, 60, 110)]), [0, 0.5, 1, 0.55, 0.1], atol=1e-6)


def test_the_step_needs_at_most_a_fifth_more_memory_than_the_largest_static_step():
    from experiments.benchmarks.step_time import _memory_ratio

    space = build_space("vit", "small", {"image_size": 16})
    net = build_supernet(space)
    x = jnp.zeros((64, 16, 16, 1))
    assert _memory_ratio(net, net.init(jax.random.key(0)), x, jnp.zeros((64, 10))) <= 1.2


def test_evaluator_scores_a_whole_split_in_the_order_asked():
    params = NET.init(jax.random.key(0))
    x, labels = np.asarray(X), np.arange(12, dtype=np.int32) % 10
    evaluator = Evaluator(NET, x, labels, batch_size=5, calibration=x[None, :4])
    genes = SPACE.sample(np.random.default_rng(5), 70)
    scores = evaluator(params, genes)
    for i in (0, 1, 33, 69):
        logits = NET.apply_masked(params, jnp.asarray(genes[i]), X, program=SPACE.program(genes[i]))
        assert scores.figure[i] == np.mean(np.argmax(logits, -1) == labels)
        expected = -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(12), labels])
        np.testing.assert_allclose(scores.loss[i], expected, rtol=1e-5)
    np.testing.assert_array_equal(scores.figure[::-1], evaluator(params, genes[::-1]).figure)
    assert evaluator.programs_compiled == SPACE.programs


def test_evaluator_scores_nested_parts_of_a_split_with_the_same_programs():
    """Of 12 examples in batches of 5: one batch, two, all three; each example counts once, whichever part it is in."""
    params = NET.init(jax.random.key(0))
    x, labels = np.asarray(X), np.arange(12, dtype=np.int32) % 10
    evaluator = Evaluator(NET, x, labels, batch_size=5, calibration=x[None, :4])
    genes = SPACE.sample(np.random.default_rng(5), 3)
    whole = evaluator(params, genes)
    parts = [evaluator(params, genes, share) for share in (0.01, 1 / 3, 0.34, 2 / 3, 0.7, 1.0)]
    for part, like in ((1, 0), (3, 2), (5, 4)):
        np.testing.assert_array_equal(parts[part].loss, parts[like].loss)
    np.testing.assert_array_equal(parts[5].loss, whole.loss)
    order = stream(0, Purpose.EVALUATION_ORDER).permutation(12)
    for part, count in ((parts[0], 5), (parts[2], 10), (whole, 12)):
        rows = order[:count]
        for i in range(3):
            logits = NET.apply_masked(params, jnp.asarray(genes[i]), X[rows], program=SPACE.program(genes[i]))
            assert part.figure[i] == np.mean(np.argmax(logits, -1) == labels[rows])
            expected = -np.mean(np.asarray(jax.nn.log_softmax(logits))[np.arange(count), labels[rows]])
            np.testing.assert_allclose(part.loss[i], expected, rtol=1e-5)
    assert evaluator.programs_compiled == SPACE.programs
