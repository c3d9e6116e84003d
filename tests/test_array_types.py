"""Array annotations of the typed packages: there where arrays cross a seam, and checked in every test."""

import ast
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation

from search import breeding
from tests.conftest import REPOSITORY, TYPED_PACKAGES

BARE = {"jax.Array", "np.ndarray", "jnp.ndarray", "Array", "ArrayLike", "NDArray"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def test_an_array_of_another_type_or_rank_is_refused() -> None:
    rng = np.random.default_rng(0)
    assert breeding.pick(rng, np.eye(3, dtype=bool)).tolist() == [0, 1, 2]
    for wrong in (np.eye(3), np.ones(3, bool)):
        with pytest.raises(BeartypeCallHintViolation):
            breeding.pick(rng, wrong)


@pytest.mark.parametrize("package", TYPED_PACKAGES)
def test_arrays_of_public_names_say_their_type_and_shape(package: str) -> None:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    modules = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    bare = [
        f"{file.relative_to(REPOSITORY)}:{annotation.lineno}: {name}: {ast.unparse(annotation)}"
        for file, module in modules.items()
        for name, annotation in public_annotations(module)
        if not is_shaped(annotation)
    ]
    assert modules
    assert not bare, "\n".join(["arrays without a shape; write Float[Array, 'b h w c'] or the like:", *bare])


def test_the_annotations_that_are_looked_at() -> None:
    source = """
Vector = np.ndarray
_Private = np.ndarray
class Layer:
    scale: jax.Array
    def __call__(self, x: Float[Array, "b c"], *rest: Array) -> list[np.ndarray]: ...
    def _inner(self, x: jax.Array): ...
def run(x: Float[Array | np.ndarray, " c"], move: Callable[[jax.Array], int] | None = None): ...
"""
    found = {name for name, annotation in public_annotations(ast.parse(source)) if not is_shaped(annotation)}
    assert found == {"Vector", "Layer.scale", "Layer.__call__.rest", "Layer.__call__.return", "run.move"}


def public_annotations(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.expr]]:
    """Yields the names and types of aliases, fields, parameters and results of public names."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef(name=name) if is_public(name):
                yield from public_annotations(node, f"{prefix}{name}.")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if is_public(name):
                yield from ((f"{prefix}{name}.{part}", annotation) for part, annotation in signature(node))
            case ast.AnnAssign(target=ast.Name(id=name)) if is_public(name):
                yield prefix + name, node.annotation
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Attribute() | ast.Subscript() | ast.BinOp()):
                if is_public(name):
                    yield prefix + name, node.value


def signature(function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Yields parameters with their types, and the type of the result as `return`."""
    given = function.args
    parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    yield from ((each.arg, each.annotation) for each in parameters if each is not None and each.annotation is not None)
    if function.returns is not None:
        yield "return", function.returns


def is_public(name: str) -> bool:
    """Tells whether a name is public."""
    return not name.startswith("_") or name in ("__init__", "__call__")


def is_shaped(annotation: ast.AST) -> bool:
    """Tells whether arrays stand in an annotation inside types of jaxtyping alone."""
    if isinstance(annotation, ast.Subscript) and hasattr(jaxtyping, ast.unparse(annotation.value)):
        return True
    named = isinstance(annotation, ast.Name | ast.Attribute) and ast.unparse(annotation) in BARE
    return not named and all(map(is_shaped, ast.iter_child_nodes(annotation)))
