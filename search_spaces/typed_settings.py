"""Values of settings against the types of dataclass fields: strict, with one line for what is wrong."""

import json
import re
from collections.abc import Collection
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from search_spaces.errors import UserError, did_you_mean

if TYPE_CHECKING:  # answers from a finished run do not wait for it
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

_UNSURE = object()
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_BOUNDS = {
    "greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le",
}  # fmt: skip
_BOUND_WORDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
_WANTED = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text", "tuple": "a list",
    "list": "a list", "dict": "a group of settings", "mapping": "a group of settings",
    "model": "a group of settings", "path": "a path", "none": "null",
}  # fmt: skip


def typed(key: str, value: Any, kind: Any) -> Any:
    """Returns a value as a type holds it: lists become tuples, whole numbers become numbers where these are wanted.

    Args:
        key: Key of the value, for the message.
        value: Value from YAML or JSON; tuples count as lists.
        kind: Type of the setting: any that pydantic knows, such as `tuple[int, ...]` or `Literal["a", "b"]`.

    Raises:
        UserError: The value is not of the type.
    """
    if (found := _exact(value, kind)) is not _UNSURE:
        return found
    from pydantic import ValidationError
    from pydantic.errors import PydanticUserError

    try:
        # As JSON, where a list is the strict form of a tuple.
        return _model(kind).model_validate_json(json.dumps({"value": value}, default=repr)).value  # type: ignore[attr-defined]
    except ValidationError as error:
        raise UserError(f"{key}: {finding(error.errors()[0])}") from None
    except PydanticUserError:
        raise UserError(
            f"{key}: its type {kind} holds what no file can. Annotate the field with numbers, texts, tuples or Literal."
        ) from None


def _exact(value: Any, kind: Any) -> Any:
    """Returns a value that is of a type as it is, for which no library has to be loaded; `_UNSURE` otherwise."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return next((found for found in (_exact(value, one) for one in inner) if found is not _UNSURE), _UNSURE)
    if origin is tuple and inner[1:] == (...,) and isinstance(value, list | tuple):
        items = [_exact(item, inner[0]) for item in value]
        return _UNSURE if any(item is _UNSURE for item in items) else tuple(items)
    exact = type(value) is kind and kind in (int, float, bool, str, NoneType)
    return value if exact and (kind is not float or isfinite(value)) else _UNSURE


@cache
def _model(kind: Any) -> "type[BaseModel]":
    from pydantic import ConfigDict, create_model

    return create_model("Setting", __config__=ConfigDict(strict=True, allow_inf_nan=False), value=(kind, ...))


def show(value: Any) -> str:
    """Returns a value as it is written in YAML, cut where it is long."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def finding(details: "ErrorDetails", known: Collection[str] = ()) -> str:
    """Returns one finding of pydantic in our words: the value, what was expected, and what to do.

    Args:
        details: The finding.
        known: The settings that there are at its place.
    """
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return f"no such setting.{did_you_mean(str(details['loc'][-1]), known)}"
    if kind == "missing":
        return "missing. Set it."
    if kind == "literal_error":
        expected = [word.strip("'") for word in re.findall(r"'[^']*'|[^\s,']+", context["expected"]) if word != "or"]
        return f"{show(value)} is not known.{did_you_mean(str(value), expected)}"
    if kind in _BOUNDS:
        name = _BOUNDS[kind]
        return f"{show(value)} is out of range. Give {_BOUND_WORDS[name]} {_plain(context[name])}."
    if kind == "finite_number":
        return f"{value} is not finite. Give a number."
    if kind == "string_pattern_mismatch":
        return f"{show(value)} does not match {context['pattern']}. Use only such characters."
    if kind in ("too_short", "too_long"):
        expected = context.get("min_length", context.get("max_length"))
        return f"{show(value)} holds {context['actual_length']} values, expected {expected}."
    wanted = _WANTED.get(kind.split("_")[0])
    if wanted is None:
        return f"{show(value)} cannot be used: {details['msg']}."
    return f"{show(value)} is not {wanted}. {_remedy(value, wanted)}"


def _plain(bound: float) -> str:
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _remedy(value: Any, wanted: str) -> str:
    if "number" in wanted and isinstance(value, str):
        if _EXPONENT.fullmatch(value):
            mantissa, _, exponent = value.lower().partition("e")
            mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
            sign = "" if exponent[0] in "+-" else "+"
            if wanted == "a number":
                return f"YAML reads a text; write {mantissa}e{sign}{exponent}."
            return f"Write {float(value):.0f}." if abs(float(value)) < 1e15 else f"Give {wanted}."
        if re.fullmatch(r"[+-]?\d{1,20}(\.\d{1,20})?", value):
            return f"Write it without quotes: {value}."
    if wanted == "a list":
        return "Give the values in brackets: [a, b]."
    if wanted == "a group of settings":
        return "Give settings by name."
    if wanted == "a text" and value is not None and not isinstance(value, list | tuple | dict):
        return f"Write it in quotes: '{show(value)}'."
    return f"Give {wanted}."
