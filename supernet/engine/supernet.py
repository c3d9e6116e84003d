"""Supernet: the weights of every network of a space, and the forward pass of any of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int, Key, Shaped

from search_spaces import Architecture, Program, SearchSpace, UserError
from search_spaces.randomness import Purpose
from search_spaces.registry import Registry
from search_spaces.sealed_json import JsonObject
from supernet.engine.randomness import FreshWeights, key
from supernet.engine.stages import residual_bytes
from supernet.layers.passes import PLAIN, Passes
from supernet.sharing import SHARING, WeightSharing
from supernet.standalone import MODULES

Params = dict[str, Any]
Statistics = dict[str, Any]
SUPERNETS: Registry[Callable[..., "Supernet"]] = Registry("supernet", "supernet.families")

_OF_SHARING = np.uint32(0xFFFFFFFF)
"""Folded into the key of fresh weights for what the sharing scheme draws; modules count theirs from 0."""


class Supernet(ABC):
    """Weights and forward passes of a space. Holds no arrays; parameters are a nested dict that callers keep.

    Four forward passes compute the same function: `apply` (the engine: the architecture is data), `apply_sliced` (one
    compilation an architecture), `apply_masked` (the reference: full size, zeroed) and the extracted module.

    Args:
        space: A space of this family.
        sharing: Rule by which full-size weights follow from the architecture.
        passes: Settings of the computation of passes.

    Raises:
        UserError: The family computes passes in one precision only.
    """

    has_precisions: ClassVar[bool] = False
    """Whether passes can be computed in another precision than float32."""

    def __init__(self, space: SearchSpace, sharing: WeightSharing, passes: Passes = PLAIN) -> None:
        if passes.precision != PLAIN.precision and not self.has_precisions:
            raise UserError(
                f"train.precision: {passes.precision} is not for family {space.family}. Leave it at {PLAIN.precision}."
            )
        self.space = space
        self.sharing = sharing
        self.passes = passes

    @property
    @abstractmethod
    def stacked(self) -> str:
        """Name of the parts of the weights whose leaves have a leading axis of layers."""

    @abstractmethod
    def plain_weights(self, key: Key[Array, ""]) -> Params:
        """Draws fresh weights in the size of the largest subnet, from which the sharing scheme starts."""

    def init(self, key: Key[Array, ""]) -> Params:
        """Draws fresh weights of the sharing scheme."""
        return self.shared(self.plain_weights(key), key)

    def shared(self, plain: Params, key: Key[Array, ""]) -> Params:
        """Returns the sharing scheme's weights for plain weights; `key` draws fresh plain ones."""
        return self.sharing.init(plain, jax.random.fold_in(key, _OF_SHARING))

    @cached_property
    def of_effective_weights(self) -> "Supernet":
        """The same networks on effective weights: where an architecture is computed often, these are computed once."""
        entangled = SHARING["entangled"]
        if isinstance(self.sharing, entangled):
            return self
        return type(self)(self.space, entangled(self.space), self.passes)

    @cached_property
    def shapes(self) -> Params:
        """The tree of `init` with shapes and types in place of arrays."""
        return jax.eval_shape(self.shared, self.plain_shapes, key(0, Purpose.WEIGHTS))

    @cached_property
    def plain_shapes(self) -> Params:
        """The tree of `plain_weights`, and of effective weights, with shapes and types in place of arrays."""
        return jax.eval_shape(self.plain_weights, key(0, Purpose.WEIGHTS))

    @cached_property
    def has_integer_weights(self) -> bool:
        """True where weights are whole numbers, which have no gradients."""
        return any(jnp.issubdtype(leaf.dtype, jnp.integer) for leaf in jax.tree.leaves(self.shapes))

    def _shapes_of(self, forward: Callable[[Params, jax.Array], Any]) -> Any:
        """What a pass gives for one example that the largest subnet takes, with shapes in place of arrays."""
        example = self.example(self.space.largest)
        return jax.eval_shape(forward, self.shapes, jax.ShapeDtypeStruct((1, *example.shape), example.dtype))

    @cached_property
    def classes(self) -> int:
        """Number of classes (for language models: tokens) that each output is a distribution of."""
        return self._shapes_of(lambda params, x: self.apply_sliced(params, self.space.largest, x)).shape[-1]

    def residual_bytes(self, rows: int) -> int:
        """Bytes that the sublayers of the largest subnet keep of so many rows, where they do not compute them again."""
        largest = self.space.largest
        example = self.example(largest)
        x = jax.ShapeDtypeStruct((rows, *example.shape), example.dtype)
        return residual_bytes(lambda params, x: self.apply_sliced(params, largest, x), self.shapes, x)

    @cached_property
    def statistics_shapes(self) -> Statistics:
        """The tree that `apply` collects, with shapes and types in place of arrays; empty for families without one."""
        program = self.space.program(self.space.largest.genes)
        genes = jnp.asarray(self.space.largest.genes, jnp.int32)
        return self._shapes_of(lambda params, x: self.apply(params, genes, x, program=program, collect=True)[1])

    @property
    def has_statistics(self) -> bool:
        """True where the family normalises with its batch: `statistics_shapes` is not empty."""
        return bool(self.statistics_shapes)

    @property
    def values_per_statistic(self) -> int:
        """Values of one example that a batch statistic averages, in the norm and the subnet where they are fewest.

        Of a single value in all, the batch's own statistics leave zero.
        """
        return 1

    @abstractmethod
    def apply(
        self,
        params: Params,
        genes: Int[Array, " g"],
        x: Shaped[Array, "b ..."],
        *,
        program: Program,
        statistics: Statistics | None = None,
        collect: bool = False,
    ) -> tuple[Float[Array, "b *t c"], Statistics]:
        """Runs the subnet that `genes` denotes; only what it uses is computed.

        Args:
            params: Tree of `init`.
            genes: int32[g], traced.
            x: Batch of inputs: images float32[b, h, w, c], or tokens int32[b, t].
            program: `space.program(genes)`, static: what changes the shape of the residual stream.
            statistics: Batch statistics to normalise with; None takes the batch's own.
            collect: Return the batch's statistics (not differentiable).

        Returns:
            Logits float32[b, c] (of tokens, float32[b, t, c]), and the collected statistics (empty unless `collect`,
            and for families without them).
        """

    def apply_members(
        self, params: Params, genes: Int[Array, " g"], x: Shaped[Array, "b ..."], *, program: Program
    ) -> tuple[Float[Array, "b *t c"], ...]:
        """Computes the logits that have a loss each in training and whose mean `apply` gives: one, or each member's."""
        return (self.apply(params, genes, x, program=program)[0],)

    @cached_property
    def compiled_apply(self) -> Callable[..., tuple[Float[Array, "b *t c"], Statistics]]:
        """`apply`, compiled; a program is made once, whoever asks for it."""
        return jax.jit(self.apply, static_argnames=("program", "collect"))

    @abstractmethod
    def apply_sliced(
        self,
        params: Params,
        architecture: Architecture,
        x: Shaped[Array, "b ..."],
        statistics: Statistics | None = None,
    ) -> Float[Array, "b *t c"]:
        """Logits of one architecture that is known when traced: every weight sliced statically, layers unrolled."""

    @abstractmethod
    def apply_masked(
        self,
        params: Params,
        genes: Int[Array, " g"],
        x: Shaped[Array, "b ..."],
        *,
        program: Program,
        statistics: Statistics | None = None,
    ) -> Float[Array, "b *t c"]:
        """Logits by the reference formulation: full-size products, masked to the architecture."""

    @abstractmethod
    def config(self, architecture: Architecture) -> JsonObject:
        """Returns the constructor arguments of an architecture's plain module: numbers, strings and lists only."""

    @abstractmethod
    def example(self, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """Returns the shape and type of one input of the plain module: an image has height, width and channels."""

    def module(self, architecture: Architecture, rngs: nnx.Rngs | None = None) -> nnx.Module:
        """Returns the plain Flax module of one architecture, with fresh weights."""
        return MODULES[self.space.family](**self.config(architecture), rngs=rngs or FreshWeights(0))

    @abstractmethod
    def slice(self, params: Params, architecture: Architecture, statistics: Statistics) -> Params:
        """Returns the weights of one architecture, sliced from effective ones, in the structure of its plain module."""

    def extract(
        self, params: Params, architecture: Architecture, statistics: Statistics | None = None
    ) -> tuple[nnx.Module, Params]:
        """Returns the standalone network of one architecture: a plain module and its plain weights.

        Args:
            params: Tree of `init`.
            architecture: Architecture of the subnet.
            statistics: Calibrated batch statistics, for families that have them.
        """
        genes = jnp.asarray(architecture.genes, jnp.int32)
        weights = self.slice(self.sharing.effective(params, genes), architecture, statistics or {})
        module = nnx.eval_shape(lambda: self.module(architecture))
        nnx.update(module, weights)
        return module, weights


def weight_bytes(params: Any) -> int:
    """Returns the bytes of all weights of a tree, of arrays or of their shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params))


def build_supernet(space: SearchSpace, sharing: str | WeightSharing = "entangled", passes: Passes = PLAIN) -> Supernet:
    """Builds the supernet of a space's family with a sharing scheme, given by name or as an object.

    Raises:
        UserError: The scheme does not fit the family.
    """
    scheme = SHARING[sharing](space) if isinstance(sharing, str) else sharing
    return SUPERNETS[space.family](space, scheme, passes)
