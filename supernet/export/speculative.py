"""Speculative decoding: a small draft model proposes tokens, and the target checks them in one pass.

Published: Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding", 2023,
    arXiv:2211.17192, algorithm 1.
Differs: greedy decoding too, where a proposed token stands if it is the target's likeliest.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.engine import randomness
from supernet.export.generate import check_generation
from supernet.standalone.language import Cache, LanguageModel


@dataclass(frozen=True)
class Speculated:
    """Tokens that a target wrote with the help of a draft.

    Attributes:
        tokens: int[n], those that follow the prompt.
        rounds: Passes of the target, each over what the draft proposed.
        accepted: Number of these tokens that the draft proposed.
    """

    tokens: Int[Array, " n"]
    rounds: int
    accepted: int


class _Text(NamedTuple):
    """State after a round: tokens int[n], of which the first `written` count, and the caches of both models."""

    tokens: jax.Array
    written: jax.Array
    cache: Cache
    draft_cache: Cache
    rounds: jax.Array
    accepted: jax.Array


def speculate(
    target: LanguageModel,
    draft: LanguageModel,
    prompt: Int[Array, " t"],
    count: int,
    proposed: int = 4,
    temperature: float = 0.0,
    key: Key[Array, ""] | None = None,
) -> Speculated:
    """Generates tokens after a prompt: those of `generate`, or tokens from the same distribution.

    At temperature 0 they differ from `generate`'s only where two tokens are as likely within the rounding of a pass
    over several tokens.

    Args:
        target: A causal language model.
        draft: Another, with the same tokens.
        prompt: At least one token.
        count: Number of tokens to generate.
        proposed: Number of tokens that the draft proposes per round.
        temperature: Temperature of the distributions of both; 0 takes the likeliest.
        key: Key of the drawing; needed unless the temperature is 0.

    Raises:
        UserError: Either cannot generate this, they know another number of tokens, or nothing is proposed.
    """
    check_generation(target, len(prompt), count, temperature, key)
    check_generation(draft, len(prompt), count, temperature, key, "the draft")
    known, ours = draft.form.vocabulary, target.form.vocabulary
    if known != ours:
        raise UserError(
            f"generate: the draft knows {known} tokens, and the target {ours}. Give one of the same tokens."
        )
    if proposed < 1:
        raise UserError(f"generate: {proposed} proposed tokens. Let the draft propose at least one.")
    key = randomness.key(0, Purpose.GENERATED_TOKENS) if key is None else key
    models = (*nnx.split(target), *nnx.split(draft))
    tokens, rounds, accepted = _speculate(
        models[0], models[2], proposed, count, temperature > 0, models[1], models[3], prompt, key,
        jnp.float32(temperature),
    )  # fmt: skip
    return Speculated(tokens, int(rounds), int(accepted))


@partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _speculate(
    graph: nnx.GraphDef,
    draft_graph: nnx.GraphDef,
    proposed: int,
    count: int,
    drawn: bool,
    state: nnx.State,
    draft_state: nnx.State,
    prompt: jax.Array,
    key: jax.Array,
    temperature: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    target, draft = nnx.merge(graph, state), nnx.merge(draft_graph, draft_state)
    start, room = len(prompt), len(prompt) + count + proposed + 1

    def choose(logits: jax.Array, key: jax.Array) -> jax.Array:
        found = jax.random.categorical(key, logits / temperature) if drawn else jnp.argmax(logits)
        return found.astype(prompt.dtype)

    def propose(text: _Text, keys: jax.Array) -> tuple[jax.Array, jax.Array, Cache]:
        """Tokens int[k] of the draft, the logits float[k, v] that they are chosen by, and what it holds then."""
        # The last token but one again: the draft has not seen it where all that it proposed stood.
        last = jax.lax.dynamic_slice_in_dim(text.tokens, text.written - 2, 2)
        logits, cache = draft.decode(last[None], text.draft_cache, text.written - 2)

        def step(carry: tuple, at: tuple) -> tuple[tuple, tuple]:
            logits, cache = carry
            number, key = at
            token = choose(logits, key)
            following, cache = draft.decode(token[None, None], cache, text.written + number)
            return (following[0, -1], cache), (token, logits)

        numbers = jnp.arange(proposed - 1)
        (logits, cache), (tokens, seen) = jax.lax.scan(step, (logits[0, -1], cache), (numbers, keys[:-1]))
        return jnp.append(tokens, choose(logits, keys[-1])), jnp.concatenate([seen, logits[None]]), cache

    def check(logits: jax.Array, guessed: jax.Array, tokens: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the number of proposed tokens that stand, and the token after them."""
        if not drawn:
            likeliest = jnp.argmax(logits, axis=-1).astype(prompt.dtype)
            accepted = jnp.sum(jnp.cumprod(tokens == likeliest[:-1]))
            return accepted, likeliest[accepted]
        of_check, of_next = jax.random.split(key)
        p, q = (jax.nn.softmax(found / temperature) for found in (logits, guessed))
        accepted = jnp.sum(jnp.cumprod(standing(p[:-1], q, tokens, jax.random.uniform(of_check, (proposed,)))))
        following = jax.random.categorical(of_next, jnp.log(left_over(p, q)[accepted]))
        return accepted, following.astype(prompt.dtype)

    def one_round(text: _Text) -> _Text:
        of_draft, of_check = jax.random.split(jax.random.fold_in(key, text.rounds))
        tokens, guessed, draft_cache = propose(text, jax.random.split(of_draft, proposed))
        last = jax.lax.dynamic_slice_in_dim(text.tokens, text.written - 1, 1)
        logits, cache = target.decode(jnp.concatenate([last, tokens])[None], text.cache, text.written - 1)
        accepted, following = check(logits[0], guessed, tokens, of_check)
        new = jnp.where(jnp.arange(proposed + 1) < accepted, jnp.append(tokens, following), following)
        kept = jnp.minimum(accepted, start + count - text.written)  # what stands beyond the end is not part of the text
        return _Text(
            jax.lax.dynamic_update_slice_in_dim(text.tokens, new, text.written, axis=0),
            text.written + accepted + 1, cache, draft_cache, text.rounds + 1, text.accepted + kept,
        )  # fmt: skip

    logits, cache = target.decode(prompt[None], target.empty_cache(1, room))
    _, draft_cache = draft.decode(prompt[None], draft.empty_cache(1, room))
    first = choose(logits[0, -1], jax.random.fold_in(key, count))
    tokens = jnp.zeros(room, prompt.dtype).at[:start].set(prompt).at[start].set(first)
    begun = _Text(tokens, jnp.int32(start + 1), cache, draft_cache, jnp.int32(0), jnp.int32(0))
    text = jax.lax.while_loop(lambda text: text.written < start + count, one_round, begun)
    return text.tokens[start : start + count], text.rounds, text.accepted


def standing(
    p: Float[Array, "k v"], q: Float[Array, "k v"], tokens: Int[Array, " k"], uniform: Float[Array, " k"]
) -> Bool[Array, " k"]:
    """Decides whether each proposed token stands if those before it do: with probability `min(1, p / q)`.

    Args:
        p: The target's distributions.
        q: The draft's, which the tokens were drawn from.
        tokens: The proposed tokens.
        uniform: Draws from [0, 1).
    """
    at = jnp.arange(len(tokens)), tokens
    return uniform * q[at] < p[at]


def left_over(p: Float[Array, "after v"], q: Float[Array, "k v"]) -> Float[Array, "after v"]:
    """Returns the distribution of the next token where so many proposed tokens stood, up to a factor.

    What `p` has more than `q` after a token that did not stand; `p` itself where all stood, or where nothing is more
    for rounding.

    Args:
        p: The target's distributions, one more than tokens were proposed.
        q: The draft's.
    """
    more = jnp.concatenate([jnp.maximum(p[:-1] - q, 0), p[-1:]])
    return jnp.where(more.sum(axis=-1, keepdims=True) > 0, more, p)
