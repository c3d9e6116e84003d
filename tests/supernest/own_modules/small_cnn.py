from flax import nnx

import supernest as sn


class Block(nnx.Module):
    def __init__(self, width, hidden, *, rngs):
        self.expand = nnx.Conv(width, hidden, (1, 1), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(hidden, rngs=rngs)
        self.mix = nnx.Conv(hidden, width, (3, 3), rngs=rngs)

    def __call__(self, x):
        return x + self.mix(nnx.relu(self.norm(self.expand(x))))


class SmallCNN(nnx.Module):
    def __init__(self, channels, width, depth, hidden, classes, *, rngs):
        stem = nnx.Conv(channels, width, (3, 3), strides=2, rngs=rngs)
        self.stem = nnx.Sequential(stem, nnx.BatchNorm(width, rngs=rngs), nnx.relu)
        self.blocks = nnx.Sequential(*[Block(width, hidden, rngs=rngs) for _ in range(depth)])
        self.head = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.blocks(self.stem(x)).mean(axis=(1, 2)))


sn.elastic(SmallCNN, width=[4, 8], depth=[1, 2], hidden=[8, 16])
