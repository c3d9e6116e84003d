"""The sections `sampler`, `search` and `gradient`: which subnets are trained and tried."""

import dataclasses
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, field_validator, model_validator

from experiments.configuration.number_types import Positive, Weight
from experiments.configuration.plugin_section import STRICT, PluginSection
from experiments.user_input.problems import Problem, ProblemsError, refused, unknown
from samplers import SAMPLERS, Plan, Sampler
from search import SEARCHERS, CostFunction, ResolvedBudget, Searcher
from search.halving import in_parts
from search_spaces import Registry, SearchSpace, UserError
from search_spaces.predictor import SCORED
from supernet.gradient.relaxation import RELAXATIONS, Relaxation
from supernet.proxies import PROXIES


class SamplerSection(PluginSection):
    """Choice of the paths that a training step trains.

    Attributes:
        type: Name of a registered sampler; its settings are given beside this key.
    """

    selector: ClassVar[str] = "type"
    arguments: ClassVar[frozenset[str]] = frozenset({"space", "seed", "plan", "cost"})

    type: str = "sandwich"

    @classmethod
    def registry(cls) -> Registry[Any]:
        return SAMPLERS

    def build(self, space: SearchSpace, seed: int, plan: Plan, cost: CostFunction | None = None) -> Sampler:
        """Builds the sampler of a space.

        Raises:
            UserError: The sampler refuses a setting.
        """
        return self.plugin(space=space, seed=seed, plan=plan, cost=cost, **self.settings)


class ProxySection(BaseModel):
    """Zero-cost proxies of untrained networks, for a warm start and for predictors that learn from them.

    Attributes:
        names: Names of the proxies; each must be defined for the networks.
        batch: Number of training examples on which the proxies are computed.
        warm_start: Number of random subnets. The best of them, by mean rank over the proxies, are evaluated first in
            place of random ones; null for none.
    """

    model_config = STRICT

    names: Annotated[tuple[str, ...], Field(min_length=1)]
    batch: Annotated[int, Field(ge=2, le=65_536)] = 32
    warm_start: Annotated[int, Field(ge=2, le=100_000)] | None = None

    @field_validator("names")
    @classmethod
    def _are_proxies(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in PROXIES:
                raise ProblemsError([unknown(name, list(PROXIES))])
        return names


class SearchSection(PluginSection):
    """Choice of the subnets that are evaluated.

    Attributes:
        type: Name of a registered searcher; its settings are given beside this key.
        evaluations: Number of subnets that are evaluated.
        batch: Largest number of subnets that are evaluated between two writes of the archive; null for a generation.
        proxies: Zero-cost proxies with which the search starts, or from which a predictor learns; null for none.
        objective: Metric that the search optimises, such as `bleu` of translations; null for the figure of the data.
        objective_examples: Largest number of validation examples on which that metric is computed.
    """

    selector: ClassVar[str] = "type"
    arguments: ClassVar[frozenset[str]] = frozenset({"space", "budgets", "seed", "cost", "scored"})

    type: str = "evolution"
    evaluations: Annotated[int, Field(ge=1, le=10**7)] = 500
    batch: Annotated[int, Field(ge=1, le=10**6)] | None = None
    proxies: ProxySection | None = None
    objective: str | None = None
    objective_examples: Positive = 100

    @classmethod
    def registry(cls) -> Registry[Any]:
        return SEARCHERS

    @model_validator(mode="after")
    def _has_objective(self) -> "SearchSection":
        if self.objective is None and self.objective_examples != type(self).model_fields["objective_examples"].default:
            text = "has no effect without search.objective. Set that, or leave it out."
            raise ProblemsError([Problem(("objective_examples",), text)])
        return self

    @model_validator(mode="after")
    def _has_proxies(self) -> "SearchSection":
        for kind in self.settings.get("predictors", ()):
            if kind in SCORED and self.proxies is None:
                text = f"{kind} learns from proxies of the networks. Name some: search.proxies.names: [nwot, synflow]."
                raise ProblemsError([Problem(("predictors",), text)])
        learned = set(self.settings.get("predictors", ())) & set(SCORED)
        if self.proxies is not None and self.proxies.warm_start is None and not learned:
            text = (
                f"has no effect without a warm start, or a predictor that learns from proxies ({', '.join(SCORED)}, of "
                "the searcher linas). Set search.proxies.warm_start, or leave it out."
            )
            raise ProblemsError([Problem(("proxies",), text)])
        return self

    def build(
        self, space: SearchSpace, budgets: tuple[ResolvedBudget, ...], seed: int, parts: int,
        cost: CostFunction | None = None,
    ) -> Searcher:  # fmt: skip
        """Builds the searcher of a space where candidates are evaluated in this many parts of the validation split.

        Raises:
            UserError: The searcher refuses a setting.
        """
        searcher = self.plugin(space=space, budgets=budgets, seed=seed, cost=cost, **self.settings)
        return dataclasses.replace(searcher, halving=in_parts(searcher.halving, parts))


class GradientSection(PluginSection):
    """Training of architecture and weights together (`supernest gradient`), in the steps and batches of `train`.

    Attributes:
        type: Name of a registered relaxation; its settings are given beside this key.
        budget: Name of the budget that the architecture shall meet; may be null if there is only one.
        architecture_data: Share of the training split that the architecture learns from; the weights learn from the
            rest. Published codes take half.
        learning_rate: Learning rate of the architecture's logits, by Adam; null for 6 divided by the number of steps
            (3e-4, the published rate, at 20,000 steps).
        every: Number of weight steps for each step of the architecture.
        warmup: Share of the steps, at the beginning, that train only the weights; published codes have none.
        settle: Share of the steps, at the end, that train only the weights of the final architecture, on the whole
            training split; published codes have none, and train the final architecture from scratch.
        cost_weight: Weight of the squared excess over the budget, where the excess is a share of the budget.
        multiplier_rate: Growth of the weight of an excess in a step, as a multiple of the excess.
        shortfall_weight: Weight of the squared shortfall below the budget; 0 does not push cheaper networks up.
        entropy: Weight of the mean entropy of the genes' distributions (in nats) at the end of the search.
        entropy_from: Share of the steps before `settle` after which the weight of the entropy begins to grow from 0.
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
        """Builds the relaxation.

        Raises:
            UserError: The relaxation refuses a setting.
        """
        return self.plugin(**self.settings)
