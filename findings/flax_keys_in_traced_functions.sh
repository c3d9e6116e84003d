#!/usr/bin/env bash
# Shapes of a Flax NNX module, `nnx.eval_shape(lambda: Module(rngs=nnx.Rngs(0)))`, take time that grows with the square of its
# layers. Each key that `nnx.Rngs` gives adds 1 to a `Variable`, whose setter compares `getattr(value, "sharding", None)` of old
# and new value. A traced array has none, and JAX words the AttributeError that getattr drops: it prints the whole program
# traced so far, once for each key. The same happens where a module is built under `jax.jit`. A good engineer expects that
# shapes without values cost next to nothing, and a default in getattr to be free.
#
# Seen with: flax 0.12.8, jax 0.10.2, Python 3.11, Linux.
#   nnx.Rngs counts in an array: 160 errors worded for 40 layers
#   a stream that counts in a number: 0
# Ends with 0 where this is (still) so, and with 1 where it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/keys.py" <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
from flax import nnx
from jax._src.interpreters import partial_eval

LAYERS = 40
worded = 0
origin = partial_eval.DynamicJaxprTracer._origin_msg


def counted(tracer):
    global worded
    worded += 1
    return origin(tracer)


partial_eval.DynamicJaxprTracer._origin_msg = counted


class Numbered(nnx.RngStream):
    def __init__(self, key, *, tag):
        super().__init__(key, tag=tag)
        self.drawn = 0

    def __call__(self):
        self.drawn += 1
        return jax.random.fold_in(self.key[...], jnp.uint32(self.drawn - 1))


class Keys(nnx.Rngs):
    def __init__(self, seed):
        super().__init__(seed)
        self.default = Numbered(self.default.key[...], tag="default")


found = []
for keys in (nnx.Rngs, Keys):
    worded = 0
    nnx.eval_shape(lambda keys=keys: nnx.List([nnx.Linear(2, 2, rngs=rngs) for rngs in [keys(0)] for _ in range(LAYERS)]))
    found.append(worded)
print(f"nnx.Rngs counts in an array: {found[0]} errors worded for {LAYERS} layers")
print(f"a stream that counts in a number: {found[1]}")
sys.exit(0 if found[0] >= LAYERS and not found[1] else 1)
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check flax==0.12.8 jax==0.10.2
JAX_PLATFORMS=cpu "$work/venv/bin/python" "$work/keys.py"
