"""The contract of a family: all passes agree, costs count the weights that there are, and exports can be traced."""

from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.extend import core

from experiments.contracts import ContractError, require
from search_spaces import Architecture
from search_spaces.randomness import Purpose, stream
from supernet.engine.derived import DerivedNetwork
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.randomness import key
from supernet.engine.supernet import Params, Supernet
from supernet.engine.superposed import SuperposedSupernet, one_hot
from supernet.export.export import PARITY_TOLERANCE
from supernet.export.subnet import compiled
from supernet.training.evaluation import calibrate

KEY = "space.family"
_BATCH = 4


def check_family(net: Supernet, architectures: int = 3) -> None:
    """Checks a family's passes, costs and export on random weights and one random batch.

    Args:
        net: Supernet of a space of the family; a small one is checked in seconds.
        architectures: Number of subnets to compare: the smallest, the largest, and random ones.

    Raises:
        ContractError: Something differs; the text names what, by how much, and for which subnet.
    """
    space = net.space
    _check_description(net)
    drawn = space.sample(stream(0, Purpose.CONTRACT), max(architectures - 2, 0))
    rows = np.unique(np.concatenate([space.extremes, drawn]), axis=0)
    for genes in rows:
        _check_costs(net, space.architecture(genes))
    params = _varied(net.init(key(0, Purpose.WEIGHTS)))
    passes = _Passes(net)
    for genes in rows:
        _check_passes(passes, params, space.architecture(genes))


def _check_description(net: Supernet) -> None:
    """Refuses stages that read other weights than a description names, where it alone says which there are."""
    largest, name = net.space.largest, type(net).__name__
    module = nnx.eval_shape(lambda: net.module(largest))
    if not (isinstance(module, DerivedNetwork) and isinstance(net, ElasticNetwork)):
        return
    weights, example = nnx.to_pure_dict(nnx.state(module)), net.example(largest)
    x = jax.ShapeDtypeStruct((_BATCH, *example.shape), example.dtype)
    try:
        program = jax.make_jaxpr(lambda weights, x: net.apply_plain(weights, largest, x))(weights, x).jaxpr
    except KeyError as error:
        text = f"embed, head or a stage of {name} reads {error}, which no part of the network names there. Describe it."
        raise ContractError(f"{KEY}: {text}") from error
    read = {variable for variable in program.outvars if not isinstance(variable, core.Literal)}
    for equation in reversed(program.eqns):
        if read & set(equation.outvars):
            read |= {variable for variable in equation.invars if not isinstance(variable, core.Literal)}
    paths = [path for path, _ in jax.tree.leaves_with_path(weights)]
    given = zip(paths, program.invars[: len(paths)], strict=True)
    unread = ["/".join(str(key.key) for key in path) for path, variable in given if variable not in read]
    require(
        not unread,
        KEY,
        f"no stage of {name}, nor embed or head, reads {', '.join(unread)}, which costs count. Read it, or take it out "
        "of the network.",
    )


class _Passes:
    """The passes in which genes are data, compiled once."""

    def __init__(self, net: Supernet) -> None:
        self.net = net
        self.switched: Callable[..., Any] = jax.jit(net.apply, static_argnames="program")
        self.masked: Callable[..., Any] = jax.jit(net.apply_masked, static_argnames="program")
        self.superposed: Callable[..., Any] | None = None
        if isinstance(net, SuperposedSupernet):
            self.superposed = jax.jit(net.apply_superposed)


def _check_costs(net: Supernet, architecture: Architecture) -> None:
    space = net.space
    costs = space.cost(np.array([architecture.genes], np.int32))
    for metric, values in costs.items():
        text = f"{metric} of {_named(net, architecture)} is {values[0]}; costs are finite, and not negative."
        require(bool(np.isfinite(values[0]) and values[0] >= 0), KEY, text)
    module = nnx.eval_shape(lambda: net.module(architecture))
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    if "params" in costs:
        require(
            counted == int(costs["params"][0]),
            KEY,
            f"{_named(net, architecture)} has {counted:,} parameters, and its cost says {int(costs['params'][0]):,}. "
            f"Correct the cost model of {type(space).__name__}.",
        )


