"""The registry of search-space families, and how settings become a space."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from search_spaces.errors import UserError, did_you_mean
from search_spaces.registry import Registry
from search_spaces.space import SearchSpace

_ITEMS = {
    "str": (str, "a name"),
    "bool": (bool, "true or false"),
    "float": (int | float, "a number"),
    "int": (int, "a whole number"),
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
    return cls(**values)


def _typed(name: str, value: Any, annotation: str) -> Any:
    if "tuple" in annotation:
        if not isinstance(value, list | tuple):
            raise UserError(f"space.{name}: {value!r} is not a list. Give the values in brackets.")
        items = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        _check_items(name, items, annotation)
        return items
    kinds = {"int": int, "float": (int, float), "bool": bool, "str": str}
    kind = next((k for word, k in kinds.items() if word in annotation), object)
    if not isinstance(value, kind) or (isinstance(value, bool) and "bool" not in annotation):
        raise UserError(f"space.{name}: {value!r} is not of type {annotation}. Give one that is.")
    return value


def _check_items(name: str, items: tuple, annotation: str) -> None:
    word = next((w for w in _ITEMS if w in annotation), "int")
    kind, wanted = _ITEMS[word]
    for item in items:
        if isinstance(item, tuple):
            _check_items(name, item, annotation)
        elif not isinstance(item, kind) or (isinstance(item, bool) and word != "bool"):
            raise UserError(f"space.{name}: {item!r} is not {wanted}. Give one that is.")
