"""Progress of a stage: a bar on a terminal or in a notebook, and a line every half minute in a file."""

import os
import sys
import time
from collections.abc import Iterable
from threading import Event, Thread
from typing import Any

from tqdm import tqdm

SECONDS = 30.0
"""Between two lines; a stage that is over sooner says nothing."""
_COLUMNS, _ROWS = 80, 24  # of a terminal that does not know its size, such as one of a container
_LINE = "{desc}: {n_fmt} of {total_fmt} {unit}s, {elapsed} gone, {remaining} to go, {rate_fmt}{postfix}"


def progress_bar(
    over: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    quiet: bool,
    total: int | None = None,
    initial: int = 0,
) -> tqdm:
    """Returns a bar for so many units, or for what it goes over: on stderr, or a notebook's own (with `ipywidgets`).

    Args:
        over: Items of the loop; without them, the caller updates the bar.
        desc: The stage.
        unit: Counted unit, in the singular.
        quiet: Says nothing.
        total: Number of units in all; the length of `over` when None.
        initial: Number of units that were done before.
    """
    given: dict[str, Any] = {"desc": desc, "unit": unit, "total": total, "initial": initial, "disable": quiet}
    if "ipykernel.zmqshell" in sys.modules:  # a notebook, whose output is no terminal but draws bars
        from tqdm.auto import tqdm as notebook_bar  # by ipywidgets where they are installed, as text elsewhere

        return notebook_bar(over, **given)
    if sys.stderr.isatty():
        if 0 in os.get_terminal_size(sys.stderr.fileno()):  # where tqdm would write empty lines
            return tqdm(over, **given, ncols=_COLUMNS, nrows=_ROWS)
        return tqdm(over, **given, dynamic_ncols=True)
    return _Lines(over, **given, miniters=1, mininterval=0, bar_format=_LINE)


class _Lines(tqdm):
    """A bar that writes lines, of which each stays; also while a long compilation lets nobody update it."""

    monitor_interval = 0  # its thread is for terminals

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._said, self._over = time.monotonic(), Event()
        super().__init__(*arguments, **settings)
        if not self.disable:
            Thread(target=self._go_on, daemon=True).start()

    def _go_on(self) -> None:
        while not self._over.wait(1.0):
            self.display()

    def display(self, *arguments: Any, **settings: Any) -> None:
        """Writes where the bar stands, if the last line is old enough."""
        if time.monotonic() - self._said >= SECONDS:
            self._said = time.monotonic()
            print(str(self), file=sys.stderr, flush=True)

    def clear(self, *arguments: Any, **settings: Any) -> None:
        """Takes nothing back: lines stay."""

    def close(self) -> None:
        """Writes no last line."""
        self._over.set()
        self.disable = True
