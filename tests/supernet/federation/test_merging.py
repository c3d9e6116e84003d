"""Merging: weights that sum to one, dilated updates, and means over the owners of each entry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from supernet.federation.compression import fresh_filters
from supernet.federation.merging import Returned, coefficients, fresh_logits, merged, merged_by_owner
from supernet.federation.shapes import WeightShapes

FULL = {"layers/w": WeightShapes((2, 3), (2, 3), layered=True), "b": WeightShapes((4,), (4,), layered=False)}
SMALL = {"layers/w": WeightShapes((2, 3), (1, 2), layered=True), "b": WeightShapes((4,), (3,), layered=False)}
SERVER = {"layers/w": jnp.arange(6.0).reshape(2, 3), "b": jnp.arange(4.0)}


def returned(shapes: dict[str, WeightShapes], seed: int, sent: list[list[bool]]) -> Returned:
    """Weights of some clients of a size, which were sent the first entries of the server's."""
    before = {path: of.sliced(SERVER[path]) for path, of in shapes.items()}
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    weights = {
        path: old + jax.random.normal(k, (len(sent), *old.shape))
        for k, (path, old) in zip(keys, before.items(), strict=True)
    }
    return Returned(weights, before, jnp.array(sent))


def test_merge_weights_sum_to_one_over_the_clients_that_returned_a_layer() -> None:
    logits = [jax.random.normal(jax.random.key(0), (2, 3)), jax.random.normal(jax.random.key(1), (1, 2))]
    owns = [jnp.array([[True, False, False], [True, True, False]]), jnp.array([[True, False]])]
    one, other = coefficients(logits, owns, layers=3)
    assert one.shape == (2, 3)
    assert other.shape == (1, 2)
    total = one.sum(axis=0) + jnp.pad(other, ((0, 0), (0, 1))).sum(axis=0)
    np.testing.assert_allclose(total, [1, 1, 0], atol=1e-6)
    expected = jax.nn.softmax(jnp.array([logits[0][0, 0], logits[0][1, 0], logits[1][0, 0]]))
    np.testing.assert_allclose([one[0, 0], one[1, 0], other[0, 0]], expected, atol=1e-6)
    np.testing.assert_array_equal(one[:, 1:], [[0, 0], [1, 0]])
    gradient = jax.grad(lambda logits: coefficients(logits, owns, 3)[0][0, 0])(logits)
    assert np.isfinite(np.concatenate([g.ravel() for g in gradient])).all()
    assert gradient[0][0, 0] > 0 > gradient[0][1, 0]


def test_fresh_logits_weigh_clients_by_their_examples() -> None:
    logits = fresh_logits(FULL, [30, 10])["b"]
    (shares,) = coefficients([logits], [jnp.ones((2, 1), bool)], layers=1)
    np.testing.assert_allclose(shares[:, 0], [0.75, 0.25], atol=1e-6)


@pytest.mark.parametrize("dilation", ["updates", "weights"])
def test_clients_as_large_as_the_server_are_averaged(dilation: str) -> None:
    back = returned(FULL, 0, [[True, True], [True, True]])
    found = merged(SERVER, [FULL], [{}], [fresh_logits(FULL, [30, 10])], [back], dilation)  # type: ignore[arg-type]
    for path in SERVER:
        expected = 0.75 * back.weights[path][0] + 0.25 * back.weights[path][1]
        np.testing.assert_allclose(found[path], expected, atol=1e-5)
    by_owner = merged_by_owner(SERVER, [FULL], [jnp.array([30.0, 10.0])], [back])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, by_owner)


def test_updates_keep_what_no_client_sent_and_weights_are_dilated_whole() -> None:
    full, small = returned(FULL, 0, [[True, False]]), returned(SMALL, 1, [[True]])
    both = [fresh_filters(FULL), fresh_filters(SMALL)]
    logits = [fresh_logits(FULL, [10]), fresh_logits(SMALL, [10])]
    updates = merged(SERVER, [FULL, SMALL], both, logits, [full, small], "updates")
    # Layer 1 came back from nobody; where the small client has no entry, half of the other's change is left.
    np.testing.assert_array_equal(updates["layers/w"][1], SERVER["layers/w"][1])
    change = full.weights["layers/w"][0, 0] - SERVER["layers/w"][0]
    np.testing.assert_allclose(updates["layers/w"][0, 2], SERVER["layers/w"][0, 2] + change[2] / 2, atol=1e-6)
    weights = merged(SERVER, [FULL, SMALL], both, logits, [full, small], "weights")
    np.testing.assert_array_equal(weights["layers/w"][1], SERVER["layers/w"][1])
    np.testing.assert_allclose(weights["layers/w"][0, 2], full.weights["layers/w"][0, 0, 2] / 2, atol=1e-6)
    np.testing.assert_allclose(weights["b"][:3], updates["b"][:3], atol=1e-6)


def test_entries_are_averaged_over_their_owners_by_examples() -> None:
    full, small = returned(FULL, 0, [[True, False], [False, False]]), returned(SMALL, 1, [[True]])
    counts = [jnp.array([30.0, 1000.0]), jnp.array([10.0])]
    found = merged_by_owner(SERVER, [FULL, SMALL], counts, [full, small])
    one, other = full.weights["b"][0], small.weights["b"][0]
    np.testing.assert_allclose(found["b"][:3], 0.75 * one[:3] + 0.25 * other, atol=1e-6)
    np.testing.assert_allclose(found["b"][3], one[3], atol=1e-6)  # its one owner that was asked
    np.testing.assert_array_equal(found["layers/w"][1], SERVER["layers/w"][1])
