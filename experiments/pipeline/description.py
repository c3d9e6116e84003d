"""Findings of `supernest check` about an experiment."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from experiments.pipeline.demands import in_bytes
from experiments.pipeline.timing import Timing
from experiments.pipeline.timing import report_lines as timing_lines
from experiments.records import OnDevice
from experiments.records.plain import JsonObject

Costs = Mapping[str, int | float]


@dataclass(frozen=True)
class DataSizes:
    """The data of an experiment.

    Attributes:
        source: Name of the source.
        train: Examples to train on.
        validation: Examples that search ranks by.
        test: Examples of the test split.
        sizes: Sizes of examples and labels (`Dataset.describe`).
        examples: Kind of the examples, for people.
        notes: Remarks on the data for the user.
    """

    source: str
    train: int
    validation: int
    test: int
    sizes: Mapping[str, Any]
    examples: str
    notes: Sequence[str]

    def as_json(self) -> JsonObject:
        """Returns the fields by name; sizes stand among them."""
        content = asdict(self)
        if not content["notes"]:
            del content["notes"]
        return content | content.pop("sizes")


@dataclass(frozen=True)
class SpaceCosts:
    """The search space of an experiment.

    Attributes:
        family: Its family.
        subnets: Number of subnets.
        genes: Length of a gene vector.
        programs: Compiled programs that a step needs in all.
        smallest: Costs of the smallest subnet.
        largest: Costs of the largest.
    """

    family: str
    subnets: int
    genes: int
    programs: int
    smallest: Costs
    largest: Costs


@dataclass(frozen=True)
class IncubationPlan:
    """The incubation before a training.

    Attributes:
        modules: Modules that are trained.
        meta_steps: Steps of the meta-model.
        module_steps: Steps of each module.
    """

    modules: int
    meta_steps: int
    module_steps: int


@dataclass(frozen=True)
class SubSupernets:
    """Sub-supernets of a supernet that is split.

    Attributes:
        number: Number of sub-supernets.
        weight_bytes: Bytes of the weights of all together.
    """

    number: int
    weight_bytes: int


@dataclass(frozen=True)
class TrainedWeights:
    """Weights of a training that leaves others frozen.

    Attributes:
        trained: Number of weights that are trained.
        weights: Number of all weights.
        optimizer_bytes: Bytes of the optimiser's state.
        whole_optimizer_bytes: Bytes that it would have if all weights were trained.
    """

    trained: int
    weights: int
    optimizer_bytes: int
    whole_optimizer_bytes: int


@dataclass(frozen=True)
class TrainingPlan:
    """The training of an experiment.

    Attributes:
        steps: Steps in all.
        paths_per_step: Subnets that a step trains.
        rematerialize: Whether sublayers are computed again for the backward pass.
        incubation: Steps before the training; None without any.
        population: Members of each path, of an evolution strategy; None with gradients.
        sub_supernets: Number of sub-supernets and bytes of the weights of all; None where nothing is split.
        trained: Weights that are trained, where others are frozen; None where all are trained.
    """

    steps: int
    paths_per_step: int
    rematerialize: bool
    incubation: IncubationPlan | None = None
    population: int | None = None
    sub_supernets: SubSupernets | None = None
    trained: TrainedWeights | None = None


@dataclass(frozen=True)
class FederationPlan:
    """Federation of an experiment, which `supernest federate` runs.

    Attributes:
        rounds: Number of rounds.
        local_steps: Training steps of a client in a round.
        asked: Clients that a round asks.
        clients: Name of each size to the number of its clients.
        costs: Name of each size to the costs of its network.
    """

    rounds: int
    local_steps: int
    asked: int
    clients: Mapping[str, int]
    costs: Mapping[str, Costs]


@dataclass(frozen=True)
class SearchPlan:
    """The search of an experiment.

    Attributes:
        type: The searcher.
        evaluations: Subnets that it evaluates.
    """

    type: str
    evaluations: int


@dataclass(frozen=True)
class Description:
    """Contents of an experiment: data, networks, training and search.

    Attributes:
        name: Its name.
        data: Its data.
        device: The device that costs are of; None without one.
        space: Its search space.
        train: Its training.
        search: Its search.
        budgets: Name to metric to the most that is allowed.
        warnings: Warnings of what will be slow or too large.
        federation: Its federation; None without one.
        timing: Minutes and memory; None where nothing was timed.
    """

    name: str
    data: DataSizes
    device: OnDevice | None
    space: SpaceCosts
    train: TrainingPlan
    search: SearchPlan
    budgets: Mapping[str, Costs]
    warnings: Sequence[str]
    federation: FederationPlan | None = None
    timing: Timing | None = None

    def as_json(self) -> JsonObject:
        """Returns the description as `supernest check --json` prints it."""
        content = asdict(self)
        for name in ("federation", "timing"):
            if content[name] is None:
                del content[name]
        return content | {"data": self.data.as_json()}


def report_lines(found: Description) -> list[str]:
    """Returns a description as lines to read."""
    data, device, space, train, search = found.data, found.device, found.space, found.train, found.search
    width = max(map(len, found.budgets))
    return [
        f"name      {found.name}",
        f"data      {data.source}: {data.train:,} training, {data.validation:,} validation, {data.test:,} test "
        f"{data.examples}",
        *(f"          {note}" for note in data.notes),
        *([f"device    {device.name}, batches of {device.batch_size}"] if device else []),
        f"space     {space.family}: {_readable(space.subnets)} subnets, {space.genes} genes, "
        f"{space.programs} compiled program{'s' if space.programs > 1 else ''}",
        f"smallest  {_costs(space.smallest)}",
        f"largest   {_costs(space.largest)}",
        *_training(train),
        f"search    {search.type}: {search.evaluations:,} evaluations",
        *(f"budget    {name:<{width}}  {_costs(limits)}" for name, limits in found.budgets.items()),
        *(_federation(found.federation) if found.federation else ()),
        *(f"warning   {text}" for text in found.warnings),
        *(timing_lines(found.timing) if found.timing else ()),
    ]


def _training(train: TrainingPlan) -> list[str]:
    members = "" if train.population is None else f", {train.population:,} members a path"
    again = ", sublayers computed again for the backward pass" if train.rematerialize else ""
    lines = [f"train     {train.steps:,} steps of {train.paths_per_step} paths{members}{again}"]
    if (parts := train.incubation) is not None:
        lines.append(
            f"          after an incubation of {parts.meta_steps:,} steps of the meta-model and {parts.module_steps:,} "
            f"of each of {parts.modules:,} modules"
        )
    if (split := train.sub_supernets) is not None:
        lines.append(f"          {split.number:,} sub-supernets of {in_bytes(split.weight_bytes)} of weights together")
    if (part := train.trained) is not None:
        lines.append(
            f"          {part.trained:,} of {part.weights:,} weights, with an optimiser state of "
            f"{in_bytes(part.optimizer_bytes)} instead of {in_bytes(part.whole_optimizer_bytes)}"
        )
    return lines


def _federation(plan: FederationPlan) -> list[str]:
    width = max(map(len, plan.clients))
    asked = f"{plan.asked} of {sum(plan.clients.values())} clients a round, {plan.local_steps:,} steps each"
    return [
        f"federate  {plan.rounds:,} rounds, {asked}",
        *(f"          {name:<{width}}  {n} clients, {_costs(plan.costs[name])}" for name, n in plan.clients.items()),
    ]


def _costs(costs: Costs) -> str:
    return ", ".join(f"{metric} {value:,.{3 if metric.endswith('_ms') else 0}f}" for metric, value in costs.items())


def _readable(count: int) -> str:
    return f"{count:,}" if count < 10**9 else f"{count:.2e}"
