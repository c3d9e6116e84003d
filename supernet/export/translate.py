"""Translation: the best target sentences by beam search, with cached keys and values.

References:
    Wu et al. Google's Neural Machine Translation System: Bridging the Gap between Human and Machine Translation. 2016,
    arXiv:1609.08144 (scores by length). Differs: scores are over a power of the length, as in fairseq.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from search_spaces import UserError
from supernet.standalone.translation import TranslationModel


class Translations(NamedTuple):
    """The best sentence that was found for each source.

    Attributes:
        tokens: With the end, and behind it the end again: int32[b, n].
        scores: Log-probability over the power of the length: float32[b].
    """

    tokens: Int[Array, "b n"]
    scores: Float[Array, " b"]


def translate(
    model: TranslationModel, source: Int[Array, "b t"], end: int, most: int, beam: int = 4, penalty: float = 0.6
) -> Translations:
    """Translates sentences of one length by beam search; a beam of 1 takes the likeliest token each time.

    At each step the likeliest `2 * beam` continuations are looked at. Those among the first `beam` that end are
    finished; the first `beam` that do not go on. A sentence is done once `beam` translations are finished, or at `most`
    tokens, where those that go on count as they are.

    Args:
        model: The model.
        source: Sentences with their end, and padding behind it.
        end: Token that ends sentences.
        most: Most tokens of a translation, with the end.
        beam: Number of translations that are kept at a time.
        penalty: Power of the length, with the end, by which log-probabilities are divided.

    Raises:
        UserError: A beam or a length of less than 1, or longer translations than the model was trained on.
    """
    if beam < 1 or most < 1:
        raise UserError(f"translate: a beam of {beam} and up to {most} tokens. Give at least one each.")
    if most > model.length:
        raise UserError(f"translate: up to {most} tokens, and the model takes {model.length}. Give at most that.")
    graph, state = nnx.split(model)
    return _translate(graph, state, source, jnp.float32(penalty), end, most, beam)


class _Search(NamedTuple):
    """State of a search: b sentences, k translations each, n tokens."""

    step: jax.Array
    live: jax.Array  # int32[b, k, n]
    sums: jax.Array  # log-probabilities, float32[b, k]
    finished: jax.Array  # int32[b, k, n]
    scores: jax.Array  # float32[b, k]
    ended: jax.Array  # how many are finished, int32[b]
    cache: list


@partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _translate(
    graph: nnx.GraphDef, state: nnx.State, source: jax.Array, penalty: jax.Array, end: int, most: int, k: int
) -> Translations:
    model, b = nnx.merge(graph, state), source.shape[0]
    memory = jax.tree.map(lambda leaf: jnp.repeat(leaf, k, axis=0), model.remember(source))

    def picked(tree: jax.Array, rows: jax.Array) -> jax.Array:
        """The rows of [b, m, ...] at [b, n]."""
        return jnp.take_along_axis(tree, rows.reshape(*rows.shape, *[1] * (tree.ndim - 2)), axis=1)

    def step(now: _Search) -> _Search:
        last = jnp.where(now.step > 0, now.live[:, :, jnp.maximum(now.step - 1, 0)], end).reshape(b * k, 1)
        logits, cache = model.decode(last, memory, now.cache, now.step)
        log_p = jax.nn.log_softmax(logits[:, 0]).reshape(b, k, -1)
        vocabulary = log_p.shape[-1]
        sums, best = jax.lax.top_k((now.sums[..., None] + log_p).reshape(b, -1), 2 * k)
        parents, tokens = best // vocabulary, (best % vocabulary).astype(jnp.int32)
        sequences = picked(now.live, parents).at[:, :, now.step].set(tokens)
        ends, working = tokens == end, (now.ended < k)[:, None]
        done = ends & (jnp.arange(2 * k) < k) & working & jnp.isfinite(sums)
        scores = jnp.where(done, sums / (now.step + 1.0) ** penalty, -jnp.inf)
        scores, order = jax.lax.top_k(jnp.concatenate([now.scores, scores], axis=1), k)
        finished = picked(jnp.concatenate([now.finished, sequences], axis=1), order)
        on, order = jax.lax.top_k(jnp.where(ends, -jnp.inf, sums), k)
        moved = picked(parents, order)
        cache = jax.tree.map(lambda leaf: picked(leaf.reshape(b, k, *leaf.shape[1:]), moved).reshape(leaf.shape), cache)
        count = now.ended + done.sum(axis=1)
        return _Search(now.step + 1, picked(sequences, order), on, finished, scores, count, cache)

    tokens = jnp.full((b, k, most), end, jnp.int32)
    sums = jnp.tile(jnp.where(jnp.arange(k) > 0, -jnp.inf, 0.0), (b, 1))
    none = jnp.full((b, k), -jnp.inf)
    start = _Search(jnp.int32(0), tokens, sums, tokens, none, jnp.zeros(b, jnp.int32), model.empty_cache(b * k, most))
    found = jax.lax.while_loop(lambda now: (now.step < most) & jnp.any(now.ended < k), step, start)
    cut = jnp.where((found.ended < k)[:, None], found.sums / found.step.astype(jnp.float32) ** penalty, -jnp.inf)
    scores = jnp.concatenate([found.scores, cut], axis=1)
    best = jnp.argmax(scores, axis=1)[:, None]
    sequences = jnp.concatenate([found.finished, found.live], axis=1)
    return Translations(picked(sequences, best)[:, 0], picked(scores, best)[:, 0])
