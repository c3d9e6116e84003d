"""Flax modules made elastic: every pass gives what the module of these sizes computes; what cannot be is named."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import FAMILIES, UserError, build_space
from supernet.engine.supernet import SUPERNETS, build_supernet
from supernet.engine.superposed import SuperposedSupernet, one_hot
from supernet.export.subnet import compiled
from supernet.flax_modules import elastic
from supernet.sharing.split import SplitSharing
from supernet.standalone import MODULES
from supernet.training.evaluation import calibrate
from tests.reference.counting import count

OWN = Path(__file__).resolve().parents[2] / "supernest" / "own_modules"
SHAPE = (8, 8, 1)


@pytest.fixture(autouse=True, scope="module")
def registries() -> Iterator[None]:
    """Registries as they were before."""
    with pytest.MonkeyPatch.context() as patch:
        for registry in (FAMILIES, SUPERNETS, MODULES):
            patch.setattr(registry, "_entries", dict(registry))
        yield


@dataclass
class Made:
    net: Any
    params: Any
    x: jax.Array
    switched: Callable[..., Any]
    masked: Callable[..., Any]
    superposed: Callable[..., Any]


@cache
def made(name: str) -> Made:
    """The supernet of one of the modules beside this file, with weights that are all different."""
    module = ModuleType(name)
    module.__file__ = str(OWN / f"{name}.py")
    exec((OWN / f"{name}.py").read_text("utf-8"), vars(module))
    settings = {"classes": 5, "input_shape": SHAPE, **({"channels": 1} if name == "small_cnn" else {})}
    net = build_supernet(build_space(name, None, settings))
    assert isinstance(net, SuperposedSupernet)
    keys = iter(jax.random.split(jax.random.key(0), 100))
    params = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(next(keys), leaf.shape), net.shapes)
    x = jax.random.normal(jax.random.key(1), (4, *SHAPE))
    return Made(
        net,
        params,
        x,
        jax.jit(
            jax.value_and_grad(lambda params, *rest, **named: (net.apply(params, *rest, **named)[0] ** 2).sum()),
            static_argnames="program",
        ),
        jax.jit(net.apply_masked, static_argnames="program"),
        jax.jit(jax.value_and_grad(lambda *given: (net.apply_superposed(*given) ** 2).sum())),
    )


@pytest.mark.parametrize("name", ["residual_mlp", "small_cnn"])
def test_all_passes_are_those_of_the_module_of_these_sizes(name: str) -> None:
    own = made(name)
    space = own.net.space
    for genes in space.sample(np.random.default_rng(0), 2):
        architecture, program = space.architecture(genes), space.program(genes)
        statistics = calibrate(own.net, own.params, jnp.asarray(genes), own.x[None], program)
        module, weights = own.net.extract(own.params, architecture, statistics)
        graph, state = nnx.split(module)

        def loss(weights: Any, graph: Any = graph, state: Any = state) -> jax.Array:
            plain = nnx.merge(graph, _like(state, weights))
            plain.train()  # the batch's own statistics, as in the supernet
            return (plain(own.x) ** 2).sum()

        expected, gradient = jax.jit(jax.value_and_grad(loss))(weights)
        found, of_supernet = own.switched(own.params, jnp.asarray(genes), own.x, program=program)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        gradient = nnx.to_pure_dict(nnx.filter_state(_like(state, gradient), nnx.Param))
        cut = own.net.slice(of_supernet, architecture, statistics or {})
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4),
            nnx.to_pure_dict(nnx.filter_state(_like(state, cut), nnx.Param)),
            gradient,
        )
        total = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(of_supernet))
        inside = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient))
        np.testing.assert_allclose(total, inside, rtol=1e-3)  # nothing outside the subnet has a gradient

        mixed, of_mixture = own.superposed(own.params, one_hot(space, genes), own.x)
        np.testing.assert_allclose(mixed, expected, rtol=1e-4)
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), of_mixture, of_supernet)
        logits = compiled(module)(own.x)  # by the calibrated statistics, which are those of this batch
        masked = own.masked(own.params, jnp.asarray(genes), own.x, program=program, statistics=statistics)
        np.testing.assert_allclose(masked, logits, rtol=1e-4, atol=1e-4)
        sliced = jax.jit(lambda p, s, a=architecture: own.net.apply_sliced(p, a, own.x, s))(own.params, statistics)
        np.testing.assert_allclose(sliced, logits, rtol=1e-4, atol=1e-4)

        costs = {metric: int(value[0]) for metric, value in space.cost(genes[None]).items()}
        counted = count(lambda x, module=module: compiled(module)(x), own.x[:1])
        params = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
        assert costs == {"params": params, "macs": counted.macs, "activation_bytes": 4 * counted.outputs}


def _like(state: Any, tree: Any) -> Any:
    whole = jax.tree.map(lambda leaf: leaf, state)
    nnx.replace_by_pure_dict(whole, tree)
    return whole


def test_a_mixture_is_that_of_the_layers_outputs() -> None:
    """Halfway between two widths of one layer's MLP lies the mean of what both compute."""
    own = made("residual_mlp")
    space = own.net.space
    small, large = space.extremes
    ends = [np.where(np.arange(space.num_genes) == column, 1, small) for column in (space.column("hidden"), 0)]
    logits = jax.jit(own.net.apply_superposed)
    relaxed = [one_hot(space, genes) for genes in (small, *ends)]
    outputs = [logits(own.params, matrix, own.x) for matrix in relaxed]
    for other, output in zip(relaxed[1:], outputs[1:], strict=True):
        between = logits(own.params, 0.25 * relaxed[0] + 0.75 * other, own.x)
        np.testing.assert_allclose(between, 0.25 * outputs[0] + 0.75 * output, rtol=1e-4, atol=1e-4)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01
    assert len(large) == space.num_genes


