"""Pool: actors that each hold an experiment, and do jobs as they become free; Ray starts dead ones again."""

import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from experiments.configuration.ray_section import RaySection
from experiments.distributed.connect import connect
from experiments.distributed.process import begin, environment, module_path
from experiments.experiment import Experiment
from experiments.process.interrupt import Interrupted, StopRequest
from search_spaces import UserError
from search_spaces.sealed_json import JsonObject

_SECONDS, _POLL = 60.0, 0.5

Made = TypeVar("Made")


class Resident:
    """The actor: an experiment, and the weights of its supernet, which a node holds once for all of its actors.

    Attributes:
        experiment: The experiment.
        params: The weights.

    Args:
        config: The experiment, as plain values.
        directory: The driver's run directory.
        cache: Whether the actor caches compiled programs.
        path: Directories in which the driver finds modules.
        params: Reference to the weights, in a list, so that an actor that starts again finds them as the first did;
            an empty one where no job needs any.
    """

    experiment: Any
    params: Any

    def __init__(
        self, config: JsonObject, directory: str, cache: bool, path: Sequence[str], params: Sequence[Any]
    ) -> None:
        begin(path)

        import jax
        import ray

        from experiments.configuration.experiment_config import config_of
        from experiments.experiment import build_experiment
        from experiments.process.compilation import use_compilation_cache

        self._refused: UserError | None = None
        if cache:
            use_compilation_cache(Path(directory) / "cache")
        try:
            self.experiment = build_experiment(config_of(config, Path(directory)))
        except UserError as error:
            self._refused = error
            return
        self.params = jax.device_put(ray.get(params[0])) if params else None
        self._made: dict[Any, Any] = {}

    def ready(self) -> None:
        """Comes back when the actor is there.

        Raises:
            UserError: The actor cannot hold the experiment, for example as its node has no data.
        """
        if self._refused is not None:
            raise self._refused

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Runs an importable function of this resident and the arguments."""
        return function(self, *arguments)

    def once(self, make: Callable[[Any], Made]) -> Made:
        """Returns what an importable function or class makes of the experiment, made at the first call."""
        if make not in self._made:
            self._made[make] = make(self.experiment)
        return self._made[make]


class _Job(NamedTuple):
    function: Any
    arguments: tuple[Any, ...]
    result: Future


class Pool:
    """Actors of one experiment; make it with `pool`.

    A job whose actor dies is done again: by that actor, which Ray starts anew up to `ray.max_failures` times, then by
    another. Actors that find room later join when they are there.

    Attributes:
        workers: Number of actors now.
        asked: Number of actors that were requested.
    """

    def __init__(self, ray: ModuleType, actors: Sequence[Any], least: int) -> None:
        self.asked, self.workers = len(actors), 0
        self._ray, self._least = ray, least
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._lost: list[Exception] = []
        self._threads = [threading.Thread(target=self._serve, args=(actor,), daemon=True) for actor in actors]
        for thread in self._threads:
            thread.start()
        with self._changed:
            self._changed.wait_for(lambda: self.workers + len(self._lost) == self.asked, timeout=_SECONDS)
            self._check()
            if self.workers < self.asked:
                self._say(f"begins with {self.workers} of {self.asked} workers")

    def run(self, function: Callable[..., Made], arguments: Sequence[tuple[Any, ...]]) -> list[Made]:
        """Returns all results of `stream`."""
        return list(self.stream(function, arguments))

    def stream(
        self, function: Callable[..., Made], arguments: Sequence[tuple[Any, ...]], stop: StopRequest | None = None
    ) -> Iterator[Made]:
        """Results of `function(resident, *arguments)` for each of the arguments, in their order, as they come.

        Args:
            function: Importable where the actors run.
            arguments: Arguments of each job.
            stop: Read while waiting.

        Raises:
            UserError: A job raised it, or too few workers are left.
            Interrupted: `stop` was requested.
        """
        jobs = [_Job(function, given, Future()) for given in arguments]
        for job in jobs:
            self._jobs.put(job)
        for job in jobs:
            while not wait([job.result], _POLL).done:
                with self._changed:
                    self._check()
                if stop:
                    raise Interrupted("stopped while the workers of a pool were busy")
            yield job.result.result()

    def close(self) -> None:
        """Lets the threads end; the actors end with the connection."""
        for _ in self._threads:
            self._jobs.put(None)

    def _check(self) -> None:
        left = self.asked - len(self._lost)
        if left < self._least:
            last = self._lost[-1]
            if isinstance(last, UserError):
                raise last
            raise UserError(
                f"ray: {left} of {self.asked} workers are left: {_line(last)} What is done is kept; the same "
                "command goes on. ray.max_failures allows for more, ray.elastic for fewer workers."
            )
        if not self.workers:
            raise UserError(f"ray.workers: none has started within {_SECONDS:.0f} s. `ray status` says what is free.")

    def _serve(self, actor: Any) -> None:
        errors, job = self._ray.exceptions, None
        try:
            self._ray.get(actor.ready.remote())
            self._changes(1)
            while (job := self._jobs.get()) is not None:
                try:
                    job.result.set_result(self._ray.get(actor.do.remote(job.function, *job.arguments)))
                except errors.RayTaskError as error:
                    job.result.set_exception(error.cause if isinstance(error.cause, UserError) else error)
        except Exception as error:  # whatever ends an actor, its job is for another one
            if job is not None:
                self._jobs.put(job)
            cause = getattr(error, "cause", None)
            self._changes(0 if job is None else -1, cause if isinstance(cause, UserError) else error)

    def _changes(self, workers: int, lost: Exception | None = None) -> None:
        with self._changed:
            self.workers += workers
            if lost is not None:
                self._lost.append(lost)
                if self.asked - len(self._lost) >= self._least:
                    self._say(f"goes on with {self.workers} of {self.asked} workers: {_line(lost)}")
            self._changed.notify_all()

    @staticmethod
    def _say(text: str) -> None:
        print(f"warning: the pool {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def pool(
    experiment: Experiment, directory: Path, params: Any = None, cache: bool = True, panel: Path | None = None
) -> Iterator[Pool]:
    """Connects and checks the pool of the section `ray` for the duration of the context.

    Args:
        experiment: Experiment that every actor holds.
        directory: Such as a run directory; all nodes must see it.
        params: Weights for the actors.
        cache: Whether compiled programs are kept in `cache` below the directory.
        panel: Directory of a ranking's panel, if that is the job.

    Raises:
        UserError: Ray, or its cluster, cannot do it.
    """
    import jax

    section = experiment.config.ray
    assert section is not None
    with connect(section, directory, panel) as ray:
        stored = [] if params is None else [ray.put(jax.device_get(params))]
        given = experiment.config.as_dict(), str(directory.absolute()), cache, module_path(), stored
        actor = ray.remote(**_options(section, experiment.space.family))(Resident)
        made = Pool(ray, [actor.remote(*given) for _ in range(section.sizes[-1])], section.sizes[0])
        try:
            yield made
        finally:
            made.close()


def _options(section: RaySection, family: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_cpus": section.cpus_per_worker,
        "num_gpus": section.gpus_per_worker,
        "max_restarts": section.max_failures,
        "max_task_retries": -1,
        "runtime_env": {"env_vars": environment(section, family)},
    }
    return options if section.accelerator_type is None else {**options, "accelerator_type": section.accelerator_type}


def _line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{lines[0].strip().rstrip('.')}." if lines else f"{type(error).__name__}."
