"""The sections of an experiment: data, device, space, supernet, sampler, training, search, evaluation, and so on."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from experiments.configuration.plugin_section import STRICT, PluginSection, as_mapping, build_settings
from experiments.data import SOURCES, AnySource, Dataset, Source, Split
from experiments.data.augment import Augmentation
from experiments.objective import LOSS, OBJECTIVES
from experiments.user_input.paths import path_fault, shown
from experiments.user_input.problems import Problem, ProblemsError, refused, unknown
from samplers import SAMPLERS, Plan, Sampler
from search import SEARCHERS, CostFunction, ResolvedBudget, Searcher
from search.halving import in_batches
from search_spaces import FAMILIES, Registry, SearchSpace, UserError, build_space
from supernet.gradient.relaxation import RELAXATIONS, Relaxation
from supernet.sharing import SHARING
from supernet.tasks.distillation import Distillation
from supernet.tasks.task import TASKS
from supernet.training.optimizer import OptimizerSettings

Positive = Annotated[int, Field(ge=1, le=10**9)]
Batch = Annotated[int, Field(ge=1, le=2**24)]
Weight = Annotated[float, Field(ge=0, le=1e9)]
Augmented = Annotated[
    InstanceOf[Augmentation], BeforeValidator(lambda v: build_settings(Augmentation, v)), PlainSerializer(as_mapping)
]
Optimized = Annotated[
    InstanceOf[OptimizerSettings],
    BeforeValidator(lambda v: build_settings(OptimizerSettings, v)),
    PlainSerializer(as_mapping),
]


def _located(directory: Path, settings: Mapping[str, Any], name: str, names: Collection[str]) -> Any:
    """A path as an absolute one; one of `names` that is no path here stays what it is."""
    given = settings[name]
    if not isinstance(given, str):
        return given
    fault = path_fault(given)
    if fault is not None:
        raise ProblemsError([Problem((name,), f"{shown(given)} {fault}")])
    path = Path(directory, Path(given).expanduser())
    return given if name in names and not path.exists() else os.path.normpath(path)


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


Distilled = Annotated[InstanceOf[Distillation], BeforeValidator(_distillation), PlainSerializer(as_mapping)]


class DataSection(PluginSection):
    """Which data, how they are split, and what is done to training images.

    Attributes:
        source: A registered source; its settings stand beside these.
        validation_fraction: Share of the training examples that search ranks subnets by; in (0, 1). Not used where the
            source has a validation split of its own.
        hold_out: Take that share even where the source has a validation split, which is then not used.
        train_limit: At most so many training examples.
        augmentation: Of training images.
    """

    selector: ClassVar[str] = "source"

    source: str = "digits"
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    hold_out: bool = False
    train_limit: Annotated[int, Field(ge=2, le=10**9)] | None = None
    augmentation: Augmented = Augmentation()

    @classmethod
    def registry(cls) -> Registry[Any]:
        return SOURCES

    @classmethod
    def _located(cls, plugin: Any, settings: dict[str, Any], directory: Path | None) -> dict[str, Any]:
        if directory is None:
            return settings
        located = {name: _located(directory, settings, name, plugin.names) for name in plugin.paths if name in settings}
        return {**settings, **located}

    def build(self) -> AnySource:
        """The source.

        Raises:
            UserError: The source refuses a setting.
        """
        return self.plugin(**self.settings)

    def load(self, seed: int) -> Dataset:
        """The data, read, checked and split.

        Raises:
            UserError: Something is missing, corrupt or cannot be split as wanted.
        """
        return self.build().load(seed, self.validation_fraction, self.train_limit, self.hold_out)

    def load_split(self, seed: int, split: str) -> tuple[Split, tuple[str, ...], str]:
        """One split, its class names and what an example is called; of a test split only itself need be there.

        Raises:
            UserError: Something is missing, corrupt or cannot be split as wanted.
        """
        source = self.build()
        if split == "test" and isinstance(source, Source):
            return *source.read_test(), TASKS[source.inputs].unit
        data = self.load(seed)
        return getattr(data, split), data.class_names, data.unit


class SpaceSection(PluginSection):
    """What may vary: a family, one of its presets, and fields of the family that override the preset.

    Attributes:
        family: A registered family.
        preset: One of its presets.
    """

    selector: ClassVar[str] = "family"
    partial: ClassVar[bool] = True

    family: str
    preset: str | None = None

    @classmethod
    def registry(cls) -> Registry[Any]:
        return FAMILIES

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str | None, info: ValidationInfo) -> str | None:
        if preset is not None and "family" in info.data:
            presets = FAMILIES[info.data["family"]].presets
            if preset not in presets:
                raise ProblemsError([unknown(preset, presets)])
        return preset

    def build(self, data: Dataset) -> SearchSpace:
        """The space for a data set; settings that are left open are taken from it.

        Raises:
            UserError: The settings contradict each other or the data.
        """
        family = FAMILIES[self.family]
        if not family.takes(data.inputs):
            names = [name for name in FAMILIES if FAMILIES[name].takes(data.inputs)]
            choose = f"Choose one of {', '.join(names)}, or" if names else "Name a family that takes them, or"
            raise UserError(
                f"space.family: {self.family} takes {' or '.join(family.tasks())}, and the data are {data.inputs}. "
                f"{choose} another data.source."
            )
        from_data = data.settings({field.name for field in dataclasses.fields(family)})  # type: ignore[arg-type]
        for name, value in from_data.items():
            if name in self.settings:
                data.check_setting(name, self.settings[name], value)
        return build_space(self.family, self.preset, {**from_data, **self.settings})


class SupernetSection(BaseModel):
    """How the subnets share weights.

    Attributes:
        sharing: A registered scheme.
    """

    model_config = STRICT

    sharing: str = "entangled"

    @field_validator("sharing")
    @classmethod
    def _known(cls, sharing: str) -> str:
        if sharing not in SHARING:
            raise ProblemsError([unknown(sharing, SHARING)])
        return sharing


class SamplerSection(PluginSection):
    """Which paths a step trains.

    Attributes:
        type: A registered sampler; its settings stand beside this.
    """

    selector: ClassVar[str] = "type"
    arguments: ClassVar[frozenset[str]] = frozenset({"space", "seed", "plan", "cost"})

    type: str = "sandwich"

    @classmethod
    def registry(cls) -> Registry[Any]:
        return SAMPLERS

    def build(self, space: SearchSpace, seed: int, plan: Plan, cost: CostFunction | None = None) -> Sampler:
        """The sampler of a space.

        Raises:
            UserError: The sampler refuses a setting.
        """
        return self.plugin(space=space, seed=seed, plan=plan, cost=cost, **self.settings)


class TrainSection(BaseModel):
    """How the supernet is trained.

    Attributes:
        steps: How many; or `epochs`.
        epochs: Passes over the training split; or `steps`.
        batch_size: Examples a step.
        path_batch: `whole`: each path of a step sees the whole batch. `share`: path i of k sees the i-th of k equal
            parts, which makes a step k times cheaper; its gradient is noisier.
        accumulate: Parts of the batch that are passed one after the other, so that less memory holds a step; the
            update is that of the whole batch.
        precision: `bfloat16` computes products in that type and adds up in float32, which weights and gradients keep.
        rematerialize: Keep only the inputs of sublayers for the backward pass and compute the rest again; `auto` does
            so where what would be kept takes more than half of the device's memory.
        optimizer: Rate, decay, clipping.
        label_smoothing: Share of the target that is spread over all classes; at least 0, less than 1. Not for text.
        distillation: What the paths of a step learn from besides labels.
        ema: Decay of the weights' moving average, which search and export then use; null for none.
        checkpoint_every: Steps between checkpoints.
        keep_last: How many of the last checkpoints stay.
        keep_best: How many of those with the lowest validation error of the probe subnets do.
        checkpoint: Which one search, rank and export take: the `last`, or the `best` of these; may differ from that of
            a run that has begun, but a search goes on with the weights that it began with only.
        evaluate_every: Steps between evaluations of probe subnets on the validation split.
        log_every: Steps between figures in TensorBoard.
        diagnose_every: Steps between diagnostics of the sampling (gradient cosines and variance, visits, loss by
            size, learned distributions); null for none.
    """

    model_config = STRICT

    steps: Positive | None = None
    epochs: Positive | None = None
    batch_size: Batch = 64
    path_batch: Literal["whole", "share"] = "whole"
    accumulate: Batch = 1
    precision: Literal["float32", "bfloat16"] = "float32"
    rematerialize: bool | Literal["auto"] = "auto"
    optimizer: Optimized = OptimizerSettings()
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    distillation: Distilled = Distillation()
    ema: Annotated[float, Field(gt=0, lt=1)] | None = 0.999
    checkpoint_every: Positive = 200
    keep_last: Annotated[int, Field(ge=1, le=10**6)] = 2
    keep_best: Annotated[int, Field(ge=0, le=10**6)] = 1
    checkpoint: Literal["last", "best"] = "last"
    evaluate_every: Positive = 200
    log_every: Positive = 20
    diagnose_every: Annotated[int, Field(ge=2, le=10**9)] | None = 200

    def total_steps(self, examples: int) -> int:
        """Training steps over so many training examples, also where `epochs` are given."""
        return self.steps or -(-(self.epochs or 0) * examples // self.batch_size)

    @model_validator(mode="after")
    def _one_length(self) -> "TrainSection":
        if (self.steps is None) == (self.epochs is None):
            given = "neither steps nor epochs are" if self.steps is None else "both steps and epochs are"
            raise ProblemsError([Problem((), f"{given} given. Set exactly one of them.")])
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
        return self


class SearchSection(PluginSection):
    """Which subnets are tried.

    Attributes:
        type: A registered searcher; its settings stand beside these.
        evaluations: How many subnets are evaluated.
        batch: The most that are evaluated between two writes of the archive; a generation when null.
    """

    selector: ClassVar[str] = "type"
    arguments: ClassVar[frozenset[str]] = frozenset({"space", "budgets", "seed", "cost"})

    type: str = "evolution"
    evaluations: Annotated[int, Field(ge=1, le=10**7)] = 500
    batch: Annotated[int, Field(ge=1, le=10**6)] | None = None

    @classmethod
    def registry(cls) -> Registry[Any]:
        return SEARCHERS

    def build(
        self, space: SearchSpace, budgets: tuple[ResolvedBudget, ...], seed: int, batches: int,
        cost: CostFunction | None = None,
    ) -> Searcher:  # fmt: skip
        """The searcher of a space, for a validation split of so many batches.

        Raises:
            UserError: The searcher refuses a setting.
        """
        searcher = self.plugin(space=space, budgets=budgets, seed=seed, cost=cost, **self.settings)
        return dataclasses.replace(searcher, halving=in_batches(searcher.halving, batches))


class GradientSection(PluginSection):
    """How `supernest gradient` trains architecture and weights together, in the steps and batches of `train`.

    Attributes:
        type: A registered relaxation; its settings stand beside these.
        budget: The budget that is steered to, by name; may be null where there is one only.
        architecture_data: Share of the training split that the architecture learns from, the weights from the rest;
            published codes take half.
        learning_rate: Of the architecture's logits, by Adam; null for 6 over the steps, the way that the published
            rate of 3e-4 goes in 20,000 steps.
        every: Steps of the weights for one of the architecture.
        warmup: Share of the steps that train weights alone at the beginning; published codes have none.
        settle: Share of the steps that train the weights of the found architecture alone, in the end, on the whole
            training split; published codes have none, and train what they found anew.
        cost_weight: Weight of the squared excess over the budget.
        multiplier_rate: What the weight of an excess grows by in a step, times the excess.
        shortfall_weight: Weight of the squared shortfall below the budget; 0 leaves networks that are cheaper alone.
        entropy: Weight of the mean entropy of the genes' distributions (in nats) at the end of the search.
        entropy_from: Share of the steps before the architecture settles after which that weight begins to grow from 0.
    """

    selector: ClassVar[str] = "type"

    type: str = "drnas"
    budget: str | None = None
    architecture_data: Annotated[float, Field(gt=0, lt=1)] = 0.5
    learning_rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    every: Positive = 1
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    settle: Annotated[float, Field(ge=0, lt=1)] = 0.3
    cost_weight: Annotated[float, Field(gt=0, le=1e9)] = 10.0
    multiplier_rate: Weight = 0.1
    shortfall_weight: Weight = 10.0
    entropy: Weight = 0.1
    entropy_from: Annotated[float, Field(ge=0, lt=1)] = 0.5

    @classmethod
    def registry(cls) -> Registry[Any]:
        return RELAXATIONS

    @model_validator(mode="after")
    def _works(self) -> "GradientSection":
        try:
            self.build()
        except UserError as error:
            raise ProblemsError([refused(error, self.settings)]) from None
        return self

    def build(self) -> Relaxation:
        """The relaxation.

        Raises:
            UserError: It refuses a setting.
        """
        return self.plugin(**self.settings)


class EvaluationSection(BaseModel):
    """How subnets are evaluated.

    Attributes:
        batch_size: Examples a dispatch; another size gives the same accuracies.
        calibration_batches: Training batches from which batch statistics are estimated anew for each subnet.
        calibration_batch_size: Examples in each of these batches; all training examples where there are fewer.
    """

    model_config = STRICT

    batch_size: Batch = 256
    calibration_batches: Annotated[int, Field(ge=1, le=10**6)] = 8
    calibration_batch_size: Batch = 256


class ExportSection(BaseModel):
    """What an exported subnet holds besides its weights.

    Attributes:
        stablehlo: The forward pass as StableHLO too.
    """

    model_config = STRICT

    stablehlo: bool = True


class RankSection(BaseModel):
    """How the supernet's ranking of subnets is compared with the true one: that of a panel trained on its own.

    Attributes:
        panel: How many architectures; the whole space where it holds fewer.
        strata: Cost metric by which the panel is spread evenly.
        bins: Ranges of that cost, equally wide on a logarithmic scale, that hold equal numbers of the panel.
        steps: Training steps of each; those of the supernet when null.
        seeds: Trainings of each, whose results are averaged.
        objective: What architectures are ranked by: the validation `loss`, or the figure of the data (`accuracy` of
            classes, `rmse` of numbers); null for what search minimises.
        bootstrap: Resamples for the intervals.
        cache: Directory of the panel's results, to share them between runs; in the run directory when null.
    """

    model_config = STRICT

    panel: Annotated[int, Field(ge=3, le=10_000)] = 24
    strata: str = "macs"
    bins: Annotated[int, Field(ge=1, le=1000)] = 6
    steps: Positive | None = None
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    objective: str | None = None
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000
    cache: str | None = None

    @field_validator("objective")
    @classmethod
    def _known(cls, objective: str | None) -> str | None:
        known = {LOSS, *(one.figure for one in OBJECTIVES.values())}
        if objective is not None and objective not in known:
            raise ProblemsError([unknown(objective, sorted(known))])
        return objective

    @field_validator("cache")
    @classmethod
    def _located(cls, cache: str | None, info: ValidationInfo) -> str | None:
        directory = (info.context or {}).get("paths_from")
        if cache is None:
            return cache
        fault = path_fault(cache)
        if fault is not None:
            raise ProblemsError([Problem((), f"{shown(cache)} {fault}")])
        if directory is None:
            return cache
        return os.path.normpath(Path(directory, Path(cache).expanduser()))
