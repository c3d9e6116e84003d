"""Alternatives: every pass, cost, sampler and searcher where layers choose between operations that have no order."""

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from samplers import SAMPLERS, Plan
from search import SEARCHERS, Budget
from search.projection import most_probable
from search_spaces import Choice, UserError
from search_spaces.extremes import highest, lowest
from search_spaces.network import Alternatives, Stack, Sublayer
from search_spaces.network_checks import check_network
from search_spaces.parts import linear
from supernet.engine.mixed_stack import mixed_stack
from supernet.engine.superposed import one_hot, values_of
from supernet.gradient.expected_cost import ExpectedCost
from supernet.gradient.gradient_search import GradientStep
from supernet.gradient.relaxation import RELAXATIONS
from supernet.sharing import SHARING
from supernet.training.evaluation import Evaluator
from supernet.training.gene_norms import GeneNorms
from supernet.training.optimizer import OptimizerSettings
from supernet.training.training import TrainStep
from tests.samplers.test_every_sampler import rows_of, run
from tests.supernet.alternatives import Operations, OperationsSupernet, pooled
from tests.supernet.engine.test_parity import assert_close, assert_gradients_close
from tests.supernet.families import Family

SPACE = Operations()
ONE_WIDTH = Operations(width=(6,))


def net_of(space: Operations) -> OperationsSupernet:
    return OperationsSupernet(space, SHARING["entangled"](space))


@cache
def case() -> Family:
    return Family(net_of(ONE_WIDTH))


def every(space: Any) -> np.ndarray:
    sides = tuple(space.cardinalities.tolist())
    rows = np.stack(np.unravel_index(np.arange(np.prod(sides)), sides), axis=1).astype(np.int32)
    return np.unique(space.canonical(rows), axis=0)


# ---------------------------------------------------------------- passes


def test_all_passes_are_one_network() -> None:
    family, net = case(), case().net
    superposed = jax.jit(net.apply_superposed)  # type: ignore[attr-defined]
    for i, genes in enumerate(family.draw(12)):
        program, architecture = family.space.program(genes), family.space.architecture(genes)
        logits, gradients = family.switched(genes, program)
        masked, masked_gradients = family.masked(genes, program)
        assert_close(masked, logits)
        assert_gradients_close(masked_gradients, gradients)
        assert_close(superposed(family.params, one_hot(family.space, genes), family.x), logits)
        if i == 3:
            sliced, sliced_gradients = family.sliced(genes)
            assert_close(sliced, logits)
            assert_gradients_close(sliced_gradients, gradients)
        statistics, calibrated = family.calibrated(genes, program)
        assert_close(calibrated, logits)
        module, _ = net.extract(family.params, architecture, statistics)
        assert_close(module(family.x), calibrated)  # type: ignore[operator]


def test_a_mixture_is_that_of_the_outputs() -> None:
    space = Operations(width=(6,), depth=(1,))
    net = net_of(space)
    params = net.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 6))
    weights = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    relaxed = np.tile(weights, (space.num_genes, 1))
    relaxed[space.columns["width"]] = relaxed[space.columns["depth"]] = [1, 0, 0, 0]
    relaxed = jnp.asarray(relaxed)

    def stack(relaxed: jax.Array) -> jax.Array:
        from supernet.engine.stages import Context

        mixed = net.superpose(params, relaxed)
        layers = space.network.stacks[0]
        return mixed_stack(net.weights, net.stages, layers, mixed["layers"], relaxed, x, Context(x.shape))

    each = [stack(relaxed.at[space.columns["operation"][0]].set(np.eye(4, dtype=np.float32)[i])) for i in range(4)]
    np.testing.assert_array_equal(each[space.operation.index("skip")], x)
    np.testing.assert_allclose(each[space.operation.index("pool")], pooled(x), atol=1e-6)
    np.testing.assert_allclose(stack(relaxed), sum(w * y for w, y in zip(weights, each, strict=True)), atol=1e-5)


def test_weights_lie_under_their_alternative_and_an_operation_governs_all_of_them() -> None:
    family, space = case(), case().space
    layers = family.params["layers"]
    assert set(layers) == {"conv3", "expand"}
    assert layers["conv3"]["conv"]["kernel"].shape == (3, 9, 6, 6)
    norms = np.asarray(GeneNorms(family.net)(family.params))
    for position, column in enumerate(space.columns["operation"]):
        own = np.sqrt(sum(float(jnp.sum(jnp.square(leaf[position]))) for leaf in jax.tree.leaves(layers)))
        assert norms[column] == pytest.approx(own, rel=1e-5)


# ---------------------------------------------------------------- costs


