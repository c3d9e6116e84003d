"""Array annotations, checked when a function of the typed packages is called.

Other parameters may be whatever a user wrote; the functions themselves refuse them with a line that tests read.
Functions without arrays are left as they are: jaxtyping's import hook would wrap each of them, which took a tenth
of the time of the tests.
"""

from collections.abc import Callable, Sequence
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import beartype

_jaxtyped = jaxtyping.jaxtyped


def install(packages: Sequence[str]) -> None:
    """Checks array annotations of packages that are imported from now on."""
    jaxtyping.jaxtyped = _checked  # what the hook writes before each function and class
    jaxtyping.install_import_hook(packages, f"{__name__}.{check.__name__}")


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a function so that its array annotations are checked, and no others."""
    function.__annotations__ = _arrays(function)
    return beartype(function)


def _arrays(annotated: Any) -> dict[str, Any]:
    hints = getattr(annotated, "__annotations__", {})
    return {name: hint for name, hint in hints.items() if "jaxtyping" in repr(hint)}


def _checked(annotated: Any = None, **options: Any) -> Any:
    if annotated is None:
        return partial(_checked, **options)
    if not _arrays(annotated):
        return annotated
    if not isinstance(annotated, FunctionType):
        return _jaxtyped(annotated, **options)
    # Parameters and result are checked in one call of the function, where jaxtyping's own way makes three.
    code, scope, name = annotated.__code__, annotated.__globals__, annotated.__name__
    again = FunctionType(code, scope, name, annotated.__defaults__, annotated.__closure__)
    again.__kwdefaults__ = annotated.__kwdefaults__
    again.__annotations__, again.__qualname__ = dict(annotated.__annotations__), annotated.__qualname__
    again.__module__ = annotated.__module__
    return update_wrapper(_jaxtyped(check(again), typechecker=None), annotated)
