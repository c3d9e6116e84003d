"""Errors that a user can cause, and the nearest name for a misspelling."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something a user wrote or supplied cannot work; the text is one line that says where, what, and what to do."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `" Did you mean 'x'? Known: a, b, x."`, or the list alone where nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} Known: {', '.join(names)}."
