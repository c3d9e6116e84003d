"""Settings: a checkpoint's `config.json`, read key by key, with errors that name the file and the key."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_spaces import UserError
from search_spaces.sealed_json import parse_json

FormFields = Mapping[str, Any]
"""Fields of `LanguageForm` by name, without those that have their defaults."""


class Settings:
    """Content of a `config.json`.

    Args:
        values: Its content.
        where: Name of the file in errors.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    @staticmethod
    def read(path: Path) -> "Settings":
        """Reads a file.

        Raises:
            UserError: There is none, or it is not a JSON object.
        """
        try:
            values = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: missing. Give a directory that transformers saved.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}). Copy or download it again.") from None
        if not isinstance(values, dict):
            raise UserError(f"{path}: not a JSON object. Copy or download it again.")
        return Settings(values, str(path))

    def of(self, key: str) -> "Settings":
        """Returns the settings under a key; empty if it is missing or null."""
        found = self.values.get(key) or {}
        if not isinstance(found, Mapping):
            raise self.error(key, "is not an object. Expected settings by name")
        return Settings(found, f"{self.where}: {key}")

    def size(self, key: str, default: int | None = None) -> int:
        """Reads a positive integer.

        Raises:
            UserError: The value is something else, or missing where there is no default.
        """
        found = self.values.get(key)
        if found is None:
            if default is None:
                raise UserError(f"{self.where}: {key}: missing. It is needed to know the network's shape.")
            return default
        if not isinstance(found, int) or isinstance(found, bool) or found < 1:
            raise self.error(key, "is no positive whole number. The file is damaged, or not of this model type")
        return found

    def number(self, key: str, default: float | None = None) -> float:
        """Reads a number above 0.

        Raises:
            UserError: The value is something else, or missing where there is no default.
        """
        found = self.values.get(key, default)
        if found is None and default is not None:
            return default
        if not isinstance(found, int | float) or isinstance(found, bool) or not 0 < found < float("inf"):
            raise self.error(key, "is no positive number. The file is damaged, or not of this model type")
        return float(found)

    def flag(self, key: str, default: bool) -> bool:
        """Reads true or false."""
        found = self.values.get(key)
        if found is not None and not isinstance(found, bool):
            raise self.error(key, "is not true or false. The file is damaged, or not of this model type")
        return default if found is None else found

    def only(self, key: str, supported: Sequence[Any], default: Any = None) -> Any:
        """Reads one of the supported values; the default if it is missing.

        Raises:
            UserError: The value is another one.
        """
        found = self.values.get(key, default)
        if found not in supported:
            known = " or ".join(json.dumps(value) for value in supported)
            raise self.error(key, f"is not supported. Use a checkpoint with {known}")
        return found

    def error(self, key: str, problem: str) -> UserError:
        """Returns the error about one key."""
        return UserError(f"{self.where}: {key}: {json.dumps(self.values.get(key))} {problem}.")
