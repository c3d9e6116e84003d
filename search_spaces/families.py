"""The registry of search-space families, and how settings become a space."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from search_spaces.bounds import check_sizes
from search_spaces.errors import UserError, did_you_mean
from search_spaces.registry import Registry
from search_spaces.space import SearchSpace

# Word in a field's annotation: the types that YAML may give, what to call them, and how the field holds them.
_KINDS = {
    "str": (str, "a name", str),
    "bool": (bool, "true or false", bool),
    "float": (int | float, "a number", float),
    "int": (int, "a whole number", int),
}

FAMILIES: Registry[type[SearchSpace]] = Registry("space family", "search_spaces")


def build_space(family: str, preset: str | None = None, settings: Mapping[str, Any] | None = None) -> SearchSpace:
    """The space that a family, one of its presets and overriding settings name.

    Args:
        family: A registered family.
        preset: Name of one of the family's presets, or None.
        settings: Fields of the family that override the preset; lists and tuples alike.

    Raises:
        UserError: An unknown family, preset or setting, a setting of the wrong type, or a missing one.
    """
    cls = FAMILIES[family]
    values: dict[str, Any] = {}
    if preset is not None:
        if preset not in cls.presets:
            raise UserError(f"space.preset: {preset!r} is no preset of {family}.{did_you_mean(preset, cls.presets)}")
        values.update(cls.presets[preset])
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name, value in (settings or {}).items():
        if name not in fields:
            raise UserError(f"space.{name}: no setting of family {family}.{did_you_mean(name, fields)}")
        values[name] = _typed(name, value, str(fields[name].type))
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"space.{missing[0]}: missing. Set it, or choose a preset: {', '.join(sorted(cls.presets))}.")
    check_sizes(values)
    return cls(**values)


def _typed(name: str, value: Any, annotation: str) -> Any:
    word = next(w for w in _KINDS if w in annotation)
    if "tuple" not in annotation:
        return _item(name, value, word)
    if not isinstance(value, list | tuple):
        raise UserError(f"space.{name}: {value!r} is not a list. Give the values in brackets.")
    return _items(name, value, word)


def _items(name: str, values: Sequence, word: str) -> tuple:
    return tuple(_items(name, v, word) if isinstance(v, list | tuple) else _item(name, v, word) for v in values)


def _item(name: str, value: Any, word: str) -> Any:
    kind, wanted, convert = _KINDS[word]
    if not isinstance(value, kind) or (isinstance(value, bool) and word != "bool"):
        raise UserError(f"space.{name}: {value!r} is not {wanted}. Give one that is.")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"space.{name}: {value!r} is not finite. Give a number.")
    return convert(value)
