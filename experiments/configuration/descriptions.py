"""Descriptions of settings: what the docstring of a class says about each of its fields."""

import inspect
import re

_SECTION = re.compile(r"^(?:Args|Attributes):$")
_ENTRY = re.compile(r"^ {4}(\w+): (.*)$")


def descriptions(cls: type) -> dict[str, str]:
    """Returns field to description, on one line each, from the docstrings of a class and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found.update(_entries(vars(base).get("__doc__") or ""))
    return found


def summary(cls: type) -> str:
    """Returns the first paragraph of a class's docstring, on one line."""
    return " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split())


def _entries(docstring: str) -> dict[str, str]:
    """Returns the entries of the sections `Args` and `Attributes` of a docstring in Google's form."""
    found: dict[str, str] = {}
    name, inside = "", False
    for line in inspect.cleandoc(docstring).splitlines():
        if line and not line.startswith(" "):
            inside = _SECTION.match(line) is not None
        elif inside and (entry := _ENTRY.match(line)):
            name = entry[1]
            found[name] = entry[2].strip()
        elif inside and line.strip():
            found[name] += f" {line.strip()}"
    return found
