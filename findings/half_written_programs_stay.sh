#!/usr/bin/env bash
# JAX writes an entry of its persistent compilation cache under its final name, without a temporary file. A process that is
# killed meanwhile leaves the first part of it, and other processes can read such a part while it is written. Each that reads it
# warns and compiles the program again, but none replaces the entry: the cache looks whether the file is there before it writes.
# So one kill makes a program slow, and its users warned, for as long as the cache exists.
# Expected: an entry that cannot be read is written again, or a part never has the name of an entry.
#
# Seen with: jax 0.10.2, jaxlib 0.10.2, Python 3.11, Linux x86-64.
#   whole: 0 warnings; cut: 1 warning (zlib.error, incomplete or truncated stream); once more: 1 warning; the entry stays cut
# Exit code 0: the behaviour is unchanged. Exit code 1: it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat > "$work/compile.py" <<'PYTHON'
import os
import sys
import warnings

os.environ.update(JAX_PLATFORMS="cpu", JAX_COMPILATION_CACHE_DIR=sys.argv[1], JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
import jax
import numpy as np

with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    assert np.allclose(jax.jit(lambda x: x @ x + 1)(np.eye(9, dtype=np.float32)), np.eye(9) + 1)
print(sum("Error reading persistent compilation cache entry" in str(one.message) for one in told))
PYTHON
python="$work/venv/bin/python"
"$python" "$work/compile.py" "$work/cache" > /dev/null
whole=$("$python" "$work/compile.py" "$work/cache")
entry=$(ls "$work"/cache/*-cache)
truncate --size=-100 "$entry" # as a kill in the middle of writing leaves it
size=$(stat --format=%s "$entry")
cut=$("$python" "$work/compile.py" "$work/cache")
again=$("$python" "$work/compile.py" "$work/cache")
echo "warnings: whole $whole, cut $cut, once more $again; bytes of the cut entry: $size, afterwards $(stat --format=%s "$entry")"
[ "$whole $cut $again $size" = "0 1 1 $(stat --format=%s "$entry")" ]
