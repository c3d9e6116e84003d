"""The train stage: batches, sampled paths, steps, checkpoints and curves; resumes at the last checkpoint."""

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.batches import Prefetcher
from experiments.distributed.workers import Workers
from experiments.experiment import Experiment
from experiments.objective import objective_of
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.records import TrainingFigures
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.batches import Batch, BatchMaker
from experiments.training.curves import Curves, Probe, ProbeErrors
from experiments.training.diagnostics import Diagnostics
from experiments.training.division import Division
from experiments.training.evolution_strategy import evolution_step, refuse_integer_weights
from experiments.training.parent import checkpoints_of, parent_of
from experiments.training.rematerialization import training_net
from samplers import Paths, SamplerState, Score, StepFeedback
from search_spaces import Program, UserError
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.supernet import Params
from supernet.evolution_strategy.step import EvolutionStep
from supernet.sharing.expansion import LayerExpansion
from supernet.sharing.split import SplitSharing
from supernet.training.training import StepResult, TrainState, TrainStep

RATE = "train.optimizer.learning_rate"
"""Key that the message of a diverged training says to lower."""


class TrainingDiverged(UserError):
    """A path's loss is not a number."""


AnyStep = TrainStep | EvolutionStep
"""A compiled step of either method."""


class Progress(NamedTuple):
    """Content of a checkpoint: all that the next step depends on."""

    train: TrainState
    sampler: SamplerState


def initial(experiment: Experiment, step: AnyStep, params: Params | None = None) -> Progress:
    """Returns the initial state: from the seed, except for weights that are given, imported or a parent's."""
    start, net, fresh = experiment.config.start, experiment.net, key(experiment.config.seed, Purpose.WEIGHTS)
    if params is None and (parent := parent_of(experiment)) is not None:
        params = _inherited(experiment, parent)
    if params is None:
        params = net.init(fresh) if start is None else net.shared(start.params(net, fresh), fresh)
    return Progress(step.init(params), experiment.sampler.init())


def train_step(experiment: Experiment, trained: Collection[str] | None = None) -> AnyStep:
    """Builds the configured step.

    Args:
        experiment: Experiment that is trained.
        trained: Names of the weights that are trained, as `TrainStep` takes them.
    """
    if experiment.config.train.method == "evolution_strategy" and trained is None:
        return evolution_step(experiment)
    return gradient_step(experiment, trained)


def gradient_step(experiment: Experiment, trained: Collection[str] | None = None) -> TrainStep:
    """Builds a step with gradients for any configured method; arguments are those of `train_step`."""
    settings = experiment.config.train
    refuse_integer_weights(experiment.net, "train: backpropagation")
    optimizer = settings.optimizer.build(experiment.steps)
    gene_norms = "gene_norms" in experiment.sampler.needs
    return TrainStep(
        training_net(experiment), optimizer, settings.distillation, settings.ema, gene_norms,
        experiment.data.training_outputs(settings.label_smoothing), trained, settings.exits,
    )  # fmt: skip


def trained_params(experiment: Experiment, checkpoints: Checkpoints, step: AnyStep | None = None) -> Params:
    """Returns the weights for search: those of the last or the best checkpoint, by `train.checkpoint`.

    Args:
        experiment: Experiment that was trained.
        checkpoints: Its checkpoints.
        step: Step that trained it, if it is not the one that `train_step` returns.

    Raises:
        UserError: Training has not finished, or kept no best checkpoint.
    """
    return trained_progress(experiment, checkpoints, step).train.evaluation_params


def trained_progress(experiment: Experiment, checkpoints: Checkpoints, step: AnyStep | None = None) -> Progress:
    """Returns the state at the end of training that `trained_params` takes the weights of, which says the errors."""
    done = checkpoints.latest() or 0
    if done < experiment.steps:
        raise UserError(
            f"{experiment.config.name}: trained for {done} of {experiment.steps} steps. "
            "Run `supernest train` (or `run`) first."
        )
    chosen = None
    if experiment.config.train.checkpoint == "best":
        chosen = checkpoints.best()
        if chosen is None:
            raise UserError(
                f"train.checkpoint: best, but no checkpoint of {experiment.config.name} was evaluated. Set it to last."
            )
    step = step or train_step(experiment)
    shapes = jax.eval_shape(step.init, experiment.net.shapes)
    return checkpoints.restore(Progress(shapes, experiment.sampler.init()), chosen)[1]


