"""Exits: logits of the first layers of a network, for several numbers of them, in one pass with one norm and head.

References:
    Kavehzadeh et al. Sorted LLaMA: Unlocking the Potential of Intermediate Layers of Large Language Models for Dynamic
    Inference. Findings of EACL 2024, arXiv:2309.08968.
    Differs: a network that is shallower than an exit leaves through its own last layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from search_spaces import Program, SearchSpace, UserError
from search_spaces.network import Stack
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context
from supernet.engine.supernet import Params, Supernet
from supernet.engine.views import Index, View, view_of
from supernet.weights.cuts import Tree, at


def check_exits(exits: Sequence[int], net: Supernet) -> None:
    """Refuses exits that are not networks of the space.

    Args:
        exits: Numbers of layers in ascending order; none where networks have no exits.
        net: The supernet.

    Raises:
        UserError: The layers of the family are not one stack whose first ones are kept, or the space lacks a depth.
    """
    if not exits:
        return
    space = net.space
    if not isinstance(net, ElasticNetwork) or _stack(space) is None:
        raise UserError(
            f"train.exits: networks of family {space.family} here do not consist of one stack of layers of which "
            "shallower networks keep the first. Leave it out, or set space.keep to first."
        )
    depths = list(_depths(space))
    if not set(exits) <= set(depths) or exits[-1] != depths[-1]:
        raise UserError(
            f"train.exits: {list(exits)} are not depths of the space with the largest as the last. Set some of "
            f"{depths}, up to {depths[-1]}."
        )


def _stack(space: SearchSpace) -> Stack | None:
    """The stack of a network that consists of one, of which shallower networks keep the first layers."""
    stack, *others = space.network.stacks
    chained = not (others or stack.handed_on or stack.edges or stack.when)
    return stack if chained and stack.layers is not None and stack.positions is None else None


def _depths(space: SearchSpace) -> Sequence[int]:
    (stack,) = space.network.stacks
    return stack.depths({choice.name: choice.values for choice in space.choices})  # type: ignore[return-value]


@dataclass(frozen=True)
class _Recorded(View):
    """View of a stream, beside which what some layers give is recorded: the stream is a pair of both.

    Attributes:
        inner: View of the stream itself.
        exits: Numbers of layers, behind which the stream is recorded; the last one is of all layers.
    """

    inner: View
    exits: tuple[int, ...]

    @property
    def paired(self) -> bool:
        return self.inner.paired

    def _slot(self, layer: Index) -> Index:
        """Place of the next exit: each layer writes there, and the exit's own is the last to do so."""
        return jnp.sum(layer >= jnp.array(self.exits[:-1], jnp.int32))

    def enter(self, x: tuple[Tree, jax.Array], layer: Index) -> Tree:
        return self.inner.enter(x[0], layer)

    def leave(self, x: tuple[Tree, jax.Array], y: Tree, layer: Index) -> tuple[Tree, jax.Array]:
        left = self.inner.leave(x[0], y, layer)
        return left, jax.lax.dynamic_update_index_in_dim(x[1], left, self._slot(layer), axis=0)

    def enter_back(self, g: tuple[Tree, jax.Array], layer: Index) -> Tree:
        recorded = jax.lax.dynamic_index_in_dim(g[1], self._slot(layer), axis=0, keepdims=False)
        is_exit = jnp.any(layer + 1 == jnp.array(self.exits, jnp.int32))
        return self.inner.enter_back(g[0] + jnp.where(is_exit, recorded, 0), layer)

    def leave_back(self, g: tuple[Tree, jax.Array], inner: Tree, layer: Index) -> tuple[Tree, jax.Array]:
        return self.inner.leave_back(g[0], inner, layer), g[1]


def exit_logits(
    net: ElasticNetwork,
    params: Params,
    genes: Int[Array, " g"],
    x: Shaped[Array, "b ..."],
    *,
    program: Program,
    exits: tuple[int, ...],
) -> tuple[Float[Array, "b *t c"], ...]:
    """Computes the logits at each exit: those of the subnet of so many layers with the same genes, if there are fewer.

    Args:
        net: The supernet.
        params: Tree of `Supernet.init`.
        genes: int32[g], traced.
        x: Batch of inputs.
        program: `space.program(genes)`, static.
        exits: Numbers of layers, as `check_exits` takes them.
    """
    genes, stack = jnp.asarray(genes), _stack(net.space)
    assert stack is not None
    effective = net.sharing.effective(params, genes)
    context = Context(x.shape, net.known(program), input=x)
    outside = net.weights.taken(effective, net.space.network.outside_layers, context.values)
    y = net.embed(outside, x, context)
    room = jnp.zeros((len(exits), *y.shape), y.dtype)
    view = _Recorded(view_of(stack), exits)
    _, recorded = net.switched_stack(stack, at(effective, stack.path), genes, (y, room), context, view)
    return tuple(net.head(outside, recorded[number], context) for number in range(len(exits)))
