"""The elastic ensemble of any family: members run the base's stages, share its first layers, and are averaged.

References:
    Chen, Fu, Ling. One-Shot Neural Ensemble Architecture Search by Diversity-Guided Search Space Shrinking. CVPR 2021,
    arXiv:2104.00597 (a loss for each member; the gradient that enters the shared layers is divided by their number).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from search_spaces import Program, SearchSpace
from search_spaces.ensemble import MEMBERS, PRIVATE, Ensemble
from search_spaces.network import Stack
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.layers.passes import PLAIN, Passes
from supernet.sharing import SHARING, WeightSharing
from supernet.weights.cuts import Tree, at, put

Logits = Float[Array, "b *t c"]


@SUPERNETS.register("vit_ensemble")
@SUPERNETS.register("mobilenet_ensemble")
@SUPERNETS.register("nas_bench_201_ensemble")
class EnsembleNetwork(ElasticNetwork):
    """Supernet of ensembles: the first member is the base network, further ones leave it behind the shared layers.

    What the head receives is the stream of the first member, and the logits of the others.
    """

    space: Ensemble  # type: ignore[assignment]

    def __init__(self, space: SearchSpace, sharing: WeightSharing, passes: Passes = PLAIN) -> None:
        super().__init__(space, sharing, passes)
        base = self.space.base
        self._base: Any = SUPERNETS[base.family](base, SHARING["entangled"](base), passes)

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`: those of the base, for each member."""
        stages = dict(self._base.stages)
        for member in range(2, max(self.space.members) + 1):
            names = {self.space.choice_of(c.name, member): c.name for c in self.space.base.choices}
            for name, chain in self._base.stages.items():
                stages[f"member_{member}/{name}"] = tuple(_as_in_base(stage, names) for stage in chain)
            stages[f"member_{member}/head"] = (Stage(self._end),)
        return stages

    def _end(self, params: Params, inputs: tuple, context: Context) -> Logits:
        return self._base.head(params, inputs[0], context)

    def embed(self, params: Params, x: Shaped[Array, "b ..."], context: Context) -> Tree:
        """See `ElasticNetwork.embed`."""
        return self._base.embed(params, x, context)

    def route(self, run: Callable[[Stack, Tree], Tree], x: Tree, values: Mapping[str, Any]) -> Tree:
        """See `ElasticNetwork.route`: the shared layers, then each member's own."""
        count, branch = values[MEMBERS], self.space.branch(values[PRIVATE])
        there = [piece for piece in self.space.pieces if piece.stack.there(values)]
        for piece in (piece for piece in there if piece.start < branch):
            x = run(piece.stack, x)
        streams = [x] * count
        for piece in (piece for piece in there if piece.start >= branch):
            streams[piece.member - 1] = run(piece.stack, streams[piece.member - 1])
        return tuple(streams)

    def head(self, params: Params, x: tuple[Tree, ...], context: Context) -> Logits:
        """See `ElasticNetwork.head`: the mean of the members' logits."""
        first, *others = self._each(params, x, context)
        return sum(others, first) / len(x) if others else first

    def _each(self, params: Params, x: tuple[Tree, ...], context: Context) -> tuple[Logits, ...]:
        return self._base.head(params, x[0], context), *x[1:]

    def apply_members(
        self, params: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], *, program: Program
    ) -> tuple[Logits, ...]:
        """See `Supernet.apply_members`.

        For the mean of their losses, a member's own weights get the gradient of its loss, and shared ones the mean of
        the gradients of all.
        """
        genes, known = jnp.asarray(genes), self.known(program)
        context = Context(x.shape, known, input=x)
        effective = self._scaled(self.sharing.effective(params, genes), known)
        y, outside = self.streamed(effective, genes, x, context)
        return self._each(outside, y, context)

    def _scaled(self, params: Params, values: Mapping[str, Any]) -> Params:
        """The weights, of which each member's own count as often in gradients as there are members."""
        count, branch = values[MEMBERS], self.space.branch(values[PRIVATE])
        if count == 1:
            return params
        scaled = jax.tree.map(lambda leaf: leaf, params)
        own = [p.stack.path for p in self.space.pieces if p.start >= branch and p.stack.there(values)]
        for path in (*self.space.network.head, *own):
            put(scaled, path, jax.tree.map(partial(_counted, count), at(params, path)))
        return scaled


def _counted(times: int, leaf: jax.Array) -> jax.Array:
    """The weight itself, whose gradient counts so many times."""
    return leaf + (times - 1) * (leaf - jax.lax.stop_gradient(leaf))


def _as_in_base(stage: Stage, names: Mapping[str, str]) -> Stage:
    """A stage of the base that finds a member's genes under the names of the base's choices."""

    def renamed(context: Context) -> Context:
        genes, values = ({names.get(n, n): x for n, x in of.items()} for of in (context.genes, context.values))
        return replace(context, genes=genes, values=values)

    def forward(params: Tree, inputs: tuple, context: Context) -> Tree:
        return stage.forward(params, inputs, renamed(context))

    def backward(params: Tree, inputs: tuple, output: Tree, cotangent: Tree, context: Context) -> tuple[Tree, tuple]:
        assert stage.backward is not None
        return stage.backward(params, inputs, output, cotangent, renamed(context))

    return Stage(forward, None if stage.backward is None else backward)
