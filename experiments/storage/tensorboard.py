"""TensorBoard events of one curve family (a training, a search): scalars, histograms, hyper-parameters, tables.

Events are written where they are made, through tensorboardX's record writer and not its `SummaryWriter`: that one hands
them to a thread, whose `flush` leaves the queued ones behind and whose death on a full disk blocks the training.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from jaxtyping import Float

from experiments.storage.event_records import Event, EventsWriter, SessionLog, Summary, summary
from supernet.storage.manifest import disk_errors_for

VISITS = "paths/visits_by_gene_and_value/numbers"
"""Tag of the text that holds, as JSON, how often each value of each gene was trained."""

_BINS = 30
_CELL = 12  # pixels
_DARK, _BRIGHT, _ABSENT = np.array([20, 24, 80]), np.array([253, 231, 76]), np.array([160, 160, 160])
_SECONDS_BETWEEN_FLUSHES = 10.0


class EventLog:
    """Appends events below a directory that TensorBoard reads. Use it in a `with`, or call `close`.

    Training and search count different steps, so each has a directory of its own below `tensorboard/`.

    Args:
      directory: where the event files go; made where it is missing.
      resumed_step: the step of the checkpoint that this process goes on from, `None` for one that starts anew. Events
        that an earlier process logged for later steps are taken back, so that no curve doubles back.
      main_process: where False nothing is written, so that every worker may call the same methods.

    Raises:
      UserError: where the disk refuses, here and in every method.
    """

    def __init__(self, directory: Path | str, resumed_step: int | None = None, main_process: bool = True) -> None:
        self._directory = Path(directory)
        self._writer: EventsWriter | None = None
        if not main_process:
            return
        with disk_errors_for(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            # File names hold whole seconds; the number keeps two processes within one apart and in order.
            earlier = len(list(self._directory.glob("events.out.tfevents.*")))
            self._writer = EventsWriter(str(self._directory / "events"), f".{earlier:06d}")
        if earlier:
            first_retaken = 0 if resumed_step is None else resumed_step + 1
            self._write(Event(step=first_retaken, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs one number for each name, such as `loss/largest`; NaN is logged as NaN."""
        if self._writer is not None:
            parts = [summary.scalar(name, float(value)) for name, value in values.items()]
            self._write_summaries(step, parts)

    def histogram(self, step: int, name: str, values: Any) -> None:
        """Logs how `values` (any shape, at least one finite) are spread over 30 equal bins.

        Values that are not finite are counted in the scalar `NAME/not_finite`.
        """
        if self._writer is None:
            return
        numbers = np.asarray(values, dtype=np.float64).ravel()
        finite = numbers[np.isfinite(numbers)]
        parts = [summary.histogram(name, finite, bins=_BINS)] if finite.size else []
        if finite.size < numbers.size:
            parts.append(summary.scalar(f"{name}/not_finite", float(numbers.size - finite.size)))
        self._write_summaries(step, parts)

    def heat_map(self, step: int, name: str, values: Float[np.ndarray, "rows columns"]) -> None:
        """Logs a matrix as a picture: 0 is dark, its largest value bright, NaN grey."""
        if self._writer is None:
            return
        top = max(np.nanmax(values, initial=0), np.finfo(np.float64).tiny)
        shade = np.nan_to_num(values / top)[..., None]
        colours = np.where(np.isnan(values)[..., None], _ABSENT, _DARK + shade * (_BRIGHT - _DARK))
        picture = colours.astype(np.uint8).repeat(_CELL, axis=0).repeat(_CELL, axis=1)
        self._write_summaries(step, [summary.image(name, picture, dataformats="HWC")])

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, Any], step: int = 0) -> None:
        """Logs a configuration (nested mappings become `sampler.paths`) and what it reached, for the HParams tab."""
        if self._writer is not None:
            reached = {name: float(value) for name, value in metrics.items()}
            self._write_summaries(step, summary.hparams(dict(_flat(values)), reached))
            self.scalars(step, reached)

    def text(self, step: int, name: str, markdown: str) -> None:
        """Logs a text that TensorBoard shows as Markdown."""
        if self._writer is not None:
            self._write_summaries(step, [summary.text(name, markdown)])

    def table(self, step: int, name: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Logs a table, such as the Pareto front of a search: one row an architecture, its costs and its score."""
        self.text(step, name, markdown_table(columns, rows))

    def flush(self) -> None:
        """Hands all events to the system; call it before each checkpoint, so that a resumed curve has no gap."""
        if self._writer is not None:
            with disk_errors_for(self._directory):
                self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Flushes and closes; the methods then do nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with disk_errors_for(self._directory):
                writer.close()

    def _write_summaries(self, step: int, parts: Iterable[Any]) -> None:
        self._write(Event(step=int(step), summary=Summary(value=[value for part in parts for value in part.value])))

    def _write(self, event: Any) -> None:
        assert self._writer is not None
        event.wall_time = time.time()
        with disk_errors_for(self._directory):
            self._writer.write_event(event)
        if event.HasField("summary") and time.monotonic() - self._flushed > _SECONDS_BETWEEN_FLUSHES:
            self.flush()


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Formats a Markdown table; integers with thousands separators, floats with four digits.

    Raises:
      ValueError: where a row has another length than `columns`.
    """
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[_cell(value) for _, value in zip(columns, row, strict=True)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, bool | int | float | str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str):
            yield f"{prefix}{key}", value
        else:
            yield f"{prefix}{key}", json.dumps(value, default=str)
