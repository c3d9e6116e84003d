"""Early exit: each token takes only the first layers of a model if they are sure of it.

References:
    Kavehzadeh et al. Sorted LLaMA: Unlocking the Potential of Intermediate Layers of Large Language Models for Dynamic
    Inference. Findings of EACL 2024, arXiv:2309.08968.
    Schuster et al. Confident Adaptive Language Modeling. NeurIPS 2022, arXiv:2207.07061: keys and values of the layers
    that a token skips are those of the stream where it left.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, Key

from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.engine import randomness
from supernet.export.generate import check_generation
from supernet.standalone.language import Cache, KeysValues, LanguageModel


@dataclass(frozen=True)
class EarlyTokens:
    """Tokens that a model wrote with as few layers as it was sure with.

    Attributes:
        tokens: int[n], those that follow the prompt.
        layers: int[n], number of layers that each took.
    """

    tokens: Int[Array, " n"]
    layers: Int[Array, " n"]


def generate_early(
    model: LanguageModel,
    prompt: Int[Array, " t"],
    count: int,
    exits: Sequence[int],
    confidence: float,
    temperature: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> EarlyTokens:
    """Generates tokens after a prompt, each from the first exit that is sure of it, else from the last layer.

    An exit is sure if the probability of its likeliest token, at temperature 1, is at least `confidence`. The prompt
    passes all layers, so the first token takes all.

    Args:
        model: A causal language model, best trained with the same exits.
        prompt: At least one token.
        count: Number of tokens to generate.
        exits: Numbers of layers, ascending, below that of the model.
        confidence: Least probability, above 0 and at most 1.
        temperature: Temperature of the distribution that tokens are drawn from; 0 takes the likeliest.
        key: Key of the drawing; needed unless the temperature is 0.

    Raises:
        UserError: The model cannot generate this, has no such exits, or the confidence is no probability.
    """
    check_generation(model, len(prompt), count, temperature, key)
    depth = len(model.layers)
    if not exits or list(exits) != sorted({*exits} & {*range(1, depth)}):
        raise UserError(
            f"generate: exits after {list(exits)} layers of {depth}. Give ascending numbers from 1 to {depth - 1}."
        )
    if not 0 < confidence <= 1:
        raise UserError(f"generate: confidence {confidence}. Give a probability above 0 and at most 1.")
    key = randomness.key(0, Purpose.GENERATED_TOKENS) if key is None else key
    graph, state = nnx.split(model)
    return EarlyTokens(
        *_generate_early(
            graph, tuple(exits), count, temperature > 0, state, prompt, key, jnp.float32(temperature),
            jnp.float32(confidence),
        )
    )  # fmt: skip


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate_early(
    graph: nnx.GraphDef,
    exits: tuple[int, ...],
    count: int,
    drawn: bool,
    state: nnx.State,
    prompt: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    confidence: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    model = nnx.merge(graph, state)
    start, depth = len(prompt), len(model.layers)

    def choose(logits: jax.Array, number: jax.Array | int) -> jax.Array:
        if not drawn:
            return jnp.argmax(logits).astype(prompt.dtype)
        draw = jax.random.categorical(jax.random.fold_in(key, number), logits / temperature)
        return draw.astype(prompt.dtype)

    def step(carry: tuple[jax.Array, Cache], number: jax.Array) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        token, cache = carry
        positions = (start + number - 1)[None]
        x, taken, sure = model.embed(token[None, None], positions), jnp.int32(0), jnp.array(False)
        logits = jnp.zeros(model.form.vocabulary, x.dtype)
        seen: Cache = []
        for begin, end in itertools.pairwise((0, *exits, depth)):
            layers = list(model.layers)[begin:end]

            def through(
                x: jax.Array, held: Cache, _: jax.Array, layers: list = layers
            ) -> tuple[jax.Array, Cache, jax.Array]:
                new: Cache = []
                for layer, pair in zip(layers, held, strict=True):
                    x, pair = layer(x, positions, pair)
                    new.append(pair)
                return x, new, model.predict(x)[0, -1]

            def past(
                x: jax.Array, held: Cache, logits: jax.Array, layers: list = layers
            ) -> tuple[jax.Array, Cache, jax.Array]:
                remembered: list[KeysValues] = [
                    layer.remember(x, positions, pair) for layer, pair in zip(layers, held, strict=True)
                ]
                return x, remembered, logits

            x, pairs, logits = jax.lax.cond(sure, past, through, x, cache[begin:end], logits)
            seen += pairs
            taken = jnp.where(sure, taken, end)
            sure = sure | (jnp.max(jax.nn.softmax(logits)) >= confidence)
        token = choose(logits, number)
        return (token, seen), (token, taken)

    logits, cache = model.decode(prompt[None], model.empty_cache(1, start + count))
    first = choose(logits[0, -1], 0)
    _, (rest, taken) = jax.lax.scan(step, (first, cache), jnp.arange(1, count))
    return jnp.append(first, rest), jnp.append(jnp.int32(depth), taken)
