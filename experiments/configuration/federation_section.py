"""The section `federation`: clients with networks of several sizes that train one server's network in rounds."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from experiments.configuration.number_types import Positive
from experiments.configuration.plugin_section import STRICT
from experiments.user_input.problems import Problem, ProblemsError, show
from search_spaces.choice import Value
from search_spaces.names import name_fault
from supernet.training.optimizer import OptimizerSettings

DIRECTORY = "federation"
"""Part of a run directory that a federation has."""
SERVER = "server"
"""Name of the server's own network among those that are exported."""
Rate = Annotated[float, Field(gt=0, le=1000)]
Clients = Annotated[int, Field(ge=1, le=10**4)]


class ClientSize(BaseModel):
    """Clients that have room for a network of one size.

    Attributes:
        number: Number of these clients.
        network: Values of choices in all layers of their network, such as `{width: 16, depth: 2}`; choices that are
            left out have their largest value.
    """

    model_config = STRICT

    number: Clients = 1
    network: dict[str, Value] = Field(default_factory=dict)

    @field_validator("network", mode="before")
    @classmethod
    def _of_single_values(cls, network: Any) -> Any:
        """Refuses other values in one line each; a union of types would say what each of them expects."""
        of = network.items() if isinstance(network, Mapping) else ()
        expected = "is not a single value. Give one value of the choice, for all layers"
        other = [
            Problem((str(name),), f"{show(value)} {expected}.")
            for name, value in of
            if isinstance(value, bool) or not isinstance(value, int | float | str)
        ]
        if other:
            raise ProblemsError(other)
        return network


class CompressionSection(BaseModel):
    """Compression of the server's weights to a client's.

    Attributes:
        type: `convolution`: learned filters, dilation and merge weights. `prefix`: the slice that the supernet has for
            that size, each entry averaged over its owners.
        activation: Function applied to convolved weights: `none`, or the published `leaky` (0.85 w above 0, 0.001 w
            below); of `convolution` only.
        dilation: Part of a reply that is dilated: the `updates`, by which training changed the weights, or the
            `weights`, as published. `prefix` gives the same result with both.
    """

    model_config = STRICT

    type: Literal["convolution", "prefix"] = "convolution"
    activation: Literal["none", "leaky"] = "none"
    dilation: Literal["updates", "weights"] = "updates"

    @model_validator(mode="after")
    def _is_used(self) -> "CompressionSection":
        if self.type == "prefix" and self.activation != "none":
            text = f"{self.activation}, and slices pass no function. Leave it out, or set type convolution."
            raise ProblemsError([Problem(("activation",), text)])
        return self


class ServerSection(BaseModel):
    """Examples of the server, which no client has, and what it learns from them.

    Attributes:
        examples: Number of the server's examples, drawn from the training split; all are one batch.
        steps: Number of the server's Adam steps per round. With `convolution` they train the filters of each size, and
            dilation and merge weights together; with `prefix` the server's weights, by the mean loss of all sizes. 0
            for none.
        learning_rate: Learning rate of these steps.
    """

    model_config = STRICT

    examples: Annotated[int, Field(ge=1, le=10**6)] = 128
    steps: Annotated[int, Field(ge=0, le=10**6)] = 10
    learning_rate: Rate = 1e-3


class ClientChoiceSection(BaseModel):
    """Choice of the clients that a round asks.

    Attributes:
        type: `all`, `uniform` (a random part), or `ucb`: a bandit (UCB1) whose reward is the gain in accuracy of the
            client's network on the server's examples.
        number: Number of clients per round; null only with `all`.
        exploration: Factor c of the bonus c sqrt(2 ln t / n) of a client that was chosen n of t times, with `ucb`.
    """

    model_config = STRICT

    type: Literal["all", "uniform", "ucb"] = "all"
    number: Clients | None = None
    exploration: Annotated[float, Field(ge=0, le=1000)] = 1.0

    @model_validator(mode="after")
    def _knows_how_many(self) -> "ClientChoiceSection":
        if (self.type == "all") != (self.number is None):
            text = (
                f"{self.number}, and type all asks all. Leave it out, or set type uniform or ucb."
                if self.number is not None
                else f"not set. Give the number of clients that {self.type} asks in each round."
            )
            raise ProblemsError([Problem(("number",), text)])
        return self


class LayerChoiceSection(BaseModel):
    """Choice of the layers that clients train and send back in a round; what is outside the layers always is.

    Attributes:
        type: `all`, `uniform` (a random part), or `importance`: those whose weights have the largest gradient on the
            server's examples.
        number: Number of layers, of those of the client; null only with `all`.
    """

    model_config = STRICT

    type: Literal["all", "uniform", "importance"] = "all"
    number: Positive | None = None

    @model_validator(mode="after")
    def _knows_how_many(self) -> "LayerChoiceSection":
        if (self.type == "all") != (self.number is None):
            text = (
                f"{self.number}, and type all takes all layers. Leave it out, or set type uniform or importance."
                if self.number is not None
                else f"not set. Give the number of layers that {self.type} takes in each round."
            )
            raise ProblemsError([Problem(("number",), text)])
        return self


class FederationSection(BaseModel):
    """Training by clients that keep their data and have networks of several sizes (`supernest federate`).

    Batch size, augmentation, label smoothing and the optimizer are those of `train`, at a constant rate without
    warm-up; its steps mean nothing here.

    Attributes:
        rounds: Number of rounds: the server sends weights, clients train them, and the server merges their replies.
        local_steps: Number of training steps of a client in a round.
        learning_rate: Learning rate of the clients; null for that of `train.optimizer`.
        concentration: Parameter of the Dirichlet distribution that divides the examples of each class among the
            clients: 0.1 gives most clients few classes, 100 gives all clients nearly equal shares.
        clients: Clients of each size, by a name of the size, such as `{full: {number: 2}, half: {number: 4, network:
            {width: 16}}}`.
        compression: Compression of the server's weights to those of a client.
        server: The server's own examples and steps.
        client_choice: Choice of the clients that a round asks.
        layer_choice: Choice of the layers that clients train and send back.
    """

    model_config = STRICT

    rounds: Positive
    local_steps: Positive = 10
    learning_rate: Rate | None = None
    concentration: Annotated[float, Field(ge=1e-3, le=1e6)] = 0.5
    clients: dict[str, ClientSize]
    compression: CompressionSection = CompressionSection()
    server: ServerSection = ServerSection()
    client_choice: ClientChoiceSection = ClientChoiceSection()
    layer_choice: LayerChoiceSection = LayerChoiceSection()

    @field_validator("clients")
    @classmethod
    def _named(cls, clients: dict[str, ClientSize]) -> dict[str, ClientSize]:
        if not clients:
            raise ProblemsError([Problem((), "none. Give at least one size, such as full: {number: 4}.")])
        for name in clients:
            fault = name_fault(name)
            if name == SERVER:
                fault = "is the name of the server's own network. Choose another."
            if fault is not None:
                raise ProblemsError([Problem((name,), fault)])
        return clients

    @property
    def number(self) -> int:
        """Number of all clients."""
        return sum(size.number for size in self.clients.values())

    def optimizer(self, settings: OptimizerSettings) -> OptimizerSettings:
        """Returns the settings of the clients' optimizer.

        Args:
            settings: Settings of `train.optimizer`.
        """
        rate = settings.learning_rate if self.learning_rate is None else self.learning_rate
        return dataclasses.replace(
            settings, learning_rate=rate, final_learning_rate=0.0, warmup_steps=0, schedule="constant"
        )