def _inherited(experiment: Experiment, parent: Experiment) -> Params:
    """The first weights of sub-supernets or of other depths: from those that the parent's search would use."""
    section, sharing, own = experiment.config.supernet.parent, experiment.net.sharing, parent.net.sharing
    assert section is not None
    with checkpoints_of(parent, Path(section.path)) as saved:
        params = trained_params(parent, saved)
    if isinstance(own, LayerExpansion):
        return own.expanded(params, experiment.space.network.stacks[0].layers or 1)
    assert isinstance(sharing, SplitSharing)
    return sharing.started_from(lambda genes: own.effective(params, jnp.asarray(genes)))


def train(
    experiment: Experiment,
    checkpoints: Checkpoints,
    log: Callable[[int], EventLog],
    stop: StopRequest,
    quiet: bool,
    params: Params | None = None,
    step: AnyStep | None = None,
    workers: Workers | None = None,
    bar: Any = None,
    saved: Callable[[int], None] | None = None,
    probe: ProbeErrors | None = None,
    name: str = "train",
) -> TrainingFigures:
    """Trains up to the configured step.

    Args:
        experiment: Experiment to train.
        checkpoints: Checkpoints to resume from and to save to.
        log: Opens the TensorBoard log, given the step that it continues from.
        stop: Read between steps.
        quiet: No progress bar, and no warnings on the terminal.
        params: Weights to start from; fresh ones when None. They are consumed.
        step: Result of `train_step` for this experiment, when it is used for several; its programs stay compiled.
        workers: Who trains, each of whom calls this; this process alone when None.
        bar: Shows progress, as a tqdm bar does; one on the terminal when None.
        saved: Called by every worker once a checkpoint is on the disk.
        probe: Evaluates what is trained, as `Probe` does; a few subnets of the space when None.
        name: Name of the training in the progress bar.

    Returns:
        Figures for the summary.

    Raises:
        TrainingDiverged: A loss is not finite.
        Interrupted: `stop` was requested; a checkpoint of the step is saved.
    """
    settings, steps, sampler = experiment.config.train, experiment.steps, experiment.sampler
    step = step or train_step(experiment)
    workers = workers or Workers()
    progress = initial(experiment, step, params)
    progress = progress._replace(train=workers.everywhere(progress.train))
    done, before = checkpoints.latest() or 0, TrainingFigures(0)
    if done:
        done, progress = checkpoints.restore(progress)
        before = figures_of(checkpoints, done)
    if done >= steps:
        return before
    maker = BatchMaker(experiment)
    division = Division(experiment, workers, stop)
    curves = Curves(experiment, log(done), division)
    diagnostics = Diagnostics(experiment, curves.log, quiet)
    probe = probe or Probe(experiment, workers)
    if bar is None:
        bar = progress_bar(total=steps, initial=done, desc=name, unit="step", quiet=quiet)
    metric, figures, objective = None, before, objective_of(experiment.data)
    news, reached = _Programs(bar, experiment.space.programs, name), {}
    with bar, curves.log:
        state, sampler_state = progress
        while done < steps:
            until = sampler.examples_known_until(done) or steps
            with Prefetcher(maker.bind(sampler_state), range(done, min(until, steps))) as batches:
                for batch in batches:
                    number = batch.step
                    paths = sampler.sample(sampler_state, number, score=_score(step, state.params, batch, division))
                    state, result = step(
                        state, paths.genes, paths.roles, paths.weights, batch.x, batch.targets, batch.example_weights,
                        batch.teacher, diagnostics.measures(number),
                        division.work(paths).in_pieces(settings.accumulate), news,
                    )  # fmt: skip
                    losses = np.array([path.loss for path in result.paths], np.float64)
                    _check_finite(experiment, losses, paths, number, checkpoints)
                    cosines = diagnostics.gradients(number, result)
                    score = _score(step, state.params, batch, division)
                    feedback = feedback_of(experiment, number, paths, losses, result, batch, cosines, score)
                    sampler_state = sampler.update(sampler_state, feedback)
                    done = number + 1
                    curves.add(done, paths, losses, result)
                    diagnostics.add(done, paths, losses, sampler_state)
                    if isinstance(step, EvolutionStep):
                        diagnostics.members_left_out(done, step.left_out)
                    news.over()
                    bar.update()
                    last = done == steps
                    metric = None
                    if last or done % settings.evaluate_every == 0:
                        errors = probe(state, curves.log, done)
                        diagnostics.warn_collapsed_sizes(done, errors["smallest"], errors["largest"])
                        metric = errors["mean"]
                        reached = {objective.shown: objective.text(metric)}
                    bar.set_postfix({"loss": f"{losses[0]:.3f}", **reached}, refresh=False)
                    stopping = division.stopping
                    if last or stopping or done % settings.checkpoint_every == 0:
                        curves.log.flush()
                        compiled = max(step.programs_compiled, before.programs_compiled or 0)
                        probed = {objective.name: metric}
                        figures = TrainingFigures(done, compiled, bool(step.net.passes.rematerialize), probed)
                        if workers.rank == 0:
                            checkpoints.save(done, Progress(state, sampler_state), metric, figures.as_json())
                        if saved is not None:
                            checkpoints.wait()
                            saved(done)
                    if stopping and not last:
                        checkpoints.wait()
                        raise Interrupted(f"stopped after training step {done} of {steps}; a checkpoint of it is saved")
        checkpoints.wait()
        curves.log.hparams(experiment.config.as_dict(), {f"probe_{objective.name}": metric}, done)
        return figures


