"""Errors that a user can cause, as one line each, and the nearest name for a misspelling."""

import difflib
import unicodedata
from collections.abc import Iterable

_LONGEST_LINE, _LONGEST_NAME, _MOST_NAMES = 1500, 60, 60
_SPLITTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that end a line, turn its direction, or cannot be written."""


class UserError(ValueError):
    """Something a user wrote or supplied cannot work; the text is one line that says where, what, and what to do.

    Args:
        text: The line; see `one_line`.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """Returns a text as one line that can be printed, with escapes for what would split it; cut where far too long."""
    if len(text) > _LONGEST_LINE:
        text = f"{text[: _LONGEST_LINE * 2 // 3]} ... {text[-_LONGEST_LINE // 3 :]}"
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _SPLITTING else character
        for character in text
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'? Known: a, b, x."`, or the list alone where nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name)[:_LONGEST_NAME], names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{hint} Known: {', '.join(names[:_MOST_NAMES])}{more}."
