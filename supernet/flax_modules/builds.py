"""Builds: a user's Flax module at any sizes of its arguments, as shapes alone, and what its variables are."""

import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import flax
import jax
from flax import nnx

from search_spaces import UserError
from search_spaces.choice import Value

LIBRARIES = tuple(str(Path(inspect.getfile(module)).parent) for module in (jax, flax))
Shapes = dict[str, tuple[int, ...]]
KINDS = {"weights": nnx.Param, "statistics": nnx.BatchStat}


class Builds:
    """Shapes of a module for values of its arguments; each is built once.

    Args:
        module: The class; its constructor takes `rngs`.
        fixed: Arguments that do not vary.
    """

    def __init__(self, module: type[nnx.Module], fixed: Mapping[str, Any]) -> None:
        self.module, self.fixed = module, dict(fixed)
        self._at = cache(lambda items: self.shaped(lambda: self.plain(dict(items), nnx.Rngs(0)), dict(items)))

    def plain(self, values: Mapping[str, Value], rngs: nnx.Rngs) -> Any:
        """Returns the module with fresh weights."""
        module: Any = self.module
        return module(**self.fixed, **values, rngs=rngs)

    def at(self, values: Mapping[str, Value]) -> Any:
        """Returns the module with shapes in place of arrays. It is shared: copy it before you change it.

        Raises:
            UserError: The module cannot be built.
        """
        return self._at(tuple(sorted(values.items())))

    def shaped(self, build: Callable[[], Any], values: Mapping[str, Value]) -> Any:
        """Returns what `build` makes, with shapes in place of arrays."""
        with self.named(f"{self.module.__name__}({text(values)})"):
            return nnx.eval_shape(build)

    @contextmanager
    def named(self, doing: str) -> Iterator[None]:
        """Turns what the user's code raises into one line that names its place."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            said = (str(error).splitlines() or [""])[0][:300]
            raise UserError(
                f"space.family: {doing} raised {type(error).__name__}: {said} ({_place(error)}). Mend the module."
            ) from error

    def leaves(self, values: Mapping[str, Value], kind: str = "weights") -> Shapes:
        """Returns the shape of each weight, or batch statistic, by path."""
        state = nnx.state(self.at(values), KINDS[kind])
        return {joined(path): leaf.shape for path, leaf in nnx.to_flat_state(state)}

    def check_variables(self, values: Mapping[str, Value]) -> None:
        """Refuses variables that no subnet could share.

        Raises:
            UserError: Random states, caches, or batch statistics of another module than `nnx.BatchNorm`.
        """
        module = self.at(values)
        for path, variable in nnx.to_flat_state(nnx.state(module)):
            name = joined(path)
            if isinstance(variable, nnx.RngState):
                raise UserError(
                    f"space.family: {self.module.__name__}: {name} is a state of random numbers, which a supernet's "
                    "pass does not draw. Leave Dropout out, and keep no `rngs`."
                )
            if isinstance(variable, nnx.BatchStat) and not isinstance(owner(module, path), nnx.BatchNorm):
                raise UserError(
                    f"space.family: {self.module.__name__}: {name} is a batch statistic of another module than "
                    "nnx.BatchNorm, which alone can be calibrated. Use nnx.BatchNorm."
                )
            if not isinstance(variable, nnx.Param | nnx.BatchStat):
                raise UserError(
                    f"space.family: {self.module.__name__}: {name} is a {type(variable).__name__}. Only nnx.Param and "
                    "nnx.BatchNorm's statistics can be shared."
                )


def owner(module: Any, path: Sequence[Any]) -> Any:
    """Returns the module that holds a variable."""
    for name in path[:-1]:
        module = getattr(module, name) if isinstance(name, str) and hasattr(module, name) else module[name]
    return module


def joined(path: Iterable[Any]) -> str:
    """Joins a path with slashes."""
    return "/".join(map(str, path))


def text(values: Mapping[str, Value]) -> str:
    """Values as arguments."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _place(error: Exception) -> str:
    """The innermost place of an error that is no library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES)]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else "in a library"