def _check_passes(passes: _Passes, params: Params, architecture: Architecture) -> None:
    net, genes = passes.net, jnp.asarray(architecture.genes, jnp.int32)
    program, example = net.space.program(architecture.genes), net.example(architecture)
    x = _batch(net, (_BATCH, *example.shape), example.dtype)

    def agree(name: str, found: jax.Array, expected: jax.Array) -> None:
        text = f"{name} outputs of {_named(net, architecture)} have shape {found.shape}, and switched {expected.shape}."
        require(found.shape == expected.shape, KEY, text)
        error = float(jnp.max(jnp.abs(found - expected)) / jnp.maximum(1, jnp.max(jnp.abs(expected))))
        require(
            error <= PARITY_TOLERANCE,
            KEY,
            f"{name} outputs of {_named(net, architecture)} differ from switched ones by {error:.1e}, more than "
            f"{PARITY_TOLERANCE:.0e}. All passes compute one network: correct the family's module or stages.",
        )

    switched, _ = passes.switched(params, genes, x, program=program)
    require(bool(jnp.isfinite(switched).all()), KEY, f"outputs of {_named(net, architecture)} are not finite.")
    agree("masked", passes.masked(params, genes, x, program=program), switched)
    if passes.superposed is not None:
        relaxed = jnp.asarray(one_hot(net.space, np.asarray(architecture.genes)))
        agree("superposed", passes.superposed(params, relaxed, x), switched)
    statistics = jax.jit(lambda params: calibrate(net, params, genes, x[None], program))(params)
    if statistics is not None:
        switched, _ = passes.switched(params, genes, x, program=program, statistics=statistics)
    agree("static", jax.jit(lambda p: net.apply_sliced(p, architecture, x, statistics))(params), switched)
    module, _ = net.extract(params, architecture, statistics)
    agree("the exported module's", compiled(module)(x), switched)
    _check_traced(net, architecture, module, x)


def _check_traced(net: Supernet, architecture: Architecture, module: nnx.Module, x: jax.Array) -> None:
    """Refuses a module that cannot be exported for any number of inputs."""
    graph, state = nnx.split(module)
    (batch,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    try:
        jax.export.export(jax.jit(lambda state, x: nnx.merge(graph, state)(x)))(state, shape)
    except Exception as error:  # whatever a user's module makes of a batch of any size
        said = " ".join((str(error).splitlines() or [""])[0].split())[:200]
        require(
            False,
            KEY,
            f"the module of {_named(net, architecture)} cannot be exported for any number of inputs "
            f"({type(error).__name__}: {said}). Take sizes from x.shape, not from len(x).",
        )


def _varied(params: Params) -> Params:
    """Weights that are all different, so that a slice of the wrong ones shows."""
    rng = stream(0, Purpose.CONTRACT, 1)

    def noisy(leaf: jax.Array) -> jax.Array:
        if np.issubdtype(leaf.dtype, np.integer):
            return leaf // 2 + rng.integers(-9, 10, leaf.shape).astype(leaf.dtype)
        return leaf + np.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree.map(noisy, params)


def _batch(net: Supernet, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    rng = stream(0, Purpose.CONTRACT, 2)
    if np.issubdtype(dtype, np.integer):
        return jnp.asarray(rng.integers(0, net.classes, shape), dtype)
    return jnp.asarray(rng.standard_normal(shape), dtype)


def _named(net: Supernet, architecture: Architecture) -> str:
    described = ", ".join(f"{name} {value}" for name, value in architecture.description.items())
    return f"{net.space.family} ({described if len(described) <= 120 else described[:117] + '...'})"
