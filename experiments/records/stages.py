"""Figures of the stages that train and search, as the summary has them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from experiments.records.plain import JsonObject, plain, under_prefix, with_prefix


@dataclass(frozen=True)
class TrainingFigures:
    """Figures of a training.

    Attributes:
        steps: Steps that were trained.
        programs_compiled: Programs that the steps needed; None where nothing was left to train.
        rematerialize: Whether sublayers were computed again for the backward pass.
        probe: Name of the objective to its mean over the probed subnets at the last step; None before the first probe.
        workers: Ray workers at the end; None without Ray, and so are the next two.
        fewest_workers: The fewest that trained together.
        restarts: Number of times that training continued after a failure or with other workers.
        taken_from: Run that trained it, where this one took its supernet over; None elsewhere.
    """

    steps: int
    programs_compiled: int | None = None
    rematerialize: bool | None = None
    probe: Mapping[str, float | None] = field(default_factory=dict)
    workers: int | None = None
    fewest_workers: int | None = None
    restarts: int | None = None
    taken_from: str | None = None

    def over(self, earlier: "TrainingFigures | None") -> "TrainingFigures":
        """Returns these figures, with those of an earlier call where this one has none."""
        if earlier is None:
            return self
        ours = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(earlier, **{k: v for k, v in ours.items() if v is not None and v != {}})

    def as_json(self) -> JsonObject:
        """Returns the figures as JSON has them; those of the probe stand among the others."""
        content = plain(self)
        return content | with_prefix(content.pop("probe"), "probe_")

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        known = {f.name: content[f.name] for f in dataclasses.fields(cls) if f.name in content}
        return cls(**known, probe=under_prefix(content, "probe_"))


@dataclass(frozen=True)
class IncubationFigures:
    """Figures of an incubation; objectives are those of the validation split, None where an output was not finite.

    Attributes:
        modules: Number of modules.
        meta_steps: Steps that the meta-model was trained.
        module_steps: Steps that each module was trained.
        meta: Objective of the meta-model.
        hybrids: Objective of the hybrid of each module.
        assembled: Objective of the network put together, before it was trained on.
    """

    modules: int
    meta_steps: int
    module_steps: int
    meta: float | None
    hybrids: Sequence[float | None]
    assembled: float | None

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `plain` gives."""
        given = {f.name: content.get(f.name) for f in dataclasses.fields(cls)}
        return cls(**{**given, "hybrids": tuple(content["hybrids"])})


@dataclass(frozen=True)
class SearchFigures:
    """Figures of a search.

    Attributes:
        evaluated: Candidates that were evaluated.
        failed: Number of these that failed.
    """

    evaluated: int
    failed: int = 0


@dataclass(frozen=True)
class GradientFigures:
    """Figures of a gradient search.

    Attributes:
        steps: Steps that were trained.
        type: The relaxation, as `gradient.type` names it.
        budget: Name of the budget that was steered to.
        architecture: The readable form of what was found.
        costs: Metric to the cost of it.
        validation: Name of the objective to what it reaches on the validation split.
        expected_cost_over_budget: Metric to the expected cost of the last distribution, over its limit.
        mean_probability: Mean probability of the values of its active genes.
        genes_changed_for_budget: Active genes that are not at their most probable value, which was over budget.
        entropy: Choice to the mean entropy of its genes, as a share of the largest possible.
    """

    steps: int
    type: str
    budget: str
    architecture: Mapping[str, Any]
    costs: Mapping[str, int | float]
    validation: Mapping[str, float]
    expected_cost_over_budget: Mapping[str, float]
    mean_probability: float
    genes_changed_for_budget: int
    entropy: Mapping[str, float]

    def as_json(self) -> JsonObject:
        """Returns the figures as JSON has them; costs and the objective stand among the others."""
        content = plain(self, flat=("costs",))
        return content | with_prefix(content.pop("validation"), "validation_")

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        names = {f.name for f in dataclasses.fields(cls)}
        costs = {k: v for k, v in content.items() if k not in names and not k.startswith("validation_")}
        known = {name: content[name] for name in names if name in content}
        return cls(**known, costs=costs, validation=under_prefix(content, "validation_"))
