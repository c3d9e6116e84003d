"""The registry of search-space families, and how settings become a space."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from search_spaces.bounds import check_sizes
from search_spaces.errors import UserError, did_you_mean
from search_spaces.registry import Registry
from search_spaces.space import SearchSpace
from search_spaces.typed_settings import typed

FAMILIES: Registry[type[SearchSpace]] = Registry("space family", "search_spaces")


def build_space(family: str, preset: str | None = None, settings: Mapping[str, Any] | None = None) -> SearchSpace:
    """Builds the space of a family from a preset and overriding settings.

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
    kinds = typing.get_type_hints(cls)
    for name, value in (settings or {}).items():
        if name not in fields:
            raise UserError(f"space.{name}: no setting of family {family}.{did_you_mean(name, fields)}")
        values[name] = typed(f"space.{name}", value, kinds[name])
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        presets = f", or choose a preset: {', '.join(sorted(cls.presets))}" if cls.presets else ""
        raise UserError(f"space.{missing[0]}: missing. Set it{presets}.")
    check_sizes(values)
    return cls(**values)
