"""Beam search with a cache against a textbook one that computes every prefix anew."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces import UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.translate import translate
from tests.supernet.families import SETTINGS

END, PAD = 1, 0


@pytest.fixture(scope="module", params=[False, True], ids=["pre_norm", "post_norm"])
def model(request):
    settings = {**SETTINGS["translation"], "post_norm": request.param, "vocabulary": 7}
    net = build_supernet(build_space("translation", "small", settings))
    params = jax.tree.map(lambda leaf: leaf * 1.5, net.init(jax.random.key(0)))
    return net.extract(params, net.space.largest)[0]


SOURCE = np.array([[3, 4, 5, END], [6, END, PAD, PAD], [2, 2, END, PAD]], np.int32)


def log_probabilities(model, source, prefix):
    width = max(len(source), len(prefix) + 1)
    x = np.full((1, 2, width), PAD, np.int32)
    x[0, 0, : len(source)], x[0, 1, : len(prefix) + 1] = source, [END, *prefix]
    return np.asarray(jax.nn.log_softmax(model(jnp.asarray(x))[0, len(prefix)]), np.float64)


def textbook(model, source, most, beam, penalty):
    live, finished = [(0.0, ())], []
    for length in range(1, most + 1):
        continued = []
        for total, prefix in live:
            log_p = log_probabilities(model, source, prefix)
            continued += [(total + log_p[token], (*prefix, token)) for token in range(len(log_p))]
        continued = sorted(continued, key=lambda one: -one[0])[: 2 * beam]
        finished += [(total / length**penalty, one) for total, one in continued[:beam] if one[-1] == END]
        live = [one for one in continued if one[1][-1] != END][:beam]
        if len(finished) >= beam:
            break
    else:
        finished += [(total / most**penalty, one) for total, one in live]
    return max(finished, key=lambda one: one[0])


@pytest.mark.parametrize(("beam", "penalty"), [(1, 0.0), (2, 0.6), (3, 1.0)])
def test_beam_search_with_a_cache_is_the_textbook_one(model, beam, penalty):
    most = 5
    found = translate(model, jnp.asarray(SOURCE), END, most, beam, penalty)
    for i, source in enumerate(SOURCE):
        score, tokens = textbook(model, source, most, beam, penalty)
        np.testing.assert_array_equal(found.tokens[i], [*tokens, *[END] * (most - len(tokens))])
        assert float(found.scores[i]) == pytest.approx(score, abs=1e-4)


def test_padding_changes_nothing(model):
    wider = np.pad(SOURCE, ((0, 0), (0, 3)))
    found, again = (translate(model, jnp.asarray(x), END, 4, 2) for x in (SOURCE, wider))
    np.testing.assert_array_equal(found.tokens, again.tokens)
    np.testing.assert_allclose(found.scores, again.scores, atol=1e-5)


def test_what_cannot_be_is_refused(model):
    with pytest.raises(UserError, match="up to 10 tokens, and the model takes 9"):
        translate(model, jnp.asarray(SOURCE), END, 10, 2)
    with pytest.raises(UserError, match="a beam of 0 and up to 4 tokens"):
        translate(model, jnp.asarray(SOURCE), END, 4, 0)
    assert math.isfinite(float(translate(model, jnp.asarray(SOURCE), END, 1, 2).scores[0]))
