"""The train stage on Ray: starts the workers through Ray Train, shows how they get on, and passes requests to stop."""

import contextlib
import dataclasses
import importlib
import math
import shutil
import sys
import threading
import time
from types import ModuleType, TracebackType
from typing import Any, Self

from tqdm import tqdm

from experiments.configuration.ray_section import RaySection
from experiments.distributed.connect import connect, missing_room
from experiments.distributed.process import environment, module_path
from experiments.experiment import Experiment
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.records import TrainingFigures
from experiments.run_directory import RunDirectory
from experiments.storage.checkpoints import Checkpoints
from experiments.training.division import check_division
from experiments.training.members_on_ray import train_members_on_ray
from experiments.training.ray_checkpoints import stored_name, unpack
from experiments.training.ray_progress import Bridge, Report
from experiments.training.ray_worker import Start, Task, work
from experiments.training.stage import figures_of
from search_spaces import UserError

_SECONDS = 0.2
_KNOWN = "2.60.0"  # of Ray, that the tests run with
_GRACE = 10.0
_LEAVING = 60.0  # seconds at most until the controller is gone
_LOOK = 10.0  # seconds between two looks for room for more workers
_PATIENCE, _LONGEST = 20.0, 900.0  # seconds without room for the workers until that is said, and until training ends


def train_on_ray(
    experiment: Experiment,
    checkpoints: Checkpoints,
    run: RunDirectory,
    stop: StopRequest,
    quiet: bool,
    start: Start | None = None,
) -> TrainingFigures:
    """Trains on the workers of the section `ray`; results and other arguments as those of `train`.

    Args:
        experiment: Experiment to train.
        checkpoints: Checkpoints to resume from.
        run: The run directory.
        stop: Read while the workers train.
        quiet: No progress bar.
        start: Importable function that gives each worker the weights to start from; fresh ones when None.

    Raises:
        UserError: Ray, its cluster or the experiment cannot do it; or more workers died than `ray.max_failures` allow.
        Interrupted: `stop` was requested; a checkpoint of the step is saved.
    """
    section = experiment.config.ray
    assert section is not None
    if experiment.config.train.method == "evolution_strategy":
        return train_members_on_ray(experiment, checkpoints, run, stop, quiet)
    # Part of an accelerator is enough to evaluate; processes that train have whole ones.
    section = section.model_copy(update={"gpus_per_worker": math.ceil(section.gpus_per_worker)})
    check_division(experiment)
    done = checkpoints.latest() or 0
    if done >= experiment.steps:
        return figures_of(checkpoints, done)
    with connect(section, run.path) as ray:
        bridge = _beside(ray)
        task = Task(
            experiment.config.as_dict(), experiment.config.identity, str(run.path.absolute()),
            section.storage is not None, module_path(), bridge, start,
        )  # fmt: skip
        try:
            with _Fitting(section, experiment, run, task) as fitting:
                report = _followed(ray, bridge, fitting, section, experiment.steps, stop, quiet)
        except ray.exceptions.RayError as error:
            raise UserError(f"ray: the cluster is lost: {error}. The same command goes on.") from None
        if fitting.kept is not None:
            unpack(fitting.kept, run.path)
    if report.refused is not None:
        raise UserError(report.refused)
    if report.stopped is not None:
        raise Interrupted(report.stopped)
    if report.figures is None:
        raise UserError(
            f"ray: training ended at step {report.done} of {experiment.steps}, after {len(report.starts)} starts: "
            f"{fitting.failure} The same command goes on; ray.max_failures allows for more."
        )
    shutil.rmtree(run.path / "ray", ignore_errors=True)
    counts = [count for count, _ in report.starts]
    return dataclasses.replace(report.figures, workers=counts[-1], fewest_workers=min(counts), restarts=len(counts) - 1)


def _beside(ray: ModuleType) -> Any:
    """The bridge, on the driver's node, so that it lives as long as that."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Bridge).remote()


def controller_callback() -> Any:
    """Returns Ray Train's class of callbacks that run when its controller starts; no public one does.

    Raises:
        UserError: This version of Ray has none.
    """
    import ray

    try:
        callback = importlib.import_module("ray.train.v2._internal.execution.callback").ControllerCallback
    except (ImportError, AttributeError):
        callback = None
    if not hasattr(callback, "after_controller_start"):
        raise UserError(
            f"ray: version {ray.__version__} has no callback at the start of Ray Train's controller, without which a "
            f"training could not be stopped. Install one that has it: pip install 'ray[default,train]=={_KNOWN}'"
        )
    return callback


def _leading(bridge: Any) -> Any:
    """Returns a Ray Train callback that sends the controller's handle to the bridge."""
    base = controller_callback()

    class Leading(base):
        def after_controller_start(self, train_run_context: Any) -> None:
            import ray

            ray.get(bridge.lead.remote(ray.get_runtime_context().current_actor))

    return Leading()