def test_costs_are_those_of_the_one_that_is_taken() -> None:
    rows, net = every(SPACE), net_of(SPACE)
    assert len(rows) == SPACE.size == 2 * (4 + 16 + 64)
    costs = SPACE.cost(rows)
    for i in range(0, len(rows), 8):
        architecture = SPACE.architecture(rows[i])
        module = nnx.eval_shape(lambda a=architecture: net.module(a))
        leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        assert sum(leaf.size for leaf in leaves) == costs["params"][i]
        w, operations = architecture.description["width"], architecture.description["operation"]
        macs = 16 * w + 3 * w + 16 * (9 * w * w * operations.count("conv3") + 10 * w * operations.count("expand"))
        assert macs == costs["macs"][i]


def test_the_ends_of_the_space_are_its_true_extremes() -> None:
    rows = every(SPACE)
    for metric in ("params", "macs"):
        found = SPACE.cost(rows)[metric]
        assert lowest(SPACE, SPACE.cost, metric).value == found.min()
        assert highest(SPACE, SPACE.cost, metric).value == found.max()
    macs = SPACE.cost(SPACE.extremes)["macs"]
    assert (macs[0], macs[1]) == (SPACE.cost(rows)["macs"].min(), SPACE.cost(rows)["macs"].max())
    assert SPACE.largest.description["operation"] == ["conv3"] * 3  # the first value
    assert set(SPACE.smallest.description["operation"]) <= {"skip", "pool"}


def test_expected_costs_of_one_hot_rows_are_costs() -> None:
    cost = ExpectedCost(SPACE, [("macs", 1.0)])
    for genes in SPACE.sample(np.random.default_rng(0), 5):
        assert float(cost(jnp.asarray(one_hot(SPACE, genes)))[0]) == SPACE.cost(genes[None])["macs"][0]


# ---------------------------------------------------------------- samplers and searchers


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_draws_members_and_every_operation(name: str) -> None:
    cls = SAMPLERS[name]
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    coarse = {"levels": 3, "slack": 0.3}  # few networks, and so few costs
    plan = Plan(steps=40, examples=50, batch_size=8)
    sampler = cls(SPACE, 0, plan, **{key: value for key, value in coarse.items() if key in known})
    drawn, _ = run(sampler, sampler.init(), 0, 40)
    genes = np.concatenate([paths.genes for paths in drawn])
    assert SPACE.contains(genes).all()
    np.testing.assert_array_equal(genes, SPACE.canonical(genes))
    deep = genes[genes[:, SPACE.columns["depth"]] == 2]
    operations = set(deep[:, SPACE.columns["operation"]].reshape(-1))
    assert operations == ({0} if name == "largest" else {0, 1, 2, 3})
    for paths in drawn:
        for row, role in zip(paths.genes, paths.roles, strict=True):
            if role == "largest":
                assert tuple(row) == SPACE.largest.genes
    assert len(rows_of(sampler, sampler.init(), 0)) == 8


def test_what_has_no_order_cannot_be_opened_from_the_top() -> None:
    plan = Plan(steps=40, examples=50, batch_size=8)
    progressive: Any = SAMPLERS["progressive"]
    with pytest.raises(UserError, match=r"sampler\.order: the values of 'operation' have no order"):
        progressive(SPACE, 0, plan, order=("operation",))


def error(genes: np.ndarray) -> np.ndarray:
    """Pooling is best, then skipping, then the rest; deeper is better."""
    worth = np.array([0.0, 0.5, 0.2, 1.0])[genes[:, SPACE.columns["operation"]]]
    return 1 - (worth * SPACE.active(genes)[:, SPACE.columns["operation"]]).sum(axis=1) / 3


@pytest.mark.parametrize("name", list(SEARCHERS))
def test_every_searcher_keeps_budgets_and_finds_what_is_best(name: str) -> None:
    budgets = tuple(Budget.parse(*spec).resolve(SPACE) for spec in (("full", "macs<=100%"), ("few", "macs<=15%")))
    cls = SEARCHERS[name]
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    settings: dict[str, Any] = {"evaluations": 150, "inner": 60, "population": 24, "offspring": 24}
    searcher = cls(SPACE, budgets, 0, **{key: value for key, value in settings.items() if key in known})
    state, seen = searcher.init(), np.zeros((0, SPACE.num_genes), np.int32)
    while len(seen) < 150:
        genes = searcher.ask(state)
        if not len(genes):
            break
        assert SPACE.contains(genes).all()
        assert budgets[0].feasible(SPACE.cost(genes)).all()
        objectives = np.zeros((len(genes), len(searcher.objectives)))
        objectives[:, 0] = error(genes)
        for i, metric in enumerate(searcher.objectives[1:], start=1):
            objectives[:, i] = SPACE.cost(genes)[metric]
        state, seen = searcher.tell(state, genes, objectives), np.concatenate([seen, genes])
    rows = every(SPACE)
    for budget in budgets:
        within = budget.feasible(SPACE.cost(seen))
        assert error(seen[within]).min() == error(rows[budget.feasible(SPACE.cost(rows))]).min()


