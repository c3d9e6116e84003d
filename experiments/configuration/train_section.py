"""The section `train`: how the supernet is trained."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationInfo,
    model_validator,
)

from experiments.configuration.incubation_section import IncubationSection
from experiments.configuration.number_types import Batch, Positive
from experiments.configuration.plugin_section import STRICT, as_mapping, build_settings
from experiments.user_input.paths import path_fault, shown
from experiments.user_input.problems import Problem, ProblemsError
from supernet.evolution_strategy.settings import EvolutionStrategySettings
from supernet.tasks.distillation import Distillation
from supernet.training.optimizer import OptimizerSettings


def _distillation(given: Any, info: ValidationInfo) -> Distillation:
    """The settings, with directories of teachers made absolute: they are relative to the experiment file."""
    directory = (info.context or {}).get("paths_from")
    if isinstance(given, Mapping) and directory is not None and isinstance(given.get("teachers"), list | tuple):
        names = list(given["teachers"])
        for i, name in enumerate(names):
            fault = path_fault(name) if isinstance(name, str) else None
            if fault is not None:
                raise ProblemsError([Problem(("teachers", i), f"{shown(name)} {fault}")])
            if isinstance(name, str) and Path(directory, name).is_dir():
                names[i] = os.path.realpath(Path(directory, name))
        given = {**given, "teachers": names}
    return build_settings(Distillation, given)


Optimized = Annotated[
    InstanceOf[OptimizerSettings],
    BeforeValidator(lambda v: build_settings(OptimizerSettings, v)),
    PlainSerializer(as_mapping),
]
Evolved = Annotated[
    InstanceOf[EvolutionStrategySettings],
    BeforeValidator(lambda v: build_settings(EvolutionStrategySettings, v)),
    PlainSerializer(as_mapping),
]
Distilled = Annotated[InstanceOf[Distillation], BeforeValidator(_distillation), PlainSerializer(as_mapping)]


class TrainSection(BaseModel):
    """Training of the supernet.

    Attributes:
        steps: Number of training steps; give this or `epochs`.
        epochs: Number of passes over the training split; give this or `steps`.
        batch_size: Number of examples a step.
        path_batch: Examples of each path of a step. `whole`: the whole batch. `share`: path i of k gets the i-th of k
            equal parts, so that a step is k times cheaper, with a noisier gradient.
        accumulate: Number of parts of the batch that are computed one after the other, so that a step needs less
            memory; the update is that of the whole batch.
        precision: Type of products. `bfloat16` computes products in that type; sums, weights and gradients stay in
            float32.
        rematerialize: Keep only the inputs of sublayers for the backward pass and compute the rest again, to save
            memory. `auto` does so if the residuals would take more than half of the device's memory.
        method: Source of the direction that the optimiser takes. `gradient`: backpropagation. `evolution_strategy`: the
            fitness of a population of perturbed networks, which need not be differentiable.
        evolution_strategy: Population, perturbations and fitness of that method.
        optimizer: Learning rate, decay and clipping.
        label_smoothing: Share of the target that is spread over all classes; at least 0, less than 1. For classes and
            translation; not for language models.
        distillation: Teachers of a step's paths, besides labels.
        exits: Numbers of layers after which the loss is computed too, by the same norm and head, in one pass (sorted
            fine-tuning); the loss of a path is the mean over its exits. Some depths of the space, ascending, up to the
            largest; empty for the loss after the last layer only. The networks of these depths are the trained exits.
        ema: Decay rate per step of the weights' moving average, which search and export use; null for none.
        checkpoint_every: Number of steps between checkpoints.
        keep_last: Number of the last checkpoints that stay on disk.
        keep_best: Number of checkpoints with the lowest validation error of the probe subnets that stay on disk too.
        checkpoint: Checkpoint that search, rank and export use: the `last` or the `best`. It may be changed during a
            run, but a search resumes only with the weights with which it started.
        evaluate_every: Number of steps between evaluations of probe subnets on the validation split.
        log_every: Number of steps between figures in TensorBoard.
        diagnose_every: Number of steps between diagnostics of the sampling (gradient cosines and variance, visits, loss
            by size, learned distributions); null for none.
        incubation: Start from a network whose modules were trained one by one; null for fresh or imported weights.
    """

    model_config = STRICT

    steps: Positive | None = None
    epochs: Positive | None = None
    batch_size: Batch = 64
    path_batch: Literal["whole", "share"] = "whole"
    accumulate: Batch = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    rematerialize: bool | Literal["auto"] = "auto"
    method: Literal["gradient", "evolution_strategy"] = "gradient"
    evolution_strategy: Evolved = EvolutionStrategySettings()
    optimizer: Optimized = OptimizerSettings()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    distillation: Distilled = Distillation()
    exits: tuple[Positive, ...] = ()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.999
    checkpoint_every: Positive = 200
    keep_last: Annotated[int, Field(ge=1, le=10**6)] = 2
    keep_best: Annotated[int, Field(ge=0, le=10**6)] = 1
    checkpoint: Literal["last", "best"] = "last"
    evaluate_every: Positive = 200
    log_every: Positive = 20
    diagnose_every: Annotated[int, Field(ge=2, le=10**9)] | None = 200
    incubation: IncubationSection | None = None

    def total_steps(self, examples: int) -> int:
        """Returns the number of training steps for a number of training examples, also if `epochs` are given."""
        return self.steps or -(-(self.epochs or 0) * examples // self.batch_size)

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSection":
        if (self.steps is None) == (self.epochs is None):
            given = "neither steps nor epochs are" if self.steps is None else "both steps and epochs are"
            raise ProblemsError([Problem((), f"{given} given. Set exactly one of them.")])
        return self

    @model_validator(mode="after")
    def _exits_ascend(self) -> "TrainSection":
        if self.exits and (len(self.exits) < 2 or list(self.exits) != sorted(set(self.exits))):
            text = (
                f"{list(self.exits)} are not at least two numbers of layers in ascending order. Set for example [2, 4]."
            )
            raise ProblemsError([Problem(("exits",), text)])
        return self

    @model_validator(mode="after")
    def _best_is_kept(self) -> "TrainSection":
        if self.checkpoint == "best" and not self.keep_best:
            text = "best, but keep_best is 0, so that none is kept. Set keep_best to 1 or more, or checkpoint to last."
            raise ProblemsError([Problem(("checkpoint",), text)])
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> "TrainSection":
        warmup = self.optimizer.warmup_steps
        if self.steps is not None and warmup >= self.steps:
            text = f"{warmup} is not less than the {self.steps} training steps. Give at most {self.steps - 1}."
            raise ProblemsError([Problem(("optimizer", "warmup_steps"), text)])
        if self.incubation is not None:
            self.incubation.check_warmup(self.optimizer)
        return self
