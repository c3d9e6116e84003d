"""Federation: the server's network, the sizes of the clients', and who has which examples, from an experiment."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.configuration.federation_section import FederationSection
from experiments.experiment import Experiment
from experiments.federation.networks import FederatedNetwork
from experiments.federation.shards import Shards, shards
from search_spaces import FAMILIES, Architecture, SearchSpace, UserError
from search_spaces.errors import did_you_mean
from supernet.federation.shapes import WeightShapes, is_compressible

KEY = "federation"


class Size(NamedTuple):
    """Clients with networks of one size.

    Attributes:
        name: Name of the size.
        network: Their network.
        shapes: Shapes of all weights in theirs and in the server's.
        clients: Numbers of the clients.
        architecture: Architecture of the network, in the space of the experiment.
    """

    name: str
    network: FederatedNetwork
    shapes: dict[str, WeightShapes]
    clients: range
    architecture: Architecture


@dataclass(frozen=True)
class Federation:
    """The parts of a federation.

    Attributes:
        experiment: The experiment with a section `federation`.
    """

    experiment: Experiment

    @property
    def settings(self) -> FederationSection:
        """The section."""
        settings = self.experiment.config.federation
        assert settings is not None
        return settings

    @cached_property
    def server(self) -> FederatedNetwork:
        """The server's network, the largest of the space."""
        return FederatedNetwork(_alone(self.experiment.space, {}), self.experiment.data)

    @cached_property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes, in the order of the section; clients are numbered in this order."""
        found, first = [], 0
        for name, size in self.settings.clients.items():
            space = _alone(self.experiment.space, size.network)
            alike = [each.network for each in found if each.network.space == space]
            alike += [self.server] if space == self.server.space else []  # its programs are compiled once
            network = alike[0] if alike else FederatedNetwork(space, self.experiment.data)
            architecture = self.experiment.space.encode(network.space.largest.description)
            clients = range(first, first + size.number)
            found.append(Size(name, network, network.shapes(self.server), clients, architecture))
            first += size.number
        return tuple(found)

    def size_of(self, client: int) -> int:
        """Returns the number of a client's size."""
        return next(number for number, size in enumerate(self.sizes) if client in size.clients)

    @cached_property
    def shards(self) -> Shards:
        """Rows of the training split of the server and of each client."""
        settings, train = self.settings, self.experiment.data.train
        return shards(
            np.asarray(train.strata), settings.server.examples, settings.number, settings.concentration,
            self.experiment.config.seed,
        )  # fmt: skip

    def class_shares(self, client: int) -> Float[np.ndarray, " c"]:
        """Returns the share of each class in the examples of a client."""
        classes = np.asarray(self.experiment.data.train.strata)[self.shards.clients[client]]
        return np.bincount(classes, minlength=len(self.experiment.data.class_names)) / len(classes)

    def counts(self, size: Size) -> Int[np.ndarray, " n"]:
        """Returns the number of examples of each client of a size."""
        return np.array([len(self.shards.clients[client]) for client in size.clients])


def _alone(space: SearchSpace, values: dict) -> SearchSpace:
    """Returns a space of a single network: these values in all layers, the largest of all other choices."""
    chosen = {choice.name: (values.get(choice.name, choice.values[-1]),) for choice in space.choices}
    return dataclasses.replace(space, **chosen)  # type: ignore[type-var]


def check_federation(experiment: Experiment) -> None:
    """Refuses a federation that cannot be computed.

    Raises:
        UserError: The family or the data do not suit it, a client's network is not of the space, there are fewer
            examples or layers than are asked for, or a setting of `train` contradicts it.
    """
    settings = experiment.config.federation
    if settings is None:
        return
    space = experiment.space
    if len(experiment.data.class_names) < 2:
        raise UserError(f"{KEY}: the data have no classes, by which examples are dealt out. Use labelled images.")
    if not is_compressible(space):
        known = [name for name in FAMILIES if FAMILIES[name].divisible and FAMILIES[name].takes(experiment.data.inputs)]
        raise UserError(
            f"{KEY}: family {space.family} has no single stack of equal layers without batch statistics, whose weights "
            f"could be compressed. Use {' or '.join(sorted(known)) or 'such a family'}, or leave the section out."
        )
    for name, size in settings.clients.items():
        _check_network(space, f"{KEY}.clients.{name}.network", size.network)
    _check_choices(experiment, settings)
    _check_training(experiment)
    left = len(experiment.data.train) - settings.server.examples
    if left < settings.number:
        raise UserError(
            f"{KEY}.server.examples: {settings.server.examples} of {len(experiment.data.train)} leave {max(left, 0)} "
            f"for {settings.number} clients. Set fewer, or fewer clients."
        )
    Federation(experiment).shards  # noqa: B018 - says whether every client has an example


def _check_network(space: SearchSpace, key: str, network: dict) -> None:
    by_name = {choice.name: choice for choice in space.choices}
    for name, value in network.items():
        if name not in by_name:
            raise UserError(f"{key}.{name}: no choice of the space.{did_you_mean(name, by_name)}")
        values = by_name[name].values
        if value in values:
            continue
        if not isinstance(value, str) and value > max(values):  # type: ignore[operator,type-var]
            raise UserError(
                f"{key}.{name}: {value} is larger than the {max(values)} of the server. Give one of {list(values)}."
            )
        raise UserError(f"{key}.{name}: {value!r} is no value of space.{name}. Give one of {list(values)}.")


def _check_choices(experiment: Experiment, settings: FederationSection) -> None:
    asked, sent = settings.client_choice.number, settings.layer_choice.number
    if asked is not None and asked > settings.number:
        raise UserError(f"{KEY}.client_choice.number: {asked} of {settings.number} clients. Give at most that many.")
    (stack,) = experiment.space.network.stacks
    if sent is not None and sent > (stack.layers or 1):
        raise UserError(f"{KEY}.layer_choice.number: {sent} of {stack.layers} layers. Give at most that many.")


def _check_training(experiment: Experiment) -> None:
    config = experiment.config
    for key, given, expected in (
        ("supernet.sharing", config.supernet.sharing, "entangled"),
        ("train.precision", config.train.precision, "float32"),
        ("train.method", config.train.method, "gradient"),
        ("train.distillation.type", config.train.distillation.type, "none"),
        ("train.exits", list(config.train.exits), []),
    ):
        if given != expected:
            raise UserError(f"{key}: {given} is not for {KEY}. Set {expected}, or leave the section {KEY} out.")
    if config.supernet.parent is not None:
        raise UserError(f"supernet.parent: not for {KEY}, which begins with fresh weights. Leave one of them out.")
    settings = config.federation
    assert settings is not None
    settings.optimizer(config.train.optimizer).build(settings.local_steps)  # says which optimizers descend
