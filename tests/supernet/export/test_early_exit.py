"""Early exit: tokens and layers of a textbook loop without a cache, and the network of a model's first layers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError
from supernet.export.early_exit import generate_early
from supernet.export.generate import generate
from supernet.standalone.language import LanguageModel
from tests.supernet.export.test_speculative import FORM, model

PROMPT, COUNT, EXITS = jnp.array([3, 1, 4], jnp.int32), 9, (1, 2)


def textbook(target: LanguageModel, confidence: float) -> tuple[list[int], list[int]]:
    """Greedy tokens and their layers; the stream before each layer is kept for every token, and nothing else is."""
    depth, length = len(target.layers), len(PROMPT) + COUNT
    tokens, written, layers = PROMPT.tolist(), [], []
    streams = np.zeros((depth, length, 8), np.float32)
    for place in range(length - 1):
        now = target.embed(jnp.array([tokens[place : place + 1]]), jnp.array([place]))[0, 0]
        exits = (*(EXITS if place >= len(PROMPT) else ()), depth)
        left, logits = None, now  # replaced at the last layer at the latest
        for number, layer in enumerate(target.layers):
            streams[number, place] = now
            if left is None:
                now = layer(jnp.asarray(streams[number, None]), jnp.arange(length), None)[0][0, place]
            if left is None and number + 1 in exits:
                logits = target.predict(now[None, None])[0, 0]
                sure = jax.nn.softmax(logits).max() >= confidence
                left = number + 1 if sure or number + 1 == depth else None
        if place >= len(PROMPT) - 1:
            tokens.append(int(logits.argmax()))
            written.append(tokens[-1])
            layers.append(left)
    return written, layers


@pytest.mark.parametrize("form", [{}, {"positions": "learned", "norm": "layer", "post_norm": True}])
def test_tokens_and_layers_are_those_of_a_loop_without_a_cache(form: dict[str, Any]) -> None:
    target = model(2, layers=4, **form)
    seen = set()
    for confidence in (0.01, 0.6, 1.0):
        found = generate_early(target, PROMPT, COUNT, EXITS, confidence)
        tokens, layers = textbook(target, confidence)
        assert found.tokens.tolist() == tokens
        assert found.layers.tolist() == layers
        seen.update(layers)
    assert seen >= {1, 4}
    np.testing.assert_array_equal(found.tokens, generate(target, PROMPT[None], COUNT)[0])  # of confidence 1


def test_drawn_tokens_follow_the_key() -> None:
    target = model(2, layers=4)
    drawn = [
        generate_early(target, PROMPT, COUNT, EXITS, 0.6, 2.0, jax.random.key(seed)).tokens.tolist()
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_first_layers_are_a_network_of_the_same_weights() -> None:
    target = model(2, layers=4)
    shallow = target.first(2)
    assert (len(shallow.layers), len(target.layers)) == (2, 4)
    sizes = {"width": 8, "kv_heads": [1] * 2, "queries": [2] * 2, "mlp_width": [8] * 2}
    built = LanguageModel(**sizes, form=FORM, rngs=nnx.Rngs(0))
    nnx.update(built, nnx.state(shallow))
    np.testing.assert_array_equal(shallow(PROMPT[None]), built(PROMPT[None]))
    streamed = target.embed(PROMPT[None], jnp.arange(3))
    for layer in list(target.layers)[:2]:
        streamed, _ = layer(streamed, jnp.arange(3), None)
    np.testing.assert_allclose(shallow(PROMPT[None]), target.predict(streamed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("exits", "confidence", "expected"),
    [
        ((), 0.5, r"exits after \[\] layers of 2. Give ascending numbers from 1 to 1"),
        ((2,), 0.5, r"exits after \[2\] layers of 2"),
        ((0, 1), 0.5, r"exits after \[0, 1\] layers of 2"),
        ((1,), 0.0, r"confidence 0.0. Give a probability above 0"),
        ((1,), 1.5, r"confidence 1.5"),
    ],
)
def test_what_cannot_be_is_refused(exits: tuple[int, ...], confidence: float, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        generate_early(model(1), PROMPT, COUNT, exits, confidence)
