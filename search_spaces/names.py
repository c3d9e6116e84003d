"""The one rule for names that a user gives and that become files: of experiments, runs and budgets."""

import re

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._%-]*")
LONGEST_NAME = 100  # a file system allows 255 bytes, and suffixes and hidden temporaries are added


def name_fault(name: object) -> str | None:
    """Returns what is wrong with a name and how to write it, or None for a sound one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "is no name. Use letters, digits, '.', '_', '-' and '%', and begin with a letter, a digit or '_'."
    if len(name) > LONGEST_NAME:
        return f"has {len(name)} characters. Use at most {LONGEST_NAME}."
    return None
