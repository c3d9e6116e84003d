"""The JSON schema of an experiment file: every section and key, with the settings of every registered plug-in."""

import dataclasses
import types
import typing
from collections.abc import Container, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from experiments.configuration.descriptions import descriptions, summary
from experiments.configuration.experiment_config import SPACES, ExperimentConfig
from experiments.configuration.plugin_section import PluginSection, as_mapping
from experiments.configuration.sealed_section import SealedSection
from experiments.configuration.space_section import SpaceSection
from experiments.devices.device_file import DEVICE_METRICS
from search import Budget
from search_spaces import FAMILIES, LanguageSpace
from search_spaces.cost import Cost
from search_spaces.language import LanguageCost
from supernet.sharing import SHARING

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"


def experiment_schema() -> Schema:
    """Returns the schema, in the draft that editors know; it knows the plug-ins that were imported so far."""
    schema = _model(ExperimentConfig)
    schema["required"].remove("space")
    schema["properties"][SPACES] = _spaces()
    one_or_several = [{"required": ["space"]}, {"required": [SPACES]}]
    return {
        "$schema": DIALECT,
        "title": "Supernest experiment",
        **schema,
        # What was imported brings its space; sizes of it may be left out then, the family too.
        "if": {"required": ["start"]},
        "else": {"anyOf": one_or_several, "properties": {"space": {"required": ["family"]}}},
    }


def _spaces() -> Schema:
    """Returns the schema of a list of spaces."""
    name = {"description": "Name of the space; that of its preset when it is left out.", "type": "string"}
    family = {"description": "Name of a registered family, the same for all.", "enum": list(FAMILIES)}
    return {
        "description": "Spaces of one family in place of `space`, each with its settings and a `name`: a supernet is "
        "trained for each, and each budget gets the best subnet of all (`supernest run`, `check` and `status`).",
        "type": "array",
        "minItems": 1,
        "default": [],
        "items": {"type": "object", "properties": {"name": name, "family": family}},
    }


def _model(cls: type[BaseModel]) -> Schema:
    """Returns the schema of a section without plug-ins."""
    return _object(summary(cls), dict(_own(cls)), [name for name, one in cls.model_fields.items() if one.is_required()])


def _own(cls: type[BaseModel]) -> Iterator[tuple[str, Schema]]:
    """Yields the keys that a section has of its own, and their schemas."""
    texts = descriptions(cls)
    for name, field in cls.model_fields.items():
        if field.exclude:
            continue
        default = {} if field.is_required() else {"default": _plain(field.get_default(call_default_factory=True))}
        yield name, _key(_field(name, field), texts.get(name), default)


def _key(schema: Schema, text: str | None, default: Schema) -> Schema:
    """Returns the schema of a value with what is said of its key; groups of settings have no default of their own."""
    described = {} if text is None else {"description": text}
    is_group = "properties" in schema or "oneOf" in schema
    return {**schema, **described, **({} if is_group else default)}


def _field(name: str, field: FieldInfo) -> Schema:
    """Returns the schema of a key of a section; a few are checked by code of ours, which says no types."""
    if name == "budgets":
        return _budgets()
    if name == "sharing":
        return {"enum": list(SHARING)}
    if typing.get_origin(field.annotation) is dict and (member := _section_of(typing.get_args(field.annotation)[1])):
        return {"type": "object", "minProperties": 1, "additionalProperties": _model(member)}
    kinds = typing.get_args(field.annotation) if isinstance(field.annotation, types.UnionType) else (field.annotation,)
    section = next(filter(None, map(_section_of, kinds)), None)
    if section is not None:
        schema = _plugins(section) if issubclass(section, PluginSection) else _model(section)
        forms = [schema, *([{"type": "string"}] if issubclass(section, SealedSection) else [])]
        forms += [{"type": "null"}] if len(kinds) > 1 else []
        return schema if len(forms) == 1 else {"anyOf": forms}
    items = typing.get_args(field.annotation)[:1]
    if typing.get_origin(field.annotation) is tuple and isinstance(items[0], type) and issubclass(items[0], BaseModel):
        return {"type": "array", "items": _model(items[0])}
    if dataclasses.is_dataclass(field.annotation):
        cls = typing.cast(type, field.annotation)
        return _object(summary(cls), dict(_settings(cls)), _missing(cls))
    return _value(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)


