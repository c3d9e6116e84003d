"""The superposed forward: one-hot weights are the sliced network; its gradients and expected costs are exact."""

import itertools
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces import ViTSpace, build_space
from search_spaces.parts import CENTRE, Axis
from supernet.engine.mixtures import grid
from supernet.engine.supernet import SUPERNETS
from supernet.engine.superposed import build_superposed, one_hot, values_of
from supernet.gradient.expected_cost import ExpectedCost
from supernet.gradient.gradient_search import GradientStep, entropies, entropies_by_choice
from supernet.gradient.relaxation import RELAXATIONS
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep
from supernet.weights.described import Weights
from tests.marks import sampled, slow_but
from tests.supernet.families import SETTINGS, Family

ONE_HOT = 1e-5  # relative to the largest logit
SLICED = 3  # each of them compiles
# Fewer blocks than in the parity tests, and still one under a scan, one without squeeze-and-excite, two resolutions.
QUICK = ["language", "vit"]
FEWER = {"mobilenet": {"depth": [1, 2], "kernel": [3, 5]}}


@cache
def small(family: str) -> Family:
    """A space of a few layers, as a superposed supernet."""
    settings = SETTINGS.get(family, {}) | FEWER.get(family, {})
    return Family(build_superposed(build_space(family, "small", settings)))


@pytest.fixture(params=slow_but(QUICK, sampled(SUPERNETS)))
def family(request: pytest.FixtureRequest) -> Family:
    return small(request.param)


def in_double_precision(tree: Any) -> Any:
    """The tree with numbers in float64; tokens stay what they are."""
    arrays = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, None if leaf.dtype.kind == "i" else jnp.float64), arrays)


def forward(family: Family) -> Any:
    net: Any = family.net
    return jax.jit(net.apply_superposed)


def random_weights(family: Family, seed: int = 0) -> np.ndarray:
    """A random relaxed architecture, every value with some weight."""
    values = values_of(family.space)
    weights = np.random.default_rng(seed).uniform(0.2, 1, values.shape) * values
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def test_one_hot_weights_give_the_sliced_network(family: Family) -> None:
    run, net = forward(family), family.net
    switched = jax.jit(lambda p, g, x, program: net.apply(p, g, x, program=program)[0], static_argnames="program")
    for i, genes in enumerate(family.draw(60)):
        logits = run(family.params, one_hot(family.space, genes), family.x)
        if i >= SLICED:
            expected = switched(family.params, genes, family.x, family.space.program(genes))
        else:
            architecture = family.space.architecture(genes)
            expected = jax.jit(lambda p, x, a=architecture: net.apply_sliced(p, a, x))(family.params, family.x)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=ONE_HOT * np.abs(expected).max())


def test_one_hot_weights_ignore_what_left_out_layers_would_be(family: Family) -> None:
    run, space = forward(family), family.space
    if not any(choice.gate for choice in space.choices):
        pytest.skip("every layer of this family is always there")
    genes = np.array(space.smallest.genes, np.int32)
    relaxed = one_hot(space, genes)
    expected = run(family.params, relaxed, family.x)
    free = ~space.active(genes[None])[0]
    assert free.any()
    relaxed[free] = random_weights(family)[free]
    np.testing.assert_allclose(run(family.params, relaxed, family.x), expected, rtol=0, atol=1e-6)


def test_gradients_of_the_weights_are_those_of_the_sliced_network(family: Family) -> None:
    """In double precision, in which no activation lies so near 0 that rounding decides what a ReLU passes."""
    net: Any = family.net
    genes = family.draw(3)[2]
    relaxed, architecture = one_hot(net.space, genes), net.space.architecture(genes)
    with jax.enable_x64(True):
        params, x, direction, relaxed = map(in_double_precision, (family.params, family.x, family.direction, relaxed))

        def gradient(run: Any) -> Any:
            return jax.jit(jax.grad(lambda params: jnp.sum(direction * run(params))))(params)

        found = gradient(lambda params: net.apply_superposed(params, relaxed, x))
        expected = gradient(lambda params: net.apply_sliced(params, architecture, x))
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        bound = 1e-4 * np.abs(other).max() + 10 * np.finfo(np.float32).eps * largest
        np.testing.assert_allclose(leaf, other, rtol=0, atol=bound, err_msg=jax.tree_util.keystr(path))


