"""The sections `evaluation`, `export` and `rank`: how results are measured, and what is written of them."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from experiments.configuration.number_types import Batch, Positive
from experiments.configuration.plugin_section import STRICT
from experiments.objective import LOSS, OBJECTIVES
from experiments.truth_tables import TABLES
from experiments.user_input.paths import path_fault, shown
from experiments.user_input.problems import Problem, ProblemsError, unknown
from search_spaces.predictor import PREDICTORS, SCORED
from supernet.proxies import PROXIES


class EvaluationSection(BaseModel):
    """Evaluation of subnets.

    Attributes:
        batch_size: Number of examples that are evaluated at once; accuracies do not depend on it.
        calibration_batches: Number of training batches from which the batch statistics of a subnet are estimated.
        calibration_batch_size: Number of examples in each of these batches; at most all training examples.
        metrics: Further figures of exported networks, such as `bleu` of translations; they take longer.
    """

    model_config = STRICT

    batch_size: Batch = 256
    calibration_batches: Annotated[int, Field(ge=1, le=10**6)] = 8
    calibration_batch_size: Batch = 256
    metrics: tuple[str, ...] = ()

    @property
    def scores(self) -> dict[str, int]:
        """Settings that scores depend on, by name."""
        return self.model_dump(exclude={"metrics"})


class ExportSection(BaseModel):
    """Content of an exported subnet besides its weights.

    Attributes:
        stablehlo: Also write the forward pass as a serialised program (`forward.jax_export`) and as StableHLO text
            (`forward.mlir`).
    """

    model_config = STRICT

    stablehlo: bool = True


class EarlyStoppingSection(BaseModel):
    """Trainings that stop once their outcome is known well enough from their learning curve; it is then the forecast.

    Attributes:
        tolerance: Largest allowed difference between final result and forecast: a share of 1 for accuracies (0.01 is
            one percentage point), a share of the first measured value for losses and errors.
        confidence: Probability with which the difference must stay within the tolerance.
        evaluations: Largest number of evaluations on the validation split over a whole training.
    """

    model_config = STRICT

    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.01
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9
    evaluations: Annotated[int, Field(ge=4, le=100)] = 20


class RankSection(BaseModel):
    """Comparison of the supernet's ranking of subnets with the true one: that of a panel trained on its own.

    Attributes:
        panel: Number of architectures in the panel; the whole space if it has fewer.
        strata: Cost metric by which the panel is spread evenly.
        bins: Number of ranges of that cost, equally wide on a logarithmic scale, with equal numbers of the panel in
            each.
        steps: Number of training steps of each architecture; null for that of the supernet.
        seeds: Number of trainings of each architecture, whose results are averaged.
        objective: Figure that architectures are ranked by: the validation `loss`, or the figure of the data (`accuracy`
            of classes, `rmse` of numbers); null for the latter.
        bootstrap: Number of resamples for the intervals.
        cache: Directory of the panel's results, to share them between runs; null for one in the run directory.
        truth: Name of a table with the results of architectures that were trained alone; null trains the panel.
        truth_path: Directory of the table's files; null for `$SUPERNEST_DATA/NAME`.
        truth_measure: Column of the table with the true results; null for the table's default.
        early_stopping: Condition for stopping a network's training early; null never stops.
        proxies: Names of the zero-cost proxies that `supernest rank --proxies` compares; null for all that are defined
            for the networks.
        proxy_batch: Number of training examples that proxies are computed on.
        predictors: Names of predictors that `supernest rank --proxies` cross-validates on the panel: those that learn
            from genes (`ridge`, `svr`, `gradient_boosting`, `random_forest`) or from the proxies (`parzc`,
            `proxy_forest`).
        folds: Number of parts of the panel; each is predicted by predictors that learned from the others.
    """

    model_config = STRICT

    panel: Annotated[int, Field(ge=3, le=100_000)] = 24
    strata: str = "macs"
    bins: Annotated[int, Field(ge=1, le=1000)] = 6
    steps: Positive | None = None
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    objective: str | None = None
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000
    cache: str | None = None
    truth: str | None = None
    truth_path: str | None = None
    truth_measure: str | None = None
    early_stopping: EarlyStoppingSection | None = None
    proxies: tuple[str, ...] | None = None
    proxy_batch: Annotated[int, Field(ge=2, le=65_536)] = 32
    predictors: tuple[str, ...] = ()
    folds: Annotated[int, Field(ge=2, le=100)] = 5

    @field_validator("proxies")
    @classmethod
    def _are_proxies(cls, proxies: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in proxies or ():
            if name not in PROXIES:
                raise ProblemsError([unknown(name, list(PROXIES))])
        return proxies

    @field_validator("predictors")
    @classmethod
    def _are_predictors(cls, predictors: tuple[str, ...]) -> tuple[str, ...]:
        for name in predictors:
            if name not in (*PREDICTORS, *SCORED):
                raise ProblemsError([unknown(name, [*PREDICTORS, *SCORED])])
        return predictors

    @field_validator("truth")
    @classmethod
    def _is_table(cls, truth: str | None) -> str | None:
        if truth is not None and truth not in TABLES:
            raise ProblemsError([unknown(truth, list(TABLES))])
        return truth

    @field_validator("objective")
    @classmethod
    def _known(cls, objective: str | None) -> str | None:
        known = {LOSS, *(one.figure for one in OBJECTIVES.values())}
        if objective is not None and objective not in known:
            raise ProblemsError([unknown(objective, sorted(known))])
        return objective

    @field_validator("cache", "truth_path")
    @classmethod
    def _located(cls, cache: str | None, info: ValidationInfo) -> str | None:
        """Makes a path absolute."""
        directory = (info.context or {}).get("paths_from")
        if cache is None:
            return cache
        fault = path_fault(cache)
        if fault is not None:
            raise ProblemsError([Problem((), f"{shown(cache)} {fault}")])
        if directory is None:
            return cache
        return os.path.normpath(Path(directory, Path(cache).expanduser()))