class _Fitting:
    """Ray Train's `fit` in a thread: in the main one it would take Ctrl-C for itself. A context manager.

    When it is left before training has ended, the controller is killed and with it the workers, as a thread that still
    asks Ray for something when the driver leaves ends the whole process.

    Attributes:
        kept: The last checkpoint that the storage holds, if there is a storage.
        failure: Why training ended, where it failed.
    """

    def __init__(self, section: RaySection, experiment: Experiment, run: RunDirectory, task: Task) -> None:
        self.kept: Any = None
        self.failure = ""
        self._bridge = task.bridge
        self._trainer = _trainer(section, experiment, run, task)
        self._thread = threading.Thread(target=self._fit, name="fit", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray
        from ray.exceptions import RayError

        until = time.monotonic() + _LEAVING
        while self._thread.is_alive() and time.monotonic() < until:
            with contextlib.suppress(RayError, ConnectionError):  # it may be the cluster that is lost
                leader: Any = ray.get(self._bridge.leader.remote(), timeout=_GRACE)
                if leader is not None:
                    ray.kill(leader)
            self._thread.join(_SECONDS)
        if self._thread.is_alive():
            print("warning: Ray Train does not end; this process may be ended by Ray", file=sys.stderr)

    def _fit(self) -> None:
        try:
            self.kept = self._trainer.fit().checkpoint
        except Exception as error:  # whatever ends it is told to the user
            lines = [line for line in str(error).splitlines() if line.strip()]
            self.failure = f"{lines[-1].strip().rstrip('.')}." if lines else f"{type(error).__name__}."

    def over(self, seconds: float) -> bool:
        """Waits for the end at most so long; whether it has come."""
        self._thread.join(seconds)
        return not self._thread.is_alive()


def _trainer(section: RaySection, experiment: Experiment, run: RunDirectory, task: Task) -> Any:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.jax import JaxConfig, JaxTrainer

    resources: dict[str, float] = {"CPU": section.cpus_per_worker}
    if section.gpus_per_worker:
        resources["GPU"] = section.gpus_per_worker
    config, stored = experiment.config, section.storage is not None
    return JaxTrainer(
        work,
        train_loop_config=vars(task),
        jax_config=JaxConfig(use_gpu=False),  # the workers start jax.distributed themselves
        scaling_config=ScalingConfig(
            num_workers=section.elastic or section.workers,
            elastic_resize_monitor_interval_s=_LOOK,
            use_gpu=bool(section.gpus_per_worker),
            resources_per_worker=resources,
            accelerator_type=section.accelerator_type,
        ),
        run_config=RunConfig(
            name=stored_name(config, run.path) if stored else "train",
            storage_path=section.storage or str(run.path.absolute() / "ray"),
            failure_config=FailureConfig(max_failures=section.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=config.train.keep_last),
            callbacks=[_leading(task.bridge)],
            worker_runtime_env={"env_vars": environment(section, experiment.space.family)},
        ),
    )


def _followed(
    ray: ModuleType, bridge: Any, fitting: _Fitting, section: RaySection, steps: int, stop: StopRequest, quiet: bool
) -> Report:
    """Shows progress until training ends, and passes on a request to stop."""
    report, asked, waiting = Report(), False, _Waiting()
    with progress_bar(total=steps, desc="train", unit="step", quiet=quiet) as bar:
        while not fitting.over(_SECONDS):
            if stop and not asked:
                asked = True
                bridge.ask_to_stop.remote()
            news = ray.get(bridge.report.remote())
            at_work = news != report or news.figures is not None or news.stopped is not None
            seconds = waiting.seconds(at_work or ray.get(bridge.placed.remote()), time.monotonic())
            if asked and seconds > _GRACE:
                raise Interrupted("stopped while training waited for room for its workers; its checkpoints are kept")
            # Ray itself may take its time, on a machine that has other work.
            if seconds > _PATIENCE and (text := missing_room(ray, section)):
                if seconds > _LONGEST:
                    raise UserError(f"ray.workers: {text} for {_LONGEST / 60:.0f} minutes. The same command goes on.")
                if waiting.first():
                    bar.write(f"warning: training waits, {text}", file=sys.stderr)
            for count, done in news.starts[len(report.starts) :]:
                _say(bar, count, done, section.sizes[-1], again=bool(report.starts))
            if news.doing != report.doing:
                bar.set_description_str(news.doing)
            report = news
            bar.n = report.done
            bar.set_postfix(report.shown)
            if report.refused is not None:
                fitting.over(_GRACE)  # the others may wait for the one that has given up
                break
    return ray.get(bridge.report.remote())


class _Waiting:
    """Time for which there has been no room for the workers."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._said = False

    def seconds(self, placed: bool, now: float) -> float:
        """Seconds since there last was room; 0 where there is."""
        if placed:
            self._since, self._said = None, False
            return 0.0
        self._since = now if self._since is None else self._since
        return now - self._since

    def first(self) -> bool:
        """Returns whether this is the first call since there was room."""
        self._said, said = True, self._said
        return not said


def _say(bar: tqdm, count: int, done: int, wanted: int, again: bool) -> None:
    workers = f"{count} of {wanted} workers"
    if again:
        bar.write(f"warning: training has started again at step {done}, with {workers}", file=sys.stderr)
    elif count < wanted:
        bar.write(f"warning: training begins with {workers}", file=sys.stderr)
