"""Records as the values that JSON holds, and back."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from search_spaces.sealed_json import JsonObject as JsonObject

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def plain(record: "DataclassInstance", flat: Collection[str] = ()) -> dict[str, Any]:
    """Returns a record's fields by name, without those that are None.

    Args:
        record: A record of values that JSON holds, mappings of them, and records.
        flat: Fields that hold mappings, whose entries stand among the fields.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name in flat:
            found.update(value)
        elif value is not None:
            found[field.name] = (
                plain(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
            )
    return found


def under_prefix(content: JsonObject, prefix: str) -> dict[str, Any]:
    """Returns the entries whose key begins with a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}


def with_prefix(figures: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Returns figures with a prefix before each name."""
    return {f"{prefix}{name}": value for name, value in figures.items()}
