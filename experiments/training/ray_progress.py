"""Bridge: what the driver and the workers of a training tell each other, through an actor beside the driver."""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from experiments.process.interrupt import StopRequest
from experiments.records import TrainingFigures

_SECONDS = 0.25


class Report(NamedTuple):
    """News of the workers so far.

    Attributes:
        starts: For each time that they started: number of workers, and the step that they went on from.
        done: Steps.
        doing: Activity of the workers, before the progress bar.
        shown: Figures beside the progress bar.
        figures: Figures of the finished training, for the summary.
        stopped: Message of the training when it was asked to stop.
        refused: Problem that the user has to solve.
    """

    starts: tuple[tuple[int, int], ...] = ()
    done: int = 0
    doing: str = "train"
    shown: dict[str, str] = {}
    figures: TrainingFigures | None = None
    stopped: str | None = None
    refused: str | None = None


class Bridge:
    """The actor; what other runs have reserved is there before it."""

    def __init__(self) -> None:
        self._asked = False
        self._report = Report()
        self._others = _reserved()
        self._leader: Any = None

    def lead(self, leader: Any) -> None:
        """Receives the handle of Ray Train's controller, which the driver cannot get otherwise."""
        self._leader = leader

    def leader(self) -> Any:
        """Returns the handle of the controller after its start."""
        return self._leader

    def placed(self) -> bool:
        """Returns whether there is room for the requested workers."""
        return bool(_reserved() - self._others)

    def ask_to_stop(self) -> None:
        """Asks the workers to save and stop."""
        self._asked = True

    def begin(self, workers: int, done: int) -> None:
        """Records that the workers start at a step."""
        self._report = self._report._replace(starts=(*self._report.starts, (workers, done)), done=done)

    def tell(self, **news: Any) -> bool:
        """Fields of the report that changed; returns whether the workers are asked to stop."""
        self._report = self._report._replace(**news)
        return self._asked

    def report(self) -> Report:
        """Returns the news of the workers so far."""
        return self._report


def _reserved() -> set[str]:
    from ray.util import placement_group_table

    return {name for name, group in placement_group_table().items() if group["state"] == "CREATED"}


class Line(StopRequest):
    """A worker's end: passes on what its progress bar shows, and hears whether to stop. A context manager.

    Args:
        bridge: Handle of the actor.
        speaks: Whether this worker does; one of them is enough, as they stop together.
    """

    def __init__(self, bridge: Any, speaks: bool) -> None:
        super().__init__()
        self._bridge = bridge
        self._speaks = speaks
        self._done = 0
        self._news: dict[str, Any] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._exchange, name="bridge", daemon=True)

    def begin(self, workers: int, done: int) -> None:
        """Says that training starts."""
        self._done = done
        if self._speaks:
            self._bridge.begin.remote(workers, done)

    def update(self) -> None:
        """Records the end of a step."""
        self._done += 1
        self._news["done"] = self._done

    def set_description_str(self, desc: str) -> None:
        """Passes on what is being done."""
        self._news["doing"] = desc

    def set_postfix(self, shown: Mapping[str, str], refresh: bool = True) -> None:
        """Passes on figures beside the bar."""
        self._news["shown"] = dict(shown)

    def __enter__(self) -> Self:
        if self._speaks:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._speaks:
            self._thread.join()

    def _exchange(self) -> None:
        import ray

        while not self._closed.wait(_SECONDS):
            self.asked = ray.get(self._bridge.tell.remote(**self._news))
