"""The one rule for paths that a user gives, on the command line or in an experiment file."""

import os
from pathlib import Path
from typing import Any

import click

_LONGEST_NAME, _LONGEST = 255, 4000  # bytes; Linux takes 4,095 in all, and names of files are added to directories


def path_fault(path: str | os.PathLike[str]) -> str | None:
    """Returns what is wrong with a path and what to do, or None for a sound one.

    A sound path can be shown in one line and used on the file system, whether or not there is something at its end.
    """
    text = os.fspath(path)
    if not text:
        return "is empty. Give a path."
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        return "holds a control character, such as a line break. Give a path without."
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError:
        return "is not UTF-8. Rename the file, or give another."
    if len(content) > _LONGEST or any(len(part) > _LONGEST_NAME for part in content.split(b"/")):
        return f"is too long. Use names of at most {_LONGEST_NAME} bytes, and paths of at most {_LONGEST}."
    try:
        os.stat(text)
    except OSError as error:
        import errno

        if error.errno == errno.ELOOP:
            return "is a loop of links. Give a path that leads somewhere."
    return None


def shown(text: str) -> str:
    """Returns a text from a user as one short line: quoted, escaped where it must be, cut where it is long."""
    line = ascii(text) if not text.isprintable() else repr(text)
    return line if len(line) <= 100 else f"{line[:60]}...{line[-30:]}"


class UserPath(click.Path):
    """A path on the command line that keeps the rule."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses what `path_fault` finds; see `click.ParamType.convert`."""
        fault = path_fault(value)
        if fault is not None:
            self.fail(f"{shown(os.fspath(value))} {fault}", param, ctx)
        return super().convert(value, param, ctx)
