#!/usr/bin/env bash
# The time to compute the shapes of a Flax NNX module, `nnx.eval_shape(lambda: Module(rngs=nnx.Rngs(0)))`, grows with the square of
# its number of layers. For each key, `nnx.Rngs` adds 1 to a `Variable`, whose setter compares `getattr(value, "sharding", None)` of
# the old and the new value. A traced array has no such attribute, so JAX formats the message of an AttributeError that getattr
# discards, and this message contains the whole program traced so far. The same happens when a module is built under `jax.jit`.
# Expected: shapes without values cost almost nothing, and a default in getattr is free.
#
# Seen with: flax 0.12.8, jax 0.10.2, Python 3.11, Linux.
#   nnx.Rngs counts in an array: 160 error messages formatted for 40 layers
#   a stream that counts in a Python integer: 0
# Exit code 0: the behaviour is unchanged. Exit code 1: it has changed.
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
print(f"nnx.Rngs counts in an array: {found[0]} error messages formatted for {LAYERS} layers")
print(f"a stream that counts in a Python integer: {found[1]}")
sys.exit(0 if found[0] >= LAYERS and not found[1] else 1)
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check flax==0.12.8 jax==0.10.2
JAX_PLATFORMS=cpu "$work/venv/bin/python" "$work/keys.py"
