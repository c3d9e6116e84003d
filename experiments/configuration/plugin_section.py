"""Settings that are fields of a dataclass, read strictly from a mapping; and sections that name a plug-in."""

import dataclasses
import json
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    model_serializer,
    model_validator,
)

from experiments.user_input.problems import Location, Problem, ProblemsError, problem_of, refused, show
from search_spaces.errors import UserError
from search_spaces.registry import Registry
from search_spaces.sealed_json import JsonObject

Made = TypeVar("Made")

_LARGEST_WHOLE, _LARGEST = 2**53, 1e30

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def settings_of(
    cls: type, given: Mapping[str, Any], without: Collection[str] = (), partial: bool = False
) -> dict[str, Any]:
    """Checks settings against the fields of a dataclass, by name and by type.

    Args:
        cls: A dataclass.
        given: Setting to value; lists stand for tuples.
        without: Fields that are not settings.
        partial: What is not given is left out of the result: no defaults, and nothing is missing.

    Returns:
        Setting to value, typed as the fields are.

    Raises:
        ProblemsError: An unknown or missing setting, or one of the wrong type.
    """
    hints = typing.get_type_hints(cls)
    names, fields = [], {}
    for field in dataclasses.fields(cls):
        if field.name in without or not field.init:
            continue
        default: Any = None if partial else ...
        if field.default is not dataclasses.MISSING:
            default = field.default
        names.append(field.name)
        options: dict[str, Any] = {"default": default, "alias": field.name}
        if field.default_factory is not dataclasses.MISSING:
            options = {"default_factory": field.default_factory, "alias": field.name}
        # A setting may have the name of one of pydantic's own attributes, so it goes by an alias.
        fields[f"setting_{field.name}"] = (hints[field.name], Field(**options))
    model = create_model(cls.__name__, __config__=STRICT, **fields)
    try:
        # As JSON, where a list is the strict form of a tuple, and a text that of a path.
        values = model.model_validate_json(json.dumps(given))
    except ValidationError as error:
        problems = [problem_of(details, tuple(details["loc"]), names) for details in error.errors()]
        raise ProblemsError(problems) from None
    kept = values.model_fields_set if partial else fields
    for name in given:
        _check_numbers(given[name], (name,))
    return {name: getattr(values, f"setting_{name}") for name in names if f"setting_{name}" in kept}


def _check_numbers(value: Any, location: Location) -> None:
    """Refuses numbers that no array holds: whole ones beyond 64 bits, others beyond float32."""
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_numbers(item, (*location, i))
    elif isinstance(value, int | float) and abs(value) > (_LARGEST_WHOLE if isinstance(value, int) else _LARGEST):
        raise ProblemsError([Problem(location, f"{show(value)} is out of range. Give a number of fewer digits.")])


def build_settings(cls: type[Made], given: Any) -> Made:
    """Returns the dataclass that settings stand for.

    Args:
        cls: A dataclass whose fields are all settings.
        given: A mapping, or an instance that is returned as it is.

    Raises:
        ProblemsError: `settings_of` raises it, or the dataclass refuses a value.
    """
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise ProblemsError([Problem((), f"{show(given)} is not a group of settings. Give settings by name.")])
    values = settings_of(cls, given)
    try:
        return cls(**values)
    except UserError as error:
        raise ProblemsError([refused(error, values)]) from None


def as_mapping(value: Any) -> dict[str, Any]:
    """Returns a dataclass as setting to value."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


class PluginSection(BaseModel):
    """A section that names a plug-in; the plug-in's settings stand beside the section's own.

    A subclass sets `selector` (the key that names the plug-in), `registry`, and `arguments` (fields of the plug-in
    that are not settings).

    Attributes:
        settings: The plug-in's settings, checked by name and type; with their defaults, unless `partial`.
    """

    model_config = STRICT

    selector: ClassVar[str]
    arguments: ClassVar[frozenset[str]] = frozenset()
    partial: ClassVar[bool] = False

    settings: Mapping[str, Any] = Field(default_factory=dict, exclude=True)

    @classmethod
    def registry(cls) -> Registry[type]:
        """Returns the registry of the plug-ins that the section can name."""
        raise NotImplementedError

    @property
    def plugin(self) -> type:
        """The class that the section names."""
        return self.registry()[getattr(self, self.selector)]

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, given: Any, info: ValidationInfo) -> Any:
        if not isinstance(given, Mapping):
            return given
        own = {name: value for name, value in given.items() if name in cls.model_fields and name != "settings"}
        name = own.get(cls.selector, cls.model_fields[cls.selector].default)
        if not isinstance(name, str):
            return own  # missing or of another type, which pydantic says
        try:
            plugin = cls.registry()[name]
        except UserError as error:
            raise ProblemsError([Problem((cls.selector,), str(error).partition(": ")[2])]) from None
        rest = {key: value for key, value in given.items() if key not in own}
        names = {field.name for field in dataclasses.fields(plugin)} | set(cls.model_fields) - {"settings"}
        unknown = [key for key in rest if key not in names - cls.arguments]
        if unknown:
            known = sorted(names - cls.arguments)
            details: Any = {"type": "extra_forbidden", "input": None}
            raise ProblemsError([problem_of(details, (key,), known) for key in unknown])
        settings = settings_of(plugin, rest, cls.arguments, cls.partial)
        return {**own, "settings": cls._located(plugin, settings, (info.context or {}).get("paths_from"))}

    @classmethod
    def _located(cls, plugin: Any, settings: JsonObject, directory: Path | None) -> JsonObject:
        """Returns the settings with paths made absolute; `directory` is what relative ones are relative to."""
        return settings

    @model_serializer(mode="wrap")
    def _flatten(self, handler: Any) -> dict[str, Any]:
        return {**handler(self), **self.settings}
