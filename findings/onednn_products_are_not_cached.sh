#!/usr/bin/env bash
# XLA's CPU backend contains oneDNN's matrix product (`__onednn$matmul`, called with jax.ffi.ffi_call). A program with this call
# compiles and runs, but cannot be serialised: with a persistent compilation cache JAX warns of `MemoryError: std::bad_alloc` and
# writes no entry, so every process compiles the whole program again. The message is misleading, since there is enough memory.
# Expected: a call that XLA registers itself can be serialised like its own products.
#
# Seen with: jax 0.10.2, jaxlib 0.10.2, Python 3.11, Linux x86-64.
#   a product by XLA: 1 entry, no warning; by oneDNN: 0 entries, MemoryError: std::bad_alloc
# Exit code 0: the behaviour is unchanged. Exit code 1: it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$work/product.py" <<'PYTHON'
import json
import os
import sys
import warnings
from pathlib import Path

cache = Path(sys.argv[1])
os.environ.update(JAX_PLATFORMS="cpu", JAX_COMPILATION_CACHE_DIR=str(cache), JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
import jax
import jax.numpy as jnp
import numpy as np

settings = json.dumps({"onednn_matmul_config": {"transpose_a": False, "transpose_b": False}})


def by_onednn(a, b):
    shape = jax.ShapeDtypeStruct((a.shape[0], b.shape[1]), a.dtype)
    return jax.ffi.ffi_call(
        "__onednn$matmul", shape, custom_call_api_version=1, legacy_backend_config=settings
    )(a, b)


rng = np.random.default_rng(0)
a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((300, 100), (100, 200)))
found = []
for name, product in (("xla", jnp.matmul), ("onednn", by_onednn)):
    before = len(list(cache.glob("*-cache")))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = jax.jit(product)(a, b)
    assert np.allclose(result, a @ b, atol=1e-3)
    messages = [str(one.message).partition(": ")[2] for one in told if "compilation cache" in str(one.message)]
    entries = len(list(cache.glob("*-cache"))) - before
    found.append((entries, messages))
    print(f"{name}: {entries} entries, {messages}")
sys.exit(not (found[0] == (1, []) and found[1][0] == 0 and "bad_alloc" in found[1][1][0]))
PYTHON
mkdir "$work/cache"
"$work/venv/bin/python" "$work/product.py" "$work/cache"