def test_a_mixed_mask_is_the_sum_of_the_masked_weights(family: Family) -> None:
    net: Any = family.net
    superpose = jax.jit(net.superpose)
    relaxed = random_weights(family)
    # Multilinear in the genes, so linear in each: all weight on one value, or a mixture of these.
    for gene in (0, family.space.num_genes // 2, family.space.num_genes - 1):
        parts = []
        for value in range(int(family.space.cardinalities[gene])):
            one = relaxed.copy()
            one[gene] = np.eye(relaxed.shape[1])[value]
            parts.append((relaxed[gene, value], superpose(family.params, one)))
        mixed = jax.tree.map(
            lambda *leaves, parts=parts: sum(w * leaf for (w, _), leaf in zip(parts, leaves, strict=True)),
            *(tree for _, tree in parts),
        )
        found = superpose(family.params, relaxed)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(mixed), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_gradients_of_architecture_weights_are_finite_differences(family: Family) -> None:
    net: Any = family.net
    with jax.enable_x64(True):
        params, x, direction = in_double_precision((family.params, family.x[:3], family.direction[:3]))
        relaxed = in_double_precision(random_weights(family))
        loss = jax.jit(jax.value_and_grad(lambda r: jnp.sum(direction * net.apply_superposed(params, r, x))))
        gradient = np.asarray(loss(relaxed)[1])
        rng = np.random.default_rng(1)
        for _ in range(6):
            step = rng.normal(size=relaxed.shape) * values_of(family.space)
            h = 1e-6
            difference = (loss(relaxed + h * step)[0] - loss(relaxed - h * step)[0]) / (2 * h)
            assert float(difference) == pytest.approx(float(np.sum(gradient * step)), rel=1e-5)
        assert np.all(np.abs(gradient[values_of(family.space)]) > 0)
        assert not gradient[~values_of(family.space)].any()


def test_gradients_of_the_logits_objective_are_finite_differences() -> None:
    """Through the softmax, the forward pass, the expected cost over budget, the entropy and the penalty."""
    family = small("vit")
    net: Any = family.net
    with jax.enable_x64(True):
        limit = float(family.space.cost(np.array([family.space.largest.genes]))["macs"][0]) * 0.3
        train = TrainStep(family.net, OptimizerSettings().build(10))
        cost = ExpectedCost(family.space, [("macs", limit)])
        step = GradientStep(
            net, RELAXATIONS["darts"](), cost, train, 0.1, cost_weight=10.0, multiplier_rate=0.1, shortfall_weight=3.0
        )
        targets = jax.nn.one_hot(jnp.arange(3), family.direction.shape[1])
        params, multipliers, x, targets = in_double_precision((family.params, np.array([0.5]), family.x[:3], targets))
        key = jax.random.key(5)

        def loss(logits: jax.Array) -> jax.Array:
            temperature, entropy_weight = jnp.float64(0.7), jnp.float64(0.3)
            return step.objective(logits, params, multipliers, key, x, targets, temperature, entropy_weight)[0]

        objective = jax.jit(jax.value_and_grad(loss))
        rng = np.random.default_rng(2)
        logits = in_double_precision(rng.normal(0, 0.5, random_weights(family).shape))
        gradient = np.asarray(objective(logits)[1])
        for _ in range(4):
            direction, h = rng.normal(size=logits.shape) * values_of(family.space), 1e-6
            difference = (objective(logits + h * direction)[0] - objective(logits - h * direction)[0]) / (2 * h)
            assert float(difference) == pytest.approx(float(np.sum(gradient * direction)), rel=1e-4)


# ---------------------------------------------------------------- expected costs


def enumerated(space: Any, probabilities: np.ndarray, cost: Any) -> np.ndarray:
    """Expectation by all gene vectors and their probabilities."""
    rows = np.array(list(itertools.product(*(range(n) for n in space.cardinalities))), np.int32)
    weights = np.prod(probabilities[np.arange(space.num_genes), rows], axis=1)
    assert weights.sum() == pytest.approx(1)
    return weights @ np.asarray(cost(rows), np.float64)


TINY = [
    ViTSpace((16, 24), (1, 2), (1, 2), (1.0, 2.0, 3.0), head_dim=8, patch_size=2, image_size=8, channels=1),
    build_space(
        "mobilenet",
        "small",
        {
            "resolution": [6, 8], "depth": [1, 2], "expand": [2, 3], "widths": [8, 16], "strides": [2, 1],
            "squeeze_excite": [False, True], "activations": ["relu", "hard_swish"], "image_size": 8,
        },
    ),
]  # fmt: skip


def distribution(space: Any) -> np.ndarray:
    values = values_of(space)
    weights = np.random.default_rng(0).gamma(0.5, size=values.shape) * values
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("space", TINY, ids=lambda space: space.family)
def test_expected_cost_is_the_mean_over_all_architectures(space: Any) -> None:
    probabilities = distribution(space)
    found = ExpectedCost(space, [("macs", 1000.0), ("params", 10.0)])(jnp.asarray(probabilities, jnp.float32))
    for metric, limit, share in (("macs", 1000.0, found[0]), ("params", 10.0, found[1])):
        expected = enumerated(space, probabilities, lambda rows, m=metric: space.cost(rows)[m])
        assert float(share) * limit == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("space", TINY, ids=lambda space: space.family)
def test_a_metric_of_another_model_is_taken_apart_exactly(space: Any) -> None:
    """A latency that is a non-linear function of each piece's cost: its tables are recovered from its values alone."""

    def latency(genes: np.ndarray) -> dict[str, np.ndarray]:
        total = np.full(len(genes), 0.7)
        for term in space.cost.terms:
            total += np.sqrt(term.table[tuple(genes[:, column] for column in term.columns)][:, 1]) / 100
        return {"latency_ms": total}

    probabilities = distribution(space)
    (share,) = ExpectedCost(space, [("latency_ms", 2.0)], latency)(jnp.asarray(probabilities, jnp.float32))
    expected = enumerated(space, probabilities, lambda rows: latency(rows)["latency_ms"])
    assert float(share) * 2 == pytest.approx(expected, rel=1e-5)


def test_a_metric_that_does_not_add_up_is_refused() -> None:
    space = TINY[0]
    peak = lambda genes: {"memory_bytes": 1.0 + genes.max(axis=1)}  # noqa: E731
    with pytest.raises(ValueError, match=r"gradient\.budget: memory_bytes does not add up"):
        ExpectedCost(space, [("memory_bytes", 2.0)], peak)


def test_expected_costs_of_one_hot_rows_are_costs(family: Family) -> None:
    space = family.space
    cost = jax.jit(ExpectedCost(space, [("macs", 1.0)]))
    for genes in family.draw(20):
        assert float(cost(one_hot(space, genes))[0]) == pytest.approx(space.cost(genes[None])["macs"][0], rel=1e-6)


@pytest.mark.parametrize(("share", "steps"), [(0.25, 60), (1.0, 5)])
def test_multipliers_steer_to_a_budget_that_binds_and_to_no_other(share: float, steps: int) -> None:
    family = small("vit")
    net: Any = family.net
    macs = float(family.space.cost(np.array([family.space.largest.genes]))["macs"][0])
    train = TrainStep(family.net, OptimizerSettings().build(10))
    cost = ExpectedCost(family.space, [("macs", share * macs)])
    step = GradientStep(net, RELAXATIONS["darts"](), cost, train, 0.05, cost_weight=10.0, multiplier_rate=1.0)
    state = step.init(family.net.init(jax.random.key(0)), jax.random.key(1))
    targets = jax.nn.one_hot(jnp.arange(len(family.x)), family.direction.shape[1])
    multipliers, costs = [], []
    for i in range(steps):
        state, result = step.architecture(state, jax.random.key(i), family.x, targets, 1.0, 0.0)
        multipliers.append(float(state.multipliers[0]))
        costs.append(float(result.costs[0]))
    if share == 1.0:
        assert set(multipliers) == {0.0}
        assert max(costs) < 1
    else:
        assert costs[0] > 1.3
        assert costs[-1] < 1.05
        assert max(multipliers) > 0.5


def test_losses_and_figures_are_over_labelled_tokens_and_weighted_by_example() -> None:
    family = small("language")
    net: Any = family.net
    step = GradientStep(net, RELAXATIONS["darts"](), None, TrainStep(net, OptimizerSettings().build(10)), 0.1, 1.0, 1.0)
    x = np.asarray(family.x)
    state, relaxed = step.init(family.params, jax.random.key(1)), RELAXATIONS["darts"]()
    draw = relaxed.draw(state.logits, jnp.asarray(values_of(family.space)), jax.random.key(0), jnp.float32(1.0))
    outputs = np.asarray(forward(family)(family.params, draw, family.x))
    targets = np.where(np.arange(x.shape[1]) < 1 + np.arange(len(x))[:, None] % 5, outputs.argmax(-1), -1)
    counts = (targets >= 0).sum(axis=1)
    weights = (counts / counts.mean()).astype(np.float32)
    log_p = np.asarray(jax.nn.log_softmax(outputs))
    mean = -np.take_along_axis(log_p, np.maximum(targets, 0)[..., None], -1)[..., 0][targets >= 0].mean()
    _, architecture = step.architecture(state, jax.random.key(0), family.x, jnp.asarray(targets), 1.0, 0.0, weights)
    assert float(architecture.loss) == pytest.approx(float(mean), rel=1e-5)
    _, trained = step.weights(state, jax.random.key(0), family.x, jnp.asarray(targets), 1.0, weights)
    assert float(trained.loss) == pytest.approx(float(mean), rel=1e-5)
    assert float(trained.figure) == 1


def test_a_shortfall_draws_the_expected_cost_up_to_the_tightest_limit() -> None:
    family = small("vit")
    net: Any = family.net
    largest = family.space.cost(np.array([family.space.largest.genes]))
    limits = [("macs", 0.9 * float(largest["macs"][0])), ("params", 2.0 * float(largest["params"][0]))]
    train = TrainStep(family.net, OptimizerSettings().build(10))
    cost = ExpectedCost(family.space, limits)
    targets = jax.nn.one_hot(jnp.arange(len(family.x)), family.direction.shape[1])
    ends = {}
    for weight in (0.0, 10.0):
        step = GradientStep(net, RELAXATIONS["darts"](), cost, train, 0.05, 10.0, 1.0, weight)
        state = step.init(family.net.init(jax.random.key(0)), jax.random.key(1))
        for i in range(60):
            state, result = step.architecture(state, jax.random.key(i), family.x, targets, 1.0, 0.0)
            ends[weight] = np.asarray(result.costs)
    assert ends[0.0][0] < 0.8
    assert 0.9 < ends[10.0][0] < 1.05
    assert ends[10.0][1] < 0.6


# ---------------------------------------------------------------- helpers


def test_masks_and_stopping_points() -> None:
    hidden = Axis("hidden", ("width", "ratio"), lambda width, ratio: width * ratio)
    masks = grid(hidden, {"width": (1, 2), "ratio": (1, 2)})
    np.testing.assert_array_equal(masks, [[[1, 0, 0, 0], [1, 1, 0, 0]], [[1, 1, 0, 0], [1, 1, 1, 1]]])
    kernel = grid(Axis("kernel", keeps=CENTRE), {"kernel": (1, 3)})
    np.testing.assert_array_equal(kernel, [[0, 1, 0], [1, 1, 1]])
    space = build_space("vit", "small", {**SETTINGS["vit"], "depth": [2, 4]})
    relaxed = np.zeros((space.num_genes, 2), np.float32)
    relaxed[space.columns["depth"]] = 0.2, 0.8
    on, stops = Weights(space).depths(jnp.asarray(relaxed), space.network.stacks[0])
    np.testing.assert_allclose(on, [1, 1, 0.8, 0.8], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(stops), [0, 0, 0.2, 0, 0.8], rtol=1e-6)


def test_entropies() -> None:
    space = TINY[0]
    uniform = jnp.asarray(values_of(space) / space.cardinalities[:, None], jnp.float32)
    np.testing.assert_allclose(entropies(uniform), np.log(space.cardinalities), rtol=1e-6)
    assert entropies_by_choice(space, uniform) == pytest.approx(dict.fromkeys(space.columns, 1.0))
    certain = jnp.asarray(one_hot(space, np.array(space.largest.genes)))
    assert entropies_by_choice(space, certain) == pytest.approx(dict.fromkeys(space.columns, 0.0))
    assert np.isfinite(jax.grad(lambda p: jnp.sum(entropies(p)))(certain)).all()


def test_what_cannot_be_superposed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"supernet\.sharing: kernel_transform .* family vit has none"):
        build_superposed(TINY[0], "kernel_transform")
