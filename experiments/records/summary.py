"""The summary of a run: figures of every stage that was run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from experiments.records.answer import Answer
from experiments.records.exported import ExportedNetwork
from experiments.records.federation import FederationFigures
from experiments.records.plain import JsonObject, plain
from experiments.records.ranking import ProxyFigures, RankFigures
from experiments.records.stages import GradientFigures, IncubationFigures, SearchFigures, TrainingFigures


@dataclass(frozen=True)
class SpaceFigures:
    """The search space of a run.

    Attributes:
        family: Its family.
        size: Number of subnets.
    """

    family: str
    size: int


@dataclass(frozen=True)
class Summary:
    """Figures of every stage that was run; None for a stage that was not.

    Attributes:
        name: Name of the experiment; empty before the first stage has begun.
        objective: Figure that its search minimises.
        chance: The objective of guessing; None where it is not known.
        space: The search space.
        incubation: Figures of the modules that the training started from.
        train: Figures of the training.
        gradient: Figures of the gradient search.
        federation: Figures of the training by clients.
        search: Figures of the search.
        subnets: Exported networks, in the order of the budgets.
        rank: Figures of the ranking.
        proxies: Figures of the zero-cost proxies.
        new_budgets: Budgets that were asked for later, by name.
    """

    name: str = ""
    objective: str = "error"
    chance: float | None = None
    space: SpaceFigures | None = None
    incubation: IncubationFigures | None = None
    train: TrainingFigures | None = None
    gradient: GradientFigures | None = None
    federation: FederationFigures | None = None
    search: SearchFigures | None = None
    subnets: Sequence[ExportedNetwork] | None = None
    rank: RankFigures | None = None
    proxies: ProxyFigures | None = None
    new_budgets: Mapping[str, Answer] = field(default_factory=dict)

    def as_json(self) -> JsonObject:
        """Returns the summary as `summary.json` has it, without its hash."""
        content = plain(self)
        del content["new_budgets"]
        for name in ("train", "gradient", "rank", "proxies"):
            if (figures := getattr(self, name)) is not None:
                content[name] = figures.as_json()
        if self.subnets is not None:
            content["subnets"] = [network.as_json() for network in self.subnets]
        if self.new_budgets:
            content["new_budgets"] = {name: answer.as_json() for name, answer in self.new_budgets.items()}
        return content

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives, with a hash or without."""
        space, search, subnets = content.get("space"), content.get("search"), content.get("subnets")
        train, gradient, incubation = (content.get(name) for name in ("train", "gradient", "incubation"))
        federation = content.get("federation")
        rank, proxies = content.get("rank"), content.get("proxies")
        return cls(
            name=content.get("name", ""),
            objective=content.get("objective", "error"),
            chance=content.get("chance"),
            space=None if space is None else SpaceFigures(**space),
            incubation=None if incubation is None else IncubationFigures.from_json(incubation),
            train=None if train is None else TrainingFigures.from_json(train),
            gradient=None if gradient is None else GradientFigures.from_json(gradient),
            federation=None if federation is None else FederationFigures.from_json(federation),
            search=None if search is None else SearchFigures(**search),
            subnets=None if subnets is None else [ExportedNetwork.from_json(row) for row in subnets],
            rank=None if rank is None else RankFigures.from_json(rank),
            proxies=None if proxies is None else ProxyFigures.from_json(proxies),
            new_budgets={name: Answer.from_json(found) for name, found in content.get("new_budgets", {}).items()},
        )
