"""Mixer with Bayesian layers: from the tokens of a network to one number, other weights drawn for every pass.

References:
    Dong, Li, Tang, Liu, Wei, Wang, Chu. ParZC: Parametric Zero-Cost Proxies for Efficient NAS. AAAI 2025,
    arXiv:2402.02105.
    Tolstikhin, Houlsby, Kolesnikov, Beyer, Zhai, Unterthiner, Yung, Steiner, Keysers, Uszkoreit, Lucic, Dosovitskiy.
    MLP-Mixer: An all-MLP Architecture for Vision. NeurIPS 2021, arXiv:2105.01601.
    Differs from ParZC's code: blocks mix tokens as MLP-Mixer does (there both layers work on channels), and a token is
    a proxy, with an embedding of its own (there 16 tokens are cut from one projection of all values).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from supernet.engine.randomness import FreshWeights

_FIRST_RHO = -5.0


class BayesianLinear(nnx.Module):
    """A linear layer without bias, whose weights are independent normal variables: mean + softplus(rho) × noise.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        rngs: Keys of the first means; the first deviation of all is softplus(-5) = 0.0067.
    """

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs) -> None:
        self.mean = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (inputs, outputs)))
        self.rho = nnx.Param(jnp.full((inputs, outputs), _FIRST_RHO))

    def __call__(self, x: Float[Array, "*b i"], key: Key[Array, ""]) -> Float[Array, "*b o"]:
        """Outputs for weights that are drawn once for the whole batch."""
        mean = self.mean[...]
        return x @ (mean + self.deviation * jax.random.normal(key, mean.shape))

    @property
    def deviation(self) -> Float[Array, "i o"]:
        """Standard deviation of each weight."""
        return jax.nn.softplus(self.rho[...])

    def moments(self, x: Float[Array, "*b i"]) -> tuple[Float[Array, "*b o"], Float[Array, "*b o"]]:
        """Returns the mean and variance of the outputs over all weights, in closed form."""
        return x @ self.mean[...], x**2 @ self.deviation**2


class _FeedForward(nnx.Module):
    """Two layers on the last axis, GELU between them."""

    def __init__(self, width: int, hidden: int, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(width, hidden, rngs=rngs)
        self.down = nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x: Float[Array, "*b w"]) -> Float[Array, "*b w"]:
        return self.down(nnx.gelu(self.up(x)))


class _Block(nnx.Module):
    """Mixes tokens, then channels, each added to what comes in."""

    def __init__(self, tokens: int, width: int, expansion: int, rngs: nnx.Rngs) -> None:
        self.before_tokens = nnx.LayerNorm(width, rngs=rngs)
        self.of_tokens = _FeedForward(tokens, expansion * tokens, rngs)
        self.before_channels = nnx.LayerNorm(width, rngs=rngs)
        self.of_channels = _FeedForward(width, expansion * width, rngs)

    def __call__(self, x: Float[Array, "a t d"]) -> Float[Array, "a t d"]:
        x = x + self.of_tokens(self.before_tokens(x).mT).mT
        return x + self.of_channels(self.before_channels(x))


class Mixer(nnx.Module):
    """Scores networks by their tokens.

    Args:
        tokens: Number of tokens of a network.
        values: Number of values of a token.
        width: Channels of a token.
        depth: Number of blocks.
        expansion: Hidden units of a block for each token and for each channel.
        rngs: Keys of the first weights.
    """

    def __init__(self, tokens: int, values: int, width: int, depth: int, expansion: int, rngs: FreshWeights) -> None:
        kernel = nnx.initializers.variance_scaling(1.0, "fan_in", "normal", batch_axis=0)
        self.kernel = nnx.Param(kernel(rngs.params(), (tokens, values, width)))
        self.bias = nnx.Param(nnx.initializers.normal(1.0)(rngs.params(), (tokens, width)))
        self.embedding = BayesianLinear(width, width, rngs)
        self.blocks = nnx.List([_Block(tokens, width, expansion, rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = BayesianLinear(width, 1, rngs)

    def features(self, x: Float[Array, "a t v"], key: Key[Array, ""]) -> Float[Array, "a d"]:
        """Returns the input of the head, for weights of the embedding that are drawn once."""
        x = jnp.einsum("atv,tvd->atd", x, self.kernel[...]) + self.bias[...]
        x = self.embedding(x, key)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean(axis=1)

    def __call__(self, x: Float[Array, "a t v"], key: Key[Array, ""]) -> Float[Array, " a"]:
        """Scores for weights that are drawn once; larger is better."""
        embedding, head = jax.random.split(key)
        return self.head(self.features(x, embedding), head)[:, 0]

    def moments(self, x: Float[Array, "a t v"], key: Key[Array, ""]) -> tuple[Float[Array, " a"], Float[Array, " a"]]:
        """Returns the mean and variance of the scores over the head's weights, for one draw of the embedding's."""
        mean, variance = self.head.moments(self.features(x, key))
        return mean[:, 0], variance[:, 0]
