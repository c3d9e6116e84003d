"""Generation: the tokens that follow a prompt, one after the other, with cached keys and values."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int, Key

from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.engine import randomness
from supernet.standalone.language import LanguageModel


def generate(
    model: LanguageModel,
    prompt: Int[Array, "b t"],
    count: int,
    temperature: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> Int[Array, "b n"]:
    """Generates tokens after prompts of one length.

    Args:
        model: A causal language model.
        prompt: At least one token each.
        count: Number of tokens to generate.
        temperature: Temperature of the distribution that they are drawn from; 0 takes the likeliest.
        key: Key of the drawing; needed unless the temperature is 0.

    Raises:
        UserError: The model is an encoder, an empty prompt, a sequence longer than it takes, or a negative temperature.
    """
    check_generation(model, prompt.shape[1], count, temperature, key)
    graph, state = nnx.split(model)
    key = randomness.key(0, Purpose.GENERATED_TOKENS) if key is None else key
    return _generate(graph, state, prompt, key, jnp.float32(temperature), count, temperature > 0)


def check_generation(
    model: LanguageModel,
    given: int,
    count: int,
    temperature: float,
    key: Key[Array, ""] | None,
    name: str = "the model",
) -> None:
    """Refuses what a model cannot generate; arguments and errors as those of `generate`.

    Args:
        given: Tokens of the prompt.
        name: Name of the model in messages.
    """
    form, length = model.form, given + count
    if not form.causal:
        raise UserError(f"generate: {name} is an encoder, which sees what would be generated. Give a decoder.")
    if given < 1 or count < 1:
        raise UserError(f"generate: {given} tokens of prompt and {count} to follow. Give at least one each.")
    if length > form.length:
        raise UserError(
            f"generate: {given} tokens of prompt and {count} to follow are more than {name} takes, "
            f"{form.length}. Shorten one of them."
        )
    if not 0 <= temperature < math.inf or (temperature > 0 and key is None):
        raise UserError(
            f"generate: temperature {temperature}; it is a number of at least 0, and needs a seed unless it is 0."
        )


@partial(jax.jit, static_argnums=(0, 5, 6))
def _generate(
    graph: nnx.GraphDef,
    state: nnx.State,
    prompt: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
    count: int,
    drawn: bool,
) -> jax.Array:
    model = nnx.merge(graph, state)
    batch, start = prompt.shape

    def choose(logits: jax.Array, number: jax.Array | int) -> jax.Array:
        if not drawn:
            return jnp.argmax(logits, axis=-1).astype(prompt.dtype)
        draw = jax.random.categorical(jax.random.fold_in(key, number), logits / temperature)
        return draw.astype(prompt.dtype)

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, jax.Array]:
        token, cache = carry
        logits, cache = model.decode(token[:, None], cache, start + number - 1)
        token = choose(logits[:, -1], number)
        return (token, cache), token

    logits, cache = model.decode(prompt, model.empty_cache(batch, start + count))
    first = choose(logits[:, -1], 0)
    _, rest = jax.lax.scan(step, (first, cache), jnp.arange(1, count))
    return jnp.concatenate([first[:, None], rest.T], axis=1)