class _Programs:
    """Has a bar say which program is being compiled.

    Args:
        bar: Shows progress.
        total: Number of programs of the space.
        name: Name of the training in the bar.
    """

    def __init__(self, bar: Any, total: int, name: str = "train") -> None:
        self._bar, self._total, self._name = bar, total, name
        self._known: set[Program] = set()
        self._said = False

    def __call__(self, program: Program) -> None:
        """Hears that a pass of `program` follows, which is compiled if it is the first."""
        if program not in self._known:
            self._known.add(program)
            self._said = True
            self._bar.set_description_str(f"{self._name} (compiling program {len(self._known)} of {self._total}, once)")

    def over(self) -> None:
        """Hears that the step is over."""
        if self._said:
            self._said = False
            self._bar.set_description_str(self._name)


def figures_of(checkpoints: Checkpoints, step: int) -> TrainingFigures:
    """Returns the figures that were saved with a checkpoint; of what another stage saved, the number of steps.

    Raises:
        UserError: The checkpoint is missing or was altered.
    """
    return TrainingFigures.from_json({"steps": step, **checkpoints.figures(step)})


def _score(step: AnyStep, params: Params, batch: Batch, division: Division) -> Score | None:
    """Losses on the batch as it was before augmentation, for a sampler that asked for it."""
    if batch.plain is None:
        return None
    x, labels = batch.plain
    return division.scores(lambda genes: step.score(params, genes, x, labels))


def feedback_of(
    experiment: Experiment,
    number: int,
    paths: Paths,
    losses: np.ndarray,
    result: StepResult,
    batch: Batch,
    cosines: np.ndarray | None,
    score: Score | None,
) -> StepFeedback:
    """Returns what a step tells the sampler; only what the sampler needs is read from the device."""
    needs = experiment.sampler.needs
    results = result.paths

    def by_example(name: str) -> np.ndarray | None:
        if "examples" not in needs:
            return None
        values = np.array([getattr(path, name) for path in results])
        # Each example has been seen by one path, whose figures stand for those of all.
        return np.broadcast_to(values.sum(axis=0), values.shape) if shared else values

    shared = experiment.config.train.path_batch == "share"
    return StepFeedback(
        number,
        paths,
        losses,
        np.array([path.gene_norms for path in results]) if "gene_norms" in needs else None,
        batch.rows,
        by_example("example_losses"),
        by_example("example_norms"),
        cosines,
        score,
    )


def _check_finite(
    experiment: Experiment, losses: np.ndarray, paths: Paths, number: int, checkpoints: Checkpoints
) -> None:
    for loss, genes, role in zip(losses, paths.genes, paths.roles, strict=True):
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"train: the loss of the {role} path {experiment.space.architecture(genes).description} is {loss} at "
                f"step {number}; {checkpoints.last_good()}. Lower {RATE} or set train.optimizer.clip_norm, in a new "
                "run directory."
            )