def _section_of(kind: Any) -> type[BaseModel] | None:
    """Returns a type that is a section; None for any other."""
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _value(kind: Any) -> Schema:
    """Returns the schema of a plain type, such as `int | None` or `tuple[float, float]`."""
    return _draft_07(TypeAdapter(kind).json_schema())


def _draft_07(schema: Any) -> Any:
    """Returns pydantic's schema without titles, and with the older word for the items of a tuple."""
    if isinstance(schema, list):
        return [_draft_07(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    renamed = {"items" if key == "prefixItems" else key: _draft_07(value) for key, value in schema.items()}
    return {key: value for key, value in renamed.items() if key != "title"}


def _settings(cls: type, without: Container[str] = ()) -> Iterator[tuple[str, Schema]]:
    """Yields the settings that the fields of a dataclass are, and their schemas."""
    texts, hints = descriptions(cls), typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        if field.init and field.name not in without:
            default = _default(field)
            yield field.name, _key(_value(hints[field.name]), texts.get(field.name), default)


def _default(field: dataclasses.Field[Any]) -> Schema:
    if field.default is not dataclasses.MISSING:
        return {"default": _plain(field.default)}
    return {} if field.default_factory is dataclasses.MISSING else {"default": _plain(field.default_factory())}


def _missing(cls: type) -> list[str]:
    """Returns the fields of a dataclass that have no default."""
    return [field.name for field in dataclasses.fields(cls) if field.init and not _default(field)]


def _plugins(section: type[PluginSection]) -> Schema:
    """Returns the schema of a section that names a plug-in: one form for each plug-in that is registered."""
    selector, own = section.selector, dict(_own(section))
    default = own[selector].get("default")
    registry = section.registry()
    forms = [_form(section, name, own, name != default) for name in registry]
    return {
        "description": summary(section),
        "type": "object",
        "properties": {selector: {**own[selector], "enum": list(registry)}},
        "oneOf": forms,
    }


def _form(section: type[PluginSection], name: str, own: Mapping[str, Schema], named: bool) -> Schema:
    cls = section.registry()[name]
    theirs = dict(_settings(cls, {*section.arguments, *own}))
    required = [] if section.partial else [key for key in _missing(cls) if key in theirs]
    first = {section.selector: {**own[section.selector], "const": name}}
    if issubclass(section, SpaceSection):
        own = {**own, "preset": {**own["preset"], "anyOf": [{"enum": list(cls.presets)}, {"type": "null"}]}}
        named = not issubclass(cls, LanguageSpace)  # what `start` gives is of this family
    return {
        "title": name,
        **_object(summary(cls), {**own, **first, **theirs}, [*([section.selector] if named else []), *required]),
    }


def _object(text: str, properties: Schema, required: list[str]) -> Schema:
    return {
        "description": text,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _budgets() -> Schema:
    texts = {metric: text for cost in (LanguageCost, Cost) for metric, text in descriptions(cost).items()}
    texts |= {"latency_ms": "Milliseconds of a call.", "memory_bytes": "Bytes that the device needs for a call."}
    metrics = dict.fromkeys([*(one for name in FAMILIES for one in FAMILIES[name].metrics), *DEVICE_METRICS])
    forms = [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]
    limits = {metric: {"description": texts.get(metric, metric), "anyOf": forms} for metric in metrics}
    group = {"type": "object", "properties": limits, "minProperties": 1, "additionalProperties": False}
    return {"type": "object", "minProperties": 1, "additionalProperties": {"anyOf": [{"type": "string"}, group]}}


def _plain(value: Any) -> Any:
    """Returns a default as JSON holds it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(one) for name, one in as_mapping(value).items()}
    if isinstance(value, tuple) and value and isinstance(value[0], Budget):
        return {budget.name: str(budget) for budget in value}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
