"""The dense layer of stages, whose weights are cut to one size."""

from typing import Any

import jax


def linear(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Product with a kernel, and a bias where there is one.

    It is computed in the type of x; weights keep theirs, and so do their gradients.
    """
    y = x @ params["kernel"].astype(x.dtype)
    return y + params["bias"].astype(x.dtype) if "bias" in params else y