def test_a_projection_meets_its_budget() -> None:
    probabilities = np.where(values_of(SPACE), 0.1, 0)
    probabilities[:, 0] += 0.6  # convolutions everywhere
    probabilities[SPACE.columns["depth"]] = [0.1, 0.1, 0.8, 0]
    budget = Budget.parse("few", "macs<=30%").resolve(SPACE)
    found = most_probable(SPACE, probabilities, budget)
    assert budget.feasible(SPACE.cost(found[None])).all()


# ---------------------------------------------------------------- training and gradient search


def test_it_trains_and_is_evaluated() -> None:
    family, space = case(), case().space
    step = TrainStep(family.net, OptimizerSettings(learning_rate=1e-2, schedule="constant").build(60))
    state, targets = step.init(jax.tree.map(jnp.copy, family.params)), jax.nn.one_hot(jnp.arange(8) % 3, 3)
    genes, losses = np.array(space.extremes[::-1]), []
    for _ in range(12):
        state, result = step(state, genes, ("largest", "smallest"), np.ones(2, np.float32), family.x, targets)
        losses.append(float(np.mean([path.loss for path in result.paths])))
    assert losses[-1] < losses[0]
    x = np.asarray(family.x)
    scores = Evaluator(family.net, x, np.arange(8) % 3, 8, x[None])(
        state.params, space.sample(np.random.default_rng(0), 4)
    )
    assert np.isfinite(scores.loss).all()


def test_gradient_search_moves_to_the_operation_that_costs_least() -> None:
    family, space = case(), case().space
    train = TrainStep(family.net, OptimizerSettings().build(10))
    cost = ExpectedCost(space, [("macs", 0.2 * float(space.cost(space.extremes)["macs"][1]))])
    step = GradientStep(family.net, RELAXATIONS["darts"](), cost, train, 0.1, 10.0, 1.0)  # type: ignore[arg-type]
    state = step.init(jax.tree.map(jnp.copy, family.params), jax.random.key(1))
    targets = jax.nn.one_hot(jnp.arange(8) % 3, 3)
    cost_of = None
    for i in range(30):
        state, result = step.architecture(state, jax.random.key(i), family.x, targets, 1.0, 0.0)
        cost_of = result.costs[0]
    state, trained = step.weights(state, jax.random.key(0), family.x, targets, 1.0)
    assert np.isfinite(float(trained.loss))
    probabilities = np.asarray(jax.nn.softmax(state.logits, where=jnp.asarray(values_of(space))))
    first = probabilities[space.columns["operation"][0]]
    assert first[Operations.operation.index("conv3")] < 0.2
    assert cost_of is not None
    assert float(cost_of) < 1.2


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("choice", "sublayers", "message"),
    [
        (Choice("other", ("a", "b"), ordered=False), {}, r"alternatives op: 'op' is no choice"),
        (Choice("op", ("a", "b"), ordered=False), {"a": Sublayer("a", {})}, r"they are \['a'\], .* has \['a', 'b'\]"),
        (Choice("op", ("a",)), {"a": Sublayer("a", {})}, r"op is ordered"),
    ],
)
def test_contradictions_are_refused(choice: Choice, sublayers: dict[str, Sublayer], message: str) -> None:
    network = dataclasses.replace(SPACE.network, stacks=(Stack("layers", (Alternatives("op", sublayers),), 1),))
    choices = (*(c for c in SPACE.choices if c.name != "operation"), choice)
    with pytest.raises(UserError, match=message):
        check_network(network, choices)


def test_a_size_of_one_alternative_alone_is_refused() -> None:
    from search_spaces.parts import Axis

    sublayers = {"a": Sublayer("a", {"up": linear(3, Axis("hidden"))}), "b": Sublayer("b", {})}
    network = dataclasses.replace(SPACE.network, stacks=(Stack("layers", (Alternatives("op", sublayers),), 1),))
    choices = (*SPACE.choices, Choice("op", ("a", "b"), ordered=False), Choice("hidden", (1, 2)))
    with pytest.raises(UserError, match=r"a is sized by hidden, which means nothing where another is chosen"):
        check_network(network, choices)
