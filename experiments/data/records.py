"""Records of JSON lines that hold no text where it was looked for: messages that say what is there instead."""

from collections.abc import Mapping
from typing import Any

from search_spaces.errors import did_you_mean

_KINDS = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}

_CHAT = (
    "holds the turns of a chat. Write each as one text first, for example with apply_chat_template of its tokenizer."
)


def without_text(record: Any, field: str, setting: str) -> str:
    """Returns why a line has no text, and what to do.

    Args:
        record: The parsed line.
        field: Field that the text was looked for in.
        setting: Setting of the field.
    """
    if not isinstance(record, Mapping):
        return f"no text in {field!r}: the line is {_kind(record)}. Give an object a line, with the text in {field!r}."
    if field not in record:
        texts = [name for name, value in record.items() if isinstance(value, str)]
        chats = [name for name, value in record.items() if _is_chat(value)]
        inner = [
            f"{name}.{key}" for name, value in record.items() if isinstance(value, Mapping)
            for key in value if isinstance(value[key], str)
        ]  # fmt: skip
        missing = f"no text in {field!r}."
        if texts:
            return f"{missing}{did_you_mean(field, texts)} Rename it, or set {setting}."
        if chats:
            return f"{missing} {chats[0]!r} {_CHAT}"
        if inner:
            return f"{missing} It lies deeper, in {inner[0]!r}. Write it into a field of the line itself."
        return f"{missing} No other field holds any. Give each line its text in {field!r}."
    value = record[field]
    missing = f"no text in {field!r}:"
    if _is_chat(value):
        return f"{missing} it {_CHAT}"
    if value is None:
        return f"{missing} it is null. Remove the line, or give it its text."
    if isinstance(value, Mapping) and (keys := [key for key in value if isinstance(value[key], str)]):
        return f"{missing} it is an object with text in {keys[0]!r}. Write that text into {field!r} itself."
    return f"{missing} it is {_kind(value)}. Write it as a string, or set {setting} to another field."


def _kind(value: Any) -> str:
    return "a text" if isinstance(value, str) else _KINDS[type(value)]


def _is_chat(value: Any) -> bool:
    """Whether a value is a list of turns, as chat data have it."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)
