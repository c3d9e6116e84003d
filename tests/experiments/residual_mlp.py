"""A family of a user: residual MLPs on the rows of a table, as a plug-in file."""

MODULE = "residual_mlp_of_test"
PLUGIN = '''\
from dataclasses import dataclass
from functools import cached_property

from flax import nnx

from search_spaces import FAMILIES, Choice, SearchSpace
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, linear
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Stage
from supernet.standalone import MODULES
from supernet.engine.supernet import SUPERNETS


@FAMILIES.register("residual_mlp")
@dataclass(frozen=True)
class MLPSpace(SearchSpace):
    """Residual MLPs."""

    family = "residual_mlp"
    inputs = "arrays"

    width: tuple[int, ...] = (16,)
    depth: tuple[int, ...] = (1, 2)
    hidden: tuple[int, ...] = (8, 16)
    features: int = 1
    classes: int = 1

    @cached_property
    def choices(self):
        return (
            Choice("width", self.width, selects_program=True),
            Choice("depth", self.depth),
            Choice("hidden", self.hidden, gate="depth"),
        )

    @cached_property
    def network(self):
        width, hidden = Axis("width"), Axis("hidden")
        parts = {"first": linear(self.features, width), "last": linear(width, self.classes)}
        outside = Sublayer("outside_layers", parts)
        mlp = Sublayer("mlp", {"up": linear(width, hidden), "down": linear(hidden, width)})
        return Network(outside, (Stack("layers", (mlp,), self.depth[-1]),))


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


@SUPERNETS.register("residual_mlp")
class MLPSupernet(ElasticNetwork):
    """Their supernet."""

    @cached_property
    def stages(self):
        def up(params, inputs, context):
            return dense(inputs[0], params["up"])

        def down(params, inputs, context):
            return inputs[0] + dense(nnx.relu(inputs[1]), params["down"])

        return {"mlp": (Stage(up), Stage(down))}

    def embed(self, params, x, context):
        return dense(x, params["first"])

    def head(self, params, x, context):
        return dense(x, params["last"])


class Layer(nnx.Module):
    """A residual layer."""

    def __init__(self, width, hidden, rngs):
        self.up, self.down = nnx.Linear(width, hidden, rngs=rngs), nnx.Linear(hidden, width, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.relu(self.up(x)))


@MODULES.register("residual_mlp")
class MLP(nnx.Module):
    """One residual MLP."""

    def __init__(self, width, hidden, features, classes, *, rngs):
        self.first = nnx.Linear(features, width, rngs=rngs)
        self.layers = nnx.List([Layer(width, one, rngs) for one in hidden])
        self.last = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.last(x)
'''
