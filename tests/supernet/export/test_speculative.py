"""Speculative decoding: the target's own tokens, or tokens of its own distribution, whatever the draft proposes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from search_spaces import UserError
from supernet.export.generate import generate
from supernet.export.speculative import _speculate, left_over, speculate, standing
from supernet.standalone.language import LanguageModel

FORM = {"vocabulary": 5, "context": 40, "head_size": 4, "tied": False}


def model(seed: int, layers: int = 2, **form: Any) -> LanguageModel:
    """A model with random weights that are large enough for tokens to differ."""
    sizes = {"width": 8, "kv_heads": [1] * layers, "queries": [2] * layers, "mlp_width": [8] * layers}
    made = LanguageModel(**sizes, form={**FORM, **form}, rngs=nnx.Rngs(seed))
    graph, state = nnx.split(made)
    return nnx.merge(graph, jax.tree.map(lambda leaf: leaf if leaf.ndim == 1 else leaf / jnp.std(leaf), state))


def like(target: LanguageModel, noise: float) -> LanguageModel:
    """A model whose weights are those of another but for some noise."""
    graph, state = nnx.split(target)
    leaves, tree = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    changed = [leaf + noise * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, changed))


@pytest.mark.parametrize("proposed", [1, 4])
@pytest.mark.parametrize("form", [{}, {"positions": "learned", "norm": "layer", "activation": "gelu"}])
def test_greedy_tokens_are_those_of_the_target_alone(proposed: int, form: dict[str, Any]) -> None:
    target = model(2, **form)
    prompt, count = jnp.array([3, 1], jnp.int32)[: 1 + proposed % 2], 20
    alone = generate(target, prompt[None], count)[0]
    assert len(set(alone.tolist())) > 2
    near = like(target, 0.1)
    for draft in (near, model(7, layers=1, **form)):
        found = speculate(target, draft, prompt, count, proposed)
        np.testing.assert_array_equal(found.tokens, alone)
        assert 0 <= found.accepted <= found.rounds * proposed
        # The first token comes with the prompt; the target's own token of the last round may lie beyond the end.
        assert 1 + found.rounds + found.accepted - count in (0, 1)
    assert speculate(target, near, prompt, count, proposed).rounds < count - 1
    own = speculate(target, target, prompt, count, proposed)
    whole, rest = divmod(count - 1, proposed + 1)
    assert (own.rounds, own.accepted) == (whole + (rest > 0), whole * proposed + rest)


def test_drawn_tokens_are_of_the_targets_distribution() -> None:
    target, prompt, warmth = model(0), jnp.array([1], jnp.int32), 1.5
    draft = like(target, 0.2)
    draws, count, proposed, tokens = 6_000, 4, 2, FORM["vocabulary"]
    split = (*nnx.split(target), *nnx.split(draft))
    keys = jax.random.split(jax.random.key(5), draws)
    one = partial(_speculate, split[0], split[2], proposed, count, True, split[1], split[3], prompt)
    found, _, accepted = jax.vmap(lambda key: one(key, jnp.float32(warmth)))(keys)
    assert 0.2 < np.mean(accepted) / proposed < 1.8  # neither all nor none

    texts = np.stack(np.unravel_index(np.arange(tokens**count), (tokens,) * count), 1)
    whole = np.concatenate([np.full((len(texts), 1), 1), texts], 1)

    def expected(of: LanguageModel) -> np.ndarray:
        """The probability of each text."""
        chosen = jax.nn.log_softmax(of(jnp.asarray(whole[:, :-1], jnp.int32)) / warmth)
        return np.exp(np.take_along_axis(np.asarray(chosen), texts[..., None], 2).sum((1, 2)).astype(float))

    counts = np.bincount(np.ravel_multi_index(np.asarray(found).T, (tokens,) * count), minlength=tokens**count)

    def p_value(probabilities: np.ndarray) -> float:
        """Returns the p-value of the counts; texts that are expected less than five times count as one."""
        rare = draws * probabilities < 5
        seen, wanted = (np.append(x[~rare], x[rare].sum()) for x in (counts, draws * probabilities))
        return float(chisquare(seen, wanted * draws / wanted.sum()).pvalue)

    assert p_value(expected(target)) > 0.001
    assert p_value(expected(draft)) < 1e-9  # what the test tells apart


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_round_leaves_the_targets_probabilities_exactly(seed: int, same: bool) -> None:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(6, 0.5), 3).astype(np.float32), rng.dirichlet(np.ones(6), 2).astype(np.float32)
    q = p[:2] if same else q
    between = (np.arange(4096, dtype=np.float32) + 0.5) / 4096
    stands = np.stack([_shares(p[:2], q, np.full(2, token, np.int32), between) for token in range(6)], axis=1)
    more = np.asarray(left_over(jnp.asarray(p), jnp.asarray(q)), float)
    more /= more.sum(axis=-1, keepdims=True)
    refused = 1 - (q * stands).sum(axis=1)
    np.testing.assert_allclose(q * stands + refused[:, None] * more[:2], p[:2], atol=1e-3)
    np.testing.assert_allclose(more[2], p[2], atol=1e-6)


@jax.jit
def _shares(p: jax.Array, q: jax.Array, tokens: jax.Array, uniform: jax.Array) -> jax.Array:
    """The share of draws that let each token stand."""
    return jax.vmap(lambda one: standing(p, q, tokens, jnp.full(len(tokens), one)))(uniform).mean(axis=0)


@pytest.mark.parametrize(
    ("draft", "wrong", "message"),
    [
        ({"vocabulary": 6}, {}, "the draft knows 6 tokens, and the target 5"),
        ({"context": 9}, {}, "more than the draft takes, 9"),
        ({"causal": False}, {}, "the draft is an encoder"),
        ({}, {"proposed": 0}, "0 proposed tokens"),
        ({}, {"temperature": 1.0}, "needs a seed"),
        ({}, {"temperature": float("nan")}, "temperature nan; it is a number"),
    ],
)
def test_what_cannot_be_is_refused(draft: dict[str, Any], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        speculate(model(0), model(1, **draft), jnp.array([1], jnp.int32), 12, **wrong)
