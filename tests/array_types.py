"""The type checker of the import hook: it checks the parameters and results that are arrays, and no others.

Other parameters may be whatever a user wrote; the functions themselves refuse them with a line that tests read.
"""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a function so that its array annotations are checked when it is called."""
    arrays = {name: hint for name, hint in function.__annotations__.items() if "jaxtyping" in repr(hint)}
    if not arrays:
        return function
    function.__annotations__ = arrays
    return beartype(function)
