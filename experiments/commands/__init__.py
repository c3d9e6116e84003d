"""Commands of `supernest`, one file each or a few similar ones; heavy imports happen when a command runs."""

import importlib
import pkgutil
from collections.abc import Iterator

import click


def commands() -> Iterator[click.Command]:
    """Returns every command that a file of this package defines."""
    for file in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{file.name}")
        yield from (value for value in vars(module).values() if isinstance(value, click.Command))
