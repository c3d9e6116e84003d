"""The gradient stage: architecture and weights in one training, for one budget; resumes at its last checkpoint.

Three phases share the training's steps: the weights alone (warm-up), both in turn on two parts of the training split,
and the weights of the architecture that was found (settling), on the whole split and through the ordinary engine. What
comes out is a trained supernet like any other, and an architecture: search and export go on from there.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.batches import Prefetcher
from experiments.experiment import Experiment
from experiments.gradient.data import GradientBatch, GradientBatches
from experiments.gradient.result import Outcome, decide, publish
from experiments.objective import objective_of
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.process.progress import progress_bar
from experiments.records import GradientFigures
from experiments.run_directory import RunDirectory
from experiments.storage.checkpoints import Checkpoints
from experiments.storage.tensorboard import EventLog
from experiments.training.stage import Progress, TrainingDiverged
from search import ResolvedBudget
from search_spaces import UserError
from search_spaces.randomness import Purpose
from supernet.engine.randomness import key
from supernet.engine.superposed import build_superposed, values_of
from supernet.gradient.expected_cost import ExpectedCost
from supernet.gradient.gradient_search import GradientState, GradientStep, entropies_by_choice
from supernet.gradient.relaxation import Relaxation
from supernet.layers.passes import Passes
from supernet.training.training import TrainStep

_WAY = 6.0


def gradient_search(
    experiment: Experiment, checkpoints: Checkpoints, run: RunDirectory, stop: StopRequest, quiet: bool
) -> GradientFigures:
    """Trains architecture and weights, and hands both on.

    Args:
        experiment: Experiment to train, with its section `gradient`.
        checkpoints: Checkpoints of the run's supernet; the last step is saved there.
        run: Its directory; checkpoints of the search and the architecture go to `gradient/`.
        stop: Read between steps.
        quiet: No progress bar.

    Returns:
        Figures for the summary.

    Raises:
        UserError: No budget is named where there are several, or the run's supernet was trained otherwise.
        TrainingDiverged: A loss is not finite.
        Interrupted: `stop` was requested; a checkpoint of the step is saved.
    """
    search, home = _Search(experiment), run.path / "gradient"
    keep, identity = experiment.config.train.keep_last, experiment.config.identity
    with Checkpoints(home / "checkpoints", keep, keep_best=0, run=identity) as own:
        published = checkpoints.latest()
        if published is not None and (own.latest() or 0) < search.steps:
            raise UserError(
                f"{run.path}: its supernet was trained by `supernest train`. Choose another directory with --out."
            )
        state = search.train(own, run, stop, quiet)
        outcome = search.outcome(state)
        if published is None:
            checkpoints.save(search.steps, Progress(state.train, experiment.sampler.init()))
            checkpoints.wait()
    return publish(experiment, outcome, state.train.evaluation_params, run, stop, quiet, search.steps)


def budget_of(experiment: Experiment) -> ResolvedBudget:
    """Returns the budget of the configuration.

    Raises:
        UserError: There are several, and none is named.
    """
    name, known = experiment.config.gradient.budget, {budget.name: budget for budget in experiment.budgets}
    if name is None and len(known) > 1:
        raise UserError(f"gradient.budget: not set, and there are {len(known)}. Name one of {', '.join(known)}.")
    return known[name] if name is not None else experiment.budgets[0]


class _Search:
    """The training of one experiment, put together."""

    def __init__(self, experiment: Experiment) -> None:
        settings, train = experiment.config.gradient, experiment.config.train
        self._experiment, self._settings = experiment, settings
        self._budget = budget_of(experiment)
        self._objective = objective_of(experiment.data)
        self._relaxation: Relaxation = settings.build()
        self.steps = experiment.steps
        self._search_steps = max(self.steps - round(settings.settle * self.steps), 1)
        self._warmup_steps = round(settings.warmup * self._search_steps)
        self._net = build_superposed(experiment.space, experiment.net.sharing, Passes(train.precision))
        cost = ExpectedCost(experiment.space, self._budget.limits, experiment.searcher.costs)
        if train.exits:
            raise UserError("train.exits: not for gradient search, whose networks are mixtures of all depths. Set [].")
        # Distillation is between paths; here is one.
        outputs = experiment.data.training_outputs(train.label_smoothing)
        self._train_step = TrainStep(
            self._net, train.optimizer.build(self.steps), average_decay=train.ema, outputs=outputs
        )
        rate = settings.learning_rate or _WAY * settings.every / self._search_steps
        self._step = GradientStep(
            self._net,
            self._relaxation,
            cost,
            self._train_step,
            rate,
            settings.cost_weight,
            settings.multiplier_rate,
            settings.shortfall_weight,
        )
        self._batches = GradientBatches(experiment, self._search_steps, self._warmup_steps, settings.every)
        self._key = key(experiment.config.seed, Purpose.RELAXED_DRAWS)
        values = jnp.asarray(values_of(experiment.space))
        self._probabilities = jax.jit(lambda logits: self._relaxation.probabilities(logits, values))
        self._expected = jax.jit(cost)
        self._settled: np.ndarray | None = None

    def initial(self) -> GradientState:
        """Returns the state before the first step."""
        seed = self._experiment.config.seed
        params = self._net.init(key(seed, Purpose.WEIGHTS))
        return self._step.init(params, key(seed, Purpose.RELAXED_START))

    def train(self, checkpoints: Checkpoints, run: RunDirectory, stop: StopRequest, quiet: bool) -> GradientState:
        """Trains up to the last step."""
        settings, state = self._experiment.config.train, self.initial()
        done = checkpoints.latest() or 0
        if done:
            done, state = checkpoints.restore(state)
        if done >= self.steps:
            return state
        bar, reached = progress_bar(total=self.steps, initial=done, desc="gradient", unit="step", quiet=quiet), {}
        with (
            bar,
            EventLog(run.tensorboard / "gradient", done) as log,
            Prefetcher(self._batches, range(done, self.steps)) as batches,
        ):
            for batch in batches:
                state, values = self._advance(state, batch, checkpoints)
                done = batch.step + 1
                last, stopping = done == self.steps, bool(stop)
                bar.update()
                if last or done % settings.log_every == 0:
                    log.scalars(done, values | self._curves(state, batch.step))
                if last or done % settings.evaluate_every == 0:
                    error = self._error(state)
                    log.scalars(done, {f"validation_{self._objective.name}/architecture": error})
                    reached = {self._objective.shown: self._objective.text(error)}
                bar.set_postfix({"loss": f"{values['loss/weights']:.3f}", **reached}, refresh=False)
                if last or stopping or done % settings.checkpoint_every == 0:
                    log.flush()
                    checkpoints.save(done, state)
                if stopping and not last:
                    checkpoints.wait()
                    text = f"stopped after gradient step {done} of {self.steps}; a checkpoint of it is saved"
                    raise Interrupted(text)
            checkpoints.wait()
        return state

    def outcome(self, state: GradientState) -> Outcome:
        """Returns the architecture of the logits."""
        probabilities = self._probabilities(state.logits)
        return decide(
            self._experiment, self._budget, np.asarray(probabilities), np.asarray(self._expected(probabilities)),
            entropies_by_choice(self._experiment.space, probabilities),
        )  # fmt: skip

    def _advance(
        self, state: GradientState, batch: GradientBatch, checkpoints: Checkpoints
    ) -> tuple[GradientState, dict[str, float]]:
        """One step of the phase that it falls in."""
        if batch.step >= self._search_steps:
            if self._settled is None:
                self._settled = self.outcome(state).genes[None]
            train, result = self._train_step(
                state.train, self._settled, ("random",), np.ones(1, np.float32), *batch.weights
            )
            loss, mean = result.paths[0].loss, result.paths[0].figure
            state, norm, values = state._replace(train=train), result.gradient_norm, {}
        else:
            of_architecture, of_weights = jax.random.split(jax.random.fold_in(self._key, batch.step))
            temperature, values = self._temperature(batch.step), {}
            if batch.architecture is not None:
                fed, entropy_weight = batch.architecture, self._entropy_weight(batch.step)
                state, architecture = self._step.architecture(
                    state, of_architecture, fed.x, fed.targets, temperature, entropy_weight, fed.example_weights
                )
                values["loss/architecture"] = self._finite(architecture.loss, batch.step, "architecture", checkpoints)
            fed = batch.weights
            state, (loss, mean, norm) = self._step.weights(
                state, of_weights, fed.x, fed.targets, temperature, fed.example_weights
            )
        values["loss/weights"] = self._finite(loss, batch.step, "weights", checkpoints)
        outputs = self._experiment.data.outputs
        figure = float(outputs.figure_of(np.asarray(mean)))
        return state, values | {f"{outputs.figure}/weights": figure, "train/gradient_norm": float(norm)}

    def _temperature(self, step: int) -> float:
        return self._relaxation.temperature_at(min(step / max(self._search_steps - 1, 1), 1.0))

    def _entropy_weight(self, step: int) -> float:
        start = self._settings.entropy_from * self._search_steps
        return self._settings.entropy * max(0.0, (step - start) / max(self._search_steps - 1 - start, 1))

    def _curves(self, state: GradientState, step: int) -> dict[str, float]:
        probabilities = self._probabilities(state.logits)
        limits = zip(self._budget.limits, self._expected(probabilities), state.multipliers, strict=True)
        values = {
            "gradient/temperature": self._temperature(step),
            "gradient/entropy_weight": self._entropy_weight(step),
        }
        for (metric, most), share, multiplier in limits:
            values[f"expected_cost/{metric}"] = float(share) * most
            values[f"expected_cost_over_budget/{metric}"] = float(share)
            values[f"multiplier/{metric}"] = float(multiplier)
        entropies = entropies_by_choice(self._experiment.space, probabilities)
        return values | {f"entropy/{name}": value for name, value in entropies.items()}

    def _error(self, state: GradientState) -> float:
        scores = self._experiment.evaluator(state.train.evaluation_params, self.outcome(state).genes[None])
        return float(self._objective.of(scores)[0])

    def _finite(self, loss: jax.Array | np.ndarray, step: int, part: str, checkpoints: Checkpoints) -> float:
        if math.isfinite(value := float(loss)):
            return value
        raise TrainingDiverged(
            f"gradient: the loss of the {part} is {value} at step {step}; {checkpoints.last_good()}. "
            "Lower train.optimizer.learning_rate or set clip_norm, in a new run directory."
        )
