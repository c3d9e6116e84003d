"""Keys of fresh weights are those that Flax draws, in traced functions too."""

import jax
import numpy as np
from flax import nnx

from supernet.engine.randomness import FreshWeights


def drawn(rngs: nnx.Rngs) -> jax.Array:
    keys = [rngs.params(), rngs(), rngs.params(), rngs.fork().params(), rngs.dropout()]
    return jax.numpy.stack([jax.random.key_data(key) for key in keys])


def test_keys_are_those_of_flax() -> None:
    for seed in (0, 7, jax.random.key(3)):
        np.testing.assert_array_equal(drawn(FreshWeights(seed)), drawn(nnx.Rngs(seed)))
        np.testing.assert_array_equal(jax.jit(lambda seed=seed: drawn(FreshWeights(seed)))(), drawn(nnx.Rngs(seed)))


def test_weights_are_those_of_flax() -> None:
    built = [nnx.Linear(3, 5, rngs=rngs) for rngs in (FreshWeights(2), nnx.Rngs(2))]
    one, other = (nnx.to_pure_dict(nnx.state(module)) for module in built)
    jax.tree.map(np.testing.assert_array_equal, one, other)
