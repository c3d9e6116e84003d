"""JSON files; those that carry the hash of their own content are not taken for the original where they are changed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.errors import UserError

JsonObject = Mapping[str, Any]
"""An object of JSON, as it is read and written; only what owns the format looks into it."""

SEAL = "sha256"
"""Key of the hash."""


def sealed(content: JsonObject, owner: str = "") -> JsonObject:
    """Returns the content with its hash under `sha256`.

    Args:
        content: Values that JSON can hold.
        owner: Names what the file belongs to, such as a run; the hash depends on it.
    """
    return {**content, SEAL: _digest(content, owner)}


def parse_json(text: str | bytes) -> Any:
    """Returns what a JSON text holds.

    Raises:
        ValueError: The text is not JSON, or is nested deeper than Python can read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, remedy: str) -> JsonObject:
    """Returns the JSON object that a file holds.

    Args:
        path: The file.
        remedy: Last sentence of the error: what the user should do.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file cannot be read, or does not contain a JSON object.
    """
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). {remedy}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged. {remedy}")
    return found


def read_sealed(path: Path, remedy: str, owner: str = "") -> JsonObject:
    """Returns the content of a file that `sealed` made, with its hash.

    Args:
        path: The file.
        remedy: Last sentence of the error: what the user should do.
        owner: Owner that was given to `sealed`.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file cannot be read, was changed, or belongs to another owner.
    """
    found = read_json(path, remedy)
    if not is_intact(found, owner):
        of_another = " or is of another run" if owner else ""
        raise UserError(f"{path}: is damaged{of_another}: its content does not have the hash it gives. {remedy}")
    return found


def is_intact(content: JsonObject, owner: str = "") -> bool:
    """Returns whether content has the hash that `sealed` added."""
    return content.get(SEAL) == _digest(content, owner)


def _digest(content: JsonObject, owner: str) -> str:
    text = json.dumps({key: value for key, value in content.items() if key != SEAL}, sort_keys=True)
    return hashlib.sha256(f"{owner}\n{text}".encode()).hexdigest()
