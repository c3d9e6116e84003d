from math import prod

from flax import nnx

import supernest as sn


class Block(nnx.Module):
    def __init__(self, width, hidden, *, rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.up, self.down = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.gelu(self.up(self.norm(x))))


class ResidualMLP(nnx.Module):
    def __init__(self, input_shape, width, depth, hidden, classes, *, rngs):
        self.embed = nnx.Linear(prod(input_shape), width, rngs=rngs)
        self.layers = nnx.List([Block(width, hidden, rngs=rngs) for _ in range(depth)])
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x):
        x = self.embed(x.reshape(x.shape[0], -1))
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


sn.elastic(ResidualMLP, width=[16, 32], depth=[1, 2, 3], hidden=[16, 32])
