"""Figures of a federation, as the summary and the file of rounds have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

from experiments.records.plain import JsonObject, plain


@dataclass(frozen=True)
class RoundFigures:
    """Figures of one round, on the validation split after it.

    Attributes:
        round: Number of rounds up to it.
        asked: Numbers of the clients that were asked.
        layers: Name of each size to the layers that its clients trained and sent back.
        bytes_down: Bytes of the weights that were sent to them.
        bytes_up: Bytes of the weights that they sent back.
        server: Accuracy of the server's network.
        sizes: Name of each size to the accuracy of the network that its clients would be sent next.
        clients: Accuracy of each client's network on examples of all classes in the shares that the client has.
        mean: Mean over all clients of the accuracy of their networks.
        mean_own: Mean of `clients`.
        rewards: Rewards of the clients that were asked, with a bandit.
    """

    round: int
    asked: Sequence[int]
    layers: Mapping[str, Sequence[int]]
    bytes_down: int
    bytes_up: int
    server: float
    sizes: Mapping[str, float]
    clients: Sequence[float]
    mean: float
    mean_own: float
    rewards: Sequence[float] | None = None

    @property
    def accuracies(self) -> dict[str, float]:
        """Accuracies by the names of their curves: of the server's network and each size, and means over clients."""
        sizes = {f"accuracy_{name}": value for name, value in self.sizes.items()}
        return {"accuracy_server": self.server, "accuracy_mean": self.mean, "accuracy_own": self.mean_own, **sizes}

    def as_json(self) -> JsonObject:
        """Returns the figures as a line of `rounds.jsonl` has them."""
        return plain(self)

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `as_json` gives."""
        return cls(**{field.name: content.get(field.name) for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class FederationFigures:
    """Figures of a federation.

    Attributes:
        rounds: Number of rounds.
        bytes_down: Bytes of all weights that clients were sent.
        bytes_up: Bytes of all weights that they sent back.
        examples: Number of examples of each client.
        asked: Number of times that each client was asked.
        last: Figures of the last round.
        subnets: Name of each exported network to its directory in the run.
    """

    rounds: int
    bytes_down: int
    bytes_up: int
    examples: Sequence[int]
    asked: Sequence[int]
    last: RoundFigures
    subnets: Mapping[str, str]

    @classmethod
    def from_json(cls, content: JsonObject) -> Self:
        """Reads what `plain` gives."""
        given = {field.name: content.get(field.name) for field in fields(cls)}
        return cls(**{**given, "last": RoundFigures.from_json(content["last"])})  # type: ignore[arg-type]
