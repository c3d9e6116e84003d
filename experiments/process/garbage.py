"""Python's garbage collection in processes that are ours."""

import gc

_COLLECTIONS = 200_000, 20, 100  # instead of 700, 10, 10


def collect_rarely() -> None:
    """Looks for garbage less often than Python does by itself.

    Programs are traced into many objects that live long; looking through them took a tenth of the processor's time of a
    short run.
    """
    gc.set_threshold(*_COLLECTIONS)
