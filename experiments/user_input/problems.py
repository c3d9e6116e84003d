"""Problems of a configuration, one line each: key, value, expected value, what to do."""

import re
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.errors import UserError, did_you_mean, one_line
from search_spaces.typed_settings import finding, show

if TYPE_CHECKING:  # answers from a finished run do not wait for it
    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]

_KEY = re.compile(r"[\w.\[\]-]+")
_SHOWN = 5
_LONGEST_KEY = 60


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a configuration.

    Attributes:
        location: Keys and list indices that lead to it.
        text: Value, expected value, and what to do.
    """

    location: Location
    text: str

    @property
    def key(self) -> str:
        """The location as a dotted key, list indices in brackets: `space.width[1]`."""
        text = ""
        for part in self.location:
            if isinstance(part, int):
                text += f"[{part}]"
                continue
            name = part if part.isprintable() and part else ascii(part)[1:-1] or "''"
            name = name if len(name) <= _LONGEST_KEY else f"{name[:_LONGEST_KEY]}..."
            text += f".{name}" if text else name
        return text

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.location else self.text


class ProblemsError(UserError):
    """A configuration, or a part of one, with at least one problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class ConfigError(UserError):
    """A configuration that cannot work; the text has one line for each problem, the first five at most.

    Args:
        problems: Problems of the input.
        source: Place where a problem's key was set: the file, or the command line.
    """

    def __init__(self, problems: Sequence[Problem], source: Callable[[Problem], str]) -> None:
        lines = [f"{source(problem)}: {problem}" for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            lines.append(f"{source(problems[_SHOWN])}: and {len(problems) - _SHOWN} more. Mend these first.")
        ValueError.__init__(self, "\n".join(map(one_line, lines)))
        self.problems = tuple(problems)


def unknown(name: str, known: Iterable[str]) -> Problem:
    """Returns the problem of a name that is none of the known ones."""
    return Problem((), f"{show(name)} is not known.{did_you_mean(name, known)}")


def refused(error: UserError, names: Iterable[str] = ()) -> Problem:
    """Returns the problem that a class found in its own settings; a key before the text becomes the location.

    Args:
        error: Error whose text begins with `key: `, dotted or not, where it is about one setting.
        names: The settings.
    """
    key, separator, text = str(error).partition(": ")
    name = key.rpartition(".")[2].partition("[")[0]
    if separator and _KEY.fullmatch(key) and name in set(names):
        return Problem((name,), text)
    return Problem((), str(error))


def problems_of(error: "ValidationError", model: "type[BaseModel]") -> list[Problem]:
    """Returns what pydantic found wrong, and what the parts' own checks did."""
    problems: list[Problem] = []
    for details in error.errors():
        location = tuple(details["loc"])
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, ProblemsError):
            problems += [Problem(location + inner.location, inner.text) for inner in cause.problems]
        elif isinstance(cause, UserError):
            problems.append(Problem(location, str(cause)))
        else:
            problems.append(problem_of(details, location, _fields_at(model, location[:-1])))
    return problems


def problem_of(details: "ErrorDetails", location: Location, known: Collection[str]) -> Problem:
    """Returns one finding of pydantic in our words.

    Args:
        details: The finding.
        location: Location of the problem.
        known: The settings that there are at that place.
    """
    return Problem(location, finding({**details, "loc": location}, known))


def _fields_at(model: "type[BaseModel]", location: Location) -> list[str]:
    """The settings of the model that `location` leads to."""
    from pydantic import BaseModel

    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        inner = next(iter(typing.get_args(field.annotation)), field.annotation)  # of an optional section, the section
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns a nested mapping as dotted key to value; Flax has the same, but imports JAX, which takes a second."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