def test_a_mixture_of_a_split_supernet_has_the_weights_of_its_groups() -> None:
    """A mixture with all weight on one subnet is that subnet of its own sub-supernet, not of the first."""
    space = made("residual_mlp").net.space
    net = build_supernet(space, SplitSharing(space))
    assert isinstance(net, SuperposedSupernet)
    assert isinstance(net.sharing, SplitSharing)
    keys = iter(jax.random.split(jax.random.key(0), 100))
    params = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(next(keys), leaf.shape), net.shapes)
    x, genes = made("residual_mlp").x, np.array(space.largest.genes)
    assert net.sharing.group(genes) == 1
    expected = net.apply(params, jnp.asarray(genes), x, program=space.program(genes))[0]
    relaxed = jnp.asarray(one_hot(space, genes))
    np.testing.assert_allclose(net.apply_superposed(params, relaxed, x), expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- what cannot be elastic


class Block(nnx.Module):
    """A residual layer; subclasses go wrong."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(width, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(nnx.relu(self.up(x)))


class Net(nnx.Module):
    """A whole module; subclasses go wrong."""

    def __init__(self, width: int, depth: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Linear(64, width, rngs=rngs)
        self.layers = nnx.List([self.block(i, width, hidden, rngs) for i in range(depth)])
        self.head = nnx.Linear(width, 3, rngs=rngs)
        self.more(width, depth, hidden, rngs)

    def block(self, i: int, width: int, hidden: int, rngs: nnx.Rngs) -> Any:
        return Block(width, hidden, rngs=rngs)

    def more(self, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None: ...

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.embed(x.reshape(x.shape[0], -1))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def with_more(more: Callable[..., Any]) -> type[Net]:
    return type("Wrong", (Net,), {"more": more})


def with_block(block: Callable[..., Any]) -> type[Net]:
    return type("Wrong", (Net,), {"block": block})


def with_call(call: Callable[..., Any]) -> type[Net]:
    return type("Wrong", (Net,), {"__call__": call})


def _ignores(self: Net, i: int, width: int, hidden: int, rngs: nnx.Rngs) -> Any:
    return Block(width, 64, rngs=rngs)


def _shrinks(self: Net, i: int, width: int, hidden: int, rngs: nnx.Rngs) -> Any:
    return Block(width, 64 - hidden, rngs=rngs)


def _unlike(self: Net, i: int, width: int, hidden: int, rngs: nnx.Rngs) -> Any:
    return Block(width, hidden * (i + 1), rngs=rngs)


def _narrows(self: Net, i: int, width: int, hidden: int, rngs: nnx.Rngs) -> Any:
    return nnx.Linear(width, hidden, rngs=rngs)


def _second_list(self: Any, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None:
    self.others = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(depth)])


def _comes(self: Any, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None:
    self.norm = nnx.LayerNorm(width, rngs=rngs) if width > 16 else None


def _gains_an_axis(self: Any, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None:
    self.scale = nnx.Param(jnp.ones((width,) if width > 16 else (width, 1)))


def _drops(self: Any, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None:
    self.drop = nnx.Dropout(0.1, rngs=rngs)


def _caches(self: Any, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None:
    self.seen = nnx.Cache(jnp.zeros(width))


def _own_statistics(self: Any, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None:
    self.seen = nnx.BatchStat(jnp.zeros(width))


def _kernels(self: Any, width: int, depth: int, hidden: int, rngs: nnx.Rngs) -> None:
    self.conv = nnx.Conv(1, 1, (hidden, hidden), rngs=rngs)


def _runs_none(self: Net, x: jax.Array) -> jax.Array:
    return self.head(self.embed(x.reshape(x.shape[0], -1)))


def _runs_twice(self: Net, x: jax.Array) -> jax.Array:
    x = self.embed(x.reshape(x.shape[0], -1))
    for layer in [*self.layers, *self.layers]:
        x = layer(x)
    return self.head(x)


def _gives_two(self: Net, x: jax.Array) -> jax.Array:
    x = self.embed(x.reshape(x.shape[0], -1))
    for layer in self.layers:
        x = layer(x, x)
    return self.head(x)


def _raises(self: Net, x: jax.Array) -> jax.Array:
    return self.head(x)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (with_block(_ignores), "space.hidden: no weight of Wrong follows it; they are alike at each of [8, 16]."),
        (
            with_block(_shrinks),
            "axis 0 of layers/0/down/kernel of Wrong has 56 entries at hidden 8, but 48 at hidden 16.",
        ),
        (with_block(_unlike), "layers/1/down/kernel has shape (32, 32), and layers/0/down/kernel (16, 32). Entries"),
        (
            with_block(_narrows),
            "layers/0 of Wrong makes float32(1, 16) of float32(1, 32)",
        ),
        (with_more(_second_list), "space.depth: entries of layers and others of Wrong come and go with it."),
        (with_more(_comes), "space.width: norm/bias of Wrong is not there at each of [16, 32]."),
        (with_more(_gains_an_axis), "space.width: scale of Wrong has 2 axes at 16 and 1 at 32."),
        (with_more(_drops), "is a state of random numbers, which a supernet's pass does not draw. Leave Dropout out"),
        (with_more(_caches), "Wrong: seen is a Cache. Only nnx.Param and nnx.BatchNorm's statistics can be shared."),
        (with_more(_own_statistics), "Wrong: seen is a batch statistic of another module than nnx.BatchNorm"),
        (with_more(_kernels), "space.hidden: axis 0 of conv/kernel of Wrong is a side of a convolution's kernel"),
        (with_call(_runs_none), "space.family: Wrong never runs the entries of layers."),
        (with_call(_runs_twice), "space.family: entries of layers are run more than once."),
        (with_call(_gives_two), "space.family: entries of layers are called with more than one array."),
        (with_call(_raises), "raised TypeError: "),
    ],
)
def test_what_cannot_be_elastic_is_named(module: type[Net], expected: str) -> None:
    name = f"wrong_{len(FAMILIES)}"
    elastic(module, name, width=[16, 32], depth=[1, 2], hidden=[8, 16])
    with pytest.raises(UserError) as error:
        build_space(name, None, {"input_shape": SHAPE})
    assert expected in str(error.value)
    assert str(error.value).startswith("space.")


def test_sizes_that_weights_cannot_tell_are_refused() -> None:
    class Product(nnx.Module):
        def __init__(self, depth: int, heads: int, size: int, *, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([Block(64, heads * size, rngs=rngs) for _ in range(depth)])

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x.reshape(x.shape[0], -1)
            for layer in self.layers:
                x = layer(x)
            return x

    with pytest.raises(UserError, match="a space has an attribute 'size' of its own"):
        elastic(Product, "product_size", depth=[1], heads=[2, 4], size=[2, 4])

    class Product2(nnx.Module):
        def __init__(self, depth: int, heads: int, head_dim: int, *, rngs: nnx.Rngs) -> None:
            self.layers = nnx.List([Block(64, heads * head_dim, rngs=rngs) for _ in range(depth)])

        __call__ = Product.__call__

    elastic(Product2, "product", depth=[1], heads=[2, 4], head_dim=[2, 4])
    with pytest.raises(UserError, match=r"the same weights at heads=2, head_dim=4 and at heads=4, head_dim=2"):
        build_space("product", None, {"input_shape": SHAPE})
    space = build_space("product", None, {"input_shape": SHAPE, "head_dim": [2, 3]})
    assert [axis.name for axis in space.network.stacks[0].sublayers[0].axes.values()] == ["heads*head_dim"]


class Unannotated(nnx.Module):
    """A module whose constructor says little."""

    def __init__(self, width, act, *, rngs) -> None: ...  # type: ignore[no-untyped-def]


class NoRngs(nnx.Module):
    """A module without fresh weights."""

    def __init__(self, width: int) -> None: ...


@pytest.mark.parametrize(
    ("module", "choices", "expected"),
    [
        (Net, {"widht": [1, 2]}, "elastic(Net): 'widht' is no argument of its constructor. Did you mean 'width'?"),
        (Net, {"width": 3}, "elastic(Net): width: 3 is not a list of numbers."),
        (Net, {"width": ["a"]}, "elastic(Net): width: ['a'] is not a list of numbers."),
        (Net, {"width": [2, 1]}, "space.width: [2, 1] does not ascend."),
        (Net, {}, "elastic(Net): no choices."),
        (NoRngs, {"width": [1, 2]}, "elastic(NoRngs): its constructor takes no `rngs`."),
        (Unannotated, {"width": [1, 2]}, "elastic(Unannotated): its argument 'act' has no type."),
    ],
)
def test_what_does_not_fit_the_constructor_is_one_line(module: Any, choices: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as error:
        elastic(module, "misfit", **choices)
    assert str(error.value).startswith(expected)
    assert "misfit" not in FAMILIES
