"""Errors of the disk that Orbax raises are told once: what its libraries print about them besides is left out."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supernet.storage.manifest import storage_error

_CLOSED = "Event loop is closed"

_filtering = False


@contextmanager
def told_once() -> Iterator[None]:
    """Keeps Orbax and TensorStore from printing the tracebacks of an error that they raise as well.

    Some come later, from threads of TensorStore that call back into an event loop that the error has closed, or when
    what failed is collected; so the filters for those stay.
    """
    _filter_what_comes_later()
    log = logging.getLogger("absl")
    log.addFilter(_from_elsewhere)
    try:
        yield
    finally:
        log.removeFilter(_from_elsewhere)


def _from_elsewhere(record: logging.LogRecord) -> bool:
    return "orbax" not in Path(record.pathname).parts


def _not_of_the_disk(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return error is None or storage_error(error, Path()) is None


def _filter_what_comes_later() -> None:
    global _filtering
    if _filtering:
        return
    _filtering = True
    logging.getLogger("asyncio").addFilter(_not_of_the_disk)
    hook = sys.unraisablehook

    def without_closed_loops(unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == _CLOSED and unraisable.object is None):
            hook(unraisable)

    sys.unraisablehook = without_closed_loops
