"""A plug-in family: recurrent language models with int8 weights, whose forward pass computes with integers alone.

Each layer is a recurrence whose gates read no state (minGRU), and is added to a stream of integers. There is no
activation function but saturation. `tinyshakespeare_int8.yaml` trains such networks by an evolution strategy, as
integers have no gradients.

References:
    Sarkar et al. Evolution Strategies at the Hyperscale. 2025, arXiv:2511.16652 (EGG: int8 weights and activations,
    recurrences, saturation). Differs: gates that read the input only, no MLPs, and elastic depth and states.
    Feng et al. Were RNNs All We Needed? 2024, arXiv:2410.01201 (minGRU).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from search_spaces import FAMILIES, Choice, SearchSpace, UserError
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, Extent, Init, Part, Product, Shape
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.layers.integers import EXACT, LARGEST, NATS, ONE, halved, halvings, normalised, product, saturated, wide

_STREAM = 511
"""Largest magnitude of the stream between layers."""
_STATE_BITS = 7
"""Fractional bits that a state has more than what it remembers."""
_LOGITS = 255
"""Largest magnitude of a logit, in 1/16 bit."""
_DRAWN, _ZERO = Init(ONE, "normal", dtype="int8"), Init(0.0, "constant", dtype="int8")


def _matrix(reads: Extent, writes: Extent, rows: int, bias: bool = False, init: Init = _DRAWN) -> Part:
    weights: dict[str, Shape] = {"kernel": (reads, writes), **({"bias": (writes,)} if bias else {})}
    return Part(weights, (Product(rows, (reads,), (writes,)),), inits={"kernel": init, "bias": _ZERO})


@FAMILIES.register("int8_language")
@dataclass(frozen=True, kw_only=True)
class Int8LanguageSpace(SearchSpace):
    """Recurrent language models with int8 weights.

    Args:
        vocabulary: Number of different tokens; taken from the data.
        context: Number of tokens in a sequence; taken from the data.
        causal: Whether tokens see only what is before them; a recurrence needs it. Taken from the data.
        width: Width of the stream in channels, a power of two.
        depth: Numbers of layers.
        state: Numbers of values that a layer remembers.

    Raises:
        UserError: A width that is no power of two or too large for exact sums, or hidden tokens to predict.
    """

    family = "int8_language"
    inputs = "tokens"

    vocabulary: int
    context: int
    causal: bool = True
    width: int = 32
    depth: tuple[int, ...] = (1,)
    state: tuple[int, ...] = (16, 32)

    def __post_init__(self) -> None:
        most = EXACT // (2 * LARGEST * LARGEST)
        if self.width < 2 or self.width & (self.width - 1) or self.width > most:
            raise UserError(f"space.width: {self.width} is no power of two from 2 to {most}. Set for example 32.")
        if self.state and max(self.state) > most:
            raise UserError(f"space.state: {max(self.state)} is more than {most}. Set less.")
        if not self.causal:
            raise UserError("space.causal: false, but a recurrence sees only what is before. Set data.masked: 0.")
        super().__post_init__()

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return Choice("depth", self.depth), Choice("state", self.state, gate="depth")

    @property
    def reference_error(self) -> float:
        """See `SearchSpace.reference_error`: that of guessing, as errors are losses."""
        return math.log(self.vocabulary)

    @cached_property
    def network(self) -> Network:
        t, d, state = self.context, self.width, Axis("state")
        table: Shape = (self.vocabulary, d)
        outside = {
            "embedding": Part({"": table}, inits={"": _DRAWN}),
            "head": _matrix(d, self.vocabulary, t, bias=True, init=_ZERO),
        }
        parts = {
            "gate": _matrix(d, state, t, bias=True), "candidate": _matrix(d, state, t), "out": _matrix(state, d, t),
        }  # fmt: skip
        layer = Sublayer("recurrence", parts, path="recurrence")
        return Network(Sublayer("outside_layers", outside), (Stack("layers", (layer,), self.depth[-1]),))


@SUPERNETS.register("int8_language")
class Int8LanguageSupernet(ElasticNetwork):
    """The stream is int32[b, t, d]; all that lies between tokens and integer logits are integers.

    Weights that float32 carries, as while a population is evaluated, give the same numbers
    (`supernet.layers.integers`).
    """

    space: Int8LanguageSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        # Halvings of the largest state, so that networks of all sizes agree on the weights that they share.
        inwards, outwards = halvings(self.space.width), halvings(self.space.state[-1])

        def remember(params: Params, inputs: tuple, context: Context) -> jax.Array:
            x = normalised(inputs[0])
            gate = saturated(halved(product(x, params["gate"]["kernel"]), inwards) + wide(params["gate"]["bias"]), ONE)
            candidate = saturated(halved(product(x, params["candidate"]["kernel"]), inwards), LARGEST)
            return halved(_recurrence(gate + jnp.asarray(ONE, gate.dtype), candidate), _STATE_BITS)

        def recall(params: Params, inputs: tuple, context: Context) -> jax.Array:
            return saturated(inputs[0] + halved(product(inputs[1], params["out"]["kernel"]), outwards), _STREAM)

        return {"recurrence": (Stage(remember), Stage(recall))}

    def embed(self, params: Params, x: jax.Array, context: Context) -> jax.Array:
        """See `ElasticNetwork.embed`."""
        return wide(params["embedding"][x])

    def head(self, params: Params, x: jax.Array, context: Context) -> jax.Array:
        """See `ElasticNetwork.head`: what leaves the network is turned into nats here, and nowhere before."""
        return self.integer_head(params, x).astype(jnp.float32) * NATS

    def integer_head(self, params: Params, x: jax.Array) -> jax.Array:
        """Logits to base 2, with 4 fractional bits."""
        # Half as small as other products, so that few steps of a weight make a token likely.
        logits = halved(product(normalised(x), params["head"]["kernel"]), halvings(self.space.width) - 1)
        return saturated(logits + wide(params["head"]["bias"]), _LOGITS)


def _recurrence(gate: jax.Array, candidate: jax.Array) -> jax.Array:
    """States h + gate / 32 (candidate - h), each [b, t, s], with `_STATE_BITS` more fractional bits.

    Args:
        gate: 0 to 32, [b, t, s].
        candidate: [b, t, s].
    """

    def step(state: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Any]:
        gate, candidate = inputs
        state = state + halved(gate * (candidate * jnp.asarray(2**_STATE_BITS, candidate.dtype) - state), 5)
        return state, state

    start = jnp.zeros_like(candidate[:, 0])
    return jax.lax.scan(step, start, (gate.swapaxes(0, 1), candidate.swapaxes(0, 1)))[1].swapaxes(0, 1)
