"""The records of TensorBoard's event files, from tensorboardX, without PyTorch.

tensorboardX imports PyTorch wherever it is installed, for tensors that nobody here logs: two seconds of the processor
before a command does anything.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Makes an import of a package fail, as if it were not installed; one that is imported already stays."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


with _without("torch"):
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2, summary_pb2

# Classes that protobuf makes when it is imported, of which type checkers know nothing.
Event = getattr(event_pb2, "Event")  # noqa: B009
SessionLog = getattr(event_pb2, "SessionLog")  # noqa: B009
Summary = getattr(summary_pb2, "Summary")  # noqa: B009

__all__ = ["Event", "EventsWriter", "SessionLog", "Summary", "summary"]
