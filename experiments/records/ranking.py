"""Records of the rank stage: how well orders of a panel agree with the true one."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from experiments.records.plain import JsonObject

ESTIMATES = ("kendall_tau", "spearman", "tau_top_10", "tau_top_50", "regret")
"""Figures of a panel that have an interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure of the panel and its 95 % interval, over resamplings of the panel's architectures.

    Attributes:
        value: Value of the panel itself; NaN where it is not defined.
        low: Lower end of the interval.
        high: Upper end.
        reason: Why there is no value; empty where there is one.
    """

    value: float
    low: float
    high: float
    reason: str = ""

    def as_json(self) -> JsonObject:
        """Returns the estimate as JSON has it, None for what is not a number."""
        fields = dataclasses.asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in fields.items()}

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        value, low, high = (math.nan if content[k] is None else content[k] for k in ("value", "low", "high"))
        return cls(value, low, high, content["reason"] or "")


Estimates = Mapping[str, Estimate]
"""Each of `ESTIMATES` by name."""


@dataclass(frozen=True)
class BaselineFigures:
    """An order that needs no supernet, against the true one.

    Attributes:
        kendall_tau: Tau-b; None where it is not defined.
        tau_top_10: Tau-b among the truly best 10 %; None where these are too few.
        regret: Loss of the first of the order against the best of the panel; None with a reason.
        reason: Why nothing is known of it; None where something is.
    """

    kendall_tau: float | None = None
    tau_top_10: float | None = None
    regret: float | None = None
    reason: str | None = None

    def as_json(self) -> JsonObject:
        """Returns the figures as JSON has them: the reason alone, or the figures without one."""
        if self.reason is not None:
            return {"reason": self.reason}
        return {"kendall_tau": self.kendall_tau, "tau_top_10": self.tau_top_10, "regret": self.regret}


@dataclass(frozen=True)
class OtherCounts:
    """Kendall's tau where what is alike counts in another way.

    Attributes:
        tau_a: Tied pairs count as pairs (tau-b leaves out those that are tied in one of the two).
        isomorphic_once: Tau-b where isomorphic architectures count once, with the means of their figures.
        networks: Number of networks.
    """

    tau_a: float | None
    isomorphic_once: float | None
    networks: int


@dataclass(frozen=True)
class EarlyStopping:
    """Networks of a panel that stopped early.

    Attributes:
        stopped: Number of networks; their figures are forecasts.
        share_of_steps: Training steps of the panel that were done, as a share of all.
    """

    stopped: int
    share_of_steps: float


@dataclass(frozen=True)
class RankFigures:
    """Figures of a ranking.

    Attributes:
        panel: Networks that were compared.
        objective: Figure that they are ranked by.
        examples: Validation examples that they are judged by.
        estimates: Agreement of the supernet's order.
        figure: Figure that regret is of.
        unit: Kind of the examples.
        baselines: Orders that need no supernet, by name.
        counted_otherwise: Tau counted otherwise; None in runs of an earlier build.
        early_stopping: Networks that stopped early; None where none may.
        plot: The plot, relative to the run; None where it was not drawn.
    """

    panel: int
    objective: str
    examples: int
    estimates: Estimates
    figure: str = "accuracy"
    unit: str = "images"
    baselines: Mapping[str, BaselineFigures] = field(default_factory=dict)
    counted_otherwise: OtherCounts | None = None
    early_stopping: EarlyStopping | None = None
    plot: str | None = None

    def as_json(self) -> JsonObject:
        """Returns the figures as `rank.json` and `summary.json` have them: estimates stand among the others."""
        counted, early = self.counted_otherwise, self.early_stopping
        return {
            "panel": self.panel,
            "objective": self.objective,
            "figure": self.figure,
            "examples": self.examples,
            "unit": self.unit,
            **{name: estimate.as_json() for name, estimate in self.estimates.items()},
            **({} if early is None else {"early_stopping": dataclasses.asdict(early)}),
            **({"baselines": _baselines_as_json(self.baselines)} if self.baselines else {}),
            **({} if counted is None else {"counted_otherwise": dataclasses.asdict(counted)}),
            "plot": self.plot,
        }

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        names = ("panel", "objective", "figure", "examples", "unit", "plot")
        counted, early = content.get("counted_otherwise"), content.get("early_stopping")
        return cls(
            **{name: content[name] for name in names if name in content},
            estimates=_estimates_from(content),
            baselines=_baselines_from(content),
            counted_otherwise=None if counted is None else OtherCounts(**counted),
            early_stopping=None if early is None else EarlyStopping(**early),
        )


@dataclass(frozen=True)
class ProxyOrder:
    """The order of a zero-cost proxy against the true one.

    Attributes:
        estimates: Agreement of the order.
        seconds: Median time of a network.
        first_seconds: Time of the first network, compilation included.
    """

    estimates: Estimates
    seconds: float
    first_seconds: float

    def as_json(self) -> JsonObject:
        """Returns the figures as JSON has them: estimates stand among the others."""
        estimates = {name: estimate.as_json() for name, estimate in self.estimates.items()}
        return {**estimates, "seconds": self.seconds, "first_seconds": self.first_seconds}

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        return cls(_estimates_from(content), content["seconds"], content["first_seconds"])


@dataclass(frozen=True)
class ProxyFigures:
    """Figures of zero-cost proxies.

    Attributes:
        panel: Networks that were ordered.
        objective: Figure by which the truth ranks them.
        figure: Figure that regret is of.
        batch: Training examples that the proxies saw.
        proxies: The order of each, by name.
        left_out: Proxies that need what the networks do not have, and what that is.
        baselines: Orders that need no supernet, by name.
        predictors: Cross-validated tau-b of predictors on the panel, by name; NaN where all predictions are equal.
        folds: Parts of the panel, each of which was predicted from the others.
    """

    panel: int
    objective: str
    figure: str
    batch: int
    proxies: Mapping[str, ProxyOrder]
    left_out: Mapping[str, str]
    baselines: Mapping[str, BaselineFigures]
    predictors: Mapping[str, float] = field(default_factory=dict)
    folds: int | None = None

    def as_json(self) -> JsonObject:
        """Returns the figures as `proxies.json` and `summary.json` have them."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        proxies = {name: order.as_json() for name, order in self.proxies.items()}
        predictors = {name: None if math.isnan(tau) else tau for name, tau in self.predictors.items()}
        baselines = _baselines_as_json(self.baselines)
        return {**fields, "proxies": proxies, "baselines": baselines, "predictors": predictors}

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        known = {one.name: content[one.name] for one in dataclasses.fields(cls) if one.name in content}
        taus = {name: math.nan if tau is None else tau for name, tau in content.get("predictors", {}).items()}
        proxies = {name: ProxyOrder.from_json(order) for name, order in content["proxies"].items()}
        return cls(**{**known, "proxies": proxies, "baselines": _baselines_from(content), "predictors": taus})


def _estimates_from(content: JsonObject) -> Estimates:
    return {name: Estimate.from_json(content[name]) for name in ESTIMATES if name in content}


def _baselines_as_json(baselines: Mapping[str, BaselineFigures]) -> JsonObject:
    return {name: figures.as_json() for name, figures in baselines.items()}


def _baselines_from(content: JsonObject) -> Mapping[str, BaselineFigures]:
    return {name: BaselineFigures(**figures) for name, figures in content.get("baselines", {}).items()}
