#!/usr/bin/env bash
# Importing litert-torch turns JAX's 64-bit mode on for the whole process (`jax.config.update("jax_enable_x64", True)` at the top of
# litert_torch/backend/jax_bridge/_wrap.py), and nothing turns it off again. A program that trains in JAX and converts a PyTorch
# module then uses float64 wherever a NumPy array or a Python number decides the type, and compiles everything again. Expected: an
# import changes no setting of another library.
#
# Seen with: litert-torch 0.10.0, jax 0.10.2, torch 2.13.0, Python 3.11, Linux.
#   before False, after the import True: jnp.ones(3) is float32, then float64
# Exit code 0: the behaviour is unchanged. Exit code 1: it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check litert-torch==0.10.0 torch==2.13.0 jax==0.10.2
"$work/venv/bin/python" - <<'PYTHON' 2>/dev/null
import sys

import jax
import jax.numpy as jnp

before, ones = jax.config.jax_enable_x64, jnp.ones(3).dtype
import litert_torch  # noqa: E402, F401

after = jax.config.jax_enable_x64
print(f"before {before}, after the import {after}: jnp.ones(3) is {ones}, then {jnp.ones(3).dtype}")
sys.exit(not (after and not before))
PYTHON
