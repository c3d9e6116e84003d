"""Reads the scalars and texts of TensorBoard event files, also of a run that is going on."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.storage.event_records import Event, SessionLog

Curve = dict[int, float]


def read_events(directory: Path) -> tuple[dict[str, Curve], dict[str, str]]:
    """Reads all event files of a directory, oldest first.

    Args:
        directory: Such as `RUN/tensorboard/train`; it may be missing.

    Returns:
        For each scalar its value by step, and for each text the last one. What a resumed process took back is left out.
    """
    scalars: dict[str, Curve] = {}
    texts: dict[str, str] = {}
    for path in sorted(directory.glob("events.out.tfevents.*")):
        for event in _events(path):
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                scalars = {tag: {s: v for s, v in curve.items() if s < event.step} for tag, curve in scalars.items()}
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                if kind == "simple_value":
                    scalars.setdefault(value.tag, {})[event.step] = value.simple_value
                elif kind == "tensor" and value.tensor.string_val:
                    texts[value.tag.removesuffix("/text_summary")] = value.tensor.string_val[0].decode(errors="replace")
    return {tag: curve for tag, curve in scalars.items() if curve}, texts


def _events(path: Path) -> Iterator[Any]:
    """Yields the events of a file up to its end, or to a record that is torn or damaged."""
    content = path.read_bytes()
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + 12 + length
        if end + 4 > len(content):
            return
        event = Event()
        try:
            event.ParseFromString(content[start + 12 : end])
        except Exception:  # protobuf's DecodeError differs between its implementations
            return
        yield event
        start = end + 4
