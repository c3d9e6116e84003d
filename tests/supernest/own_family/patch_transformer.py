"""A family in one file: transformers on patches of images."""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp

from search_spaces import FAMILIES, Choice, SearchSpace, UserError
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, Product, linear, norm, table
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Stage
from supernet.engine.supernet import SUPERNETS
from supernet.families.attention import attend, mixed
from supernet.layers.linear import linear as dense
from supernet.layers.normalisation import layer_norm


@FAMILIES.register("patch_transformer")
@dataclass(frozen=True)
class PatchTransformerSpace(SearchSpace):
    """Transformers on patches of images, which need not be square.

    Args:
        width: Widths of the stream in channels.
        depth: Numbers of layers.
        heads: Numbers of attention heads, a layer.
        mlp_ratio: Ratios of MLP width to stream width, a layer.
        head_dim: Size of a head in channels.
        patch: Side of a patch in pixels.
    """

    family = "patch_transformer"

    input_shape: tuple[int, int, int]
    classes: int
    width: tuple[int, ...] = (32, 64)
    depth: tuple[int, ...] = (2, 3, 4)
    heads: tuple[int, ...] = (2, 4)
    mlp_ratio: tuple[float, ...] = (1.0, 2.0, 3.0)
    head_dim: int = 16
    patch: int = 2

    def __post_init__(self):
        if any(side % self.patch for side in self.input_shape[:2]):
            raise UserError(f"space.patch: {self.patch} does not divide the sides of images {self.input_shape[:2]}.")
        super().__post_init__()

    @cached_property
    def choices(self):
        return (
            Choice("width", self.width, selects_program=True),
            Choice("depth", self.depth),
            Choice("heads", self.heads, gate="depth"),
            Choice("mlp_ratio", self.mlp_ratio, gate="depth"),
        )

    @property
    def tokens(self):
        return self.input_shape[0] * self.input_shape[1] // self.patch**2

    @cached_property
    def network(self):
        t, size, width, heads = self.tokens, self.head_dim, Axis("width"), Axis("heads")
        inner = Axis("inner", ("heads",), lambda heads: heads * size)
        hidden = Axis("hidden", ("width", "mlp_ratio"), lambda width, ratio: int(width * ratio))
        outside = {
            "patch": linear(self.patch**2 * self.input_shape[2], width, t), "position": table(t, width),
            "norm": norm(width), "head": linear(width, self.classes),
        }  # fmt: skip
        attention = {"norm": norm(width), "out": linear(inner, width, t)}
        attention |= {name: linear(width, inner, t) for name in ("q", "k", "v")}
        scores = Product(t, (size,), (t, heads)), Product(t, (t,), (inner,))
        mlp = {"norm": norm(width), "up": linear(width, hidden, t), "down": linear(hidden, width, t)}
        layer = Sublayer("attention", attention, scores, "attention"), Sublayer("mlp", mlp, path="mlp")
        return Network(Sublayer("outside_layers", outside), (Stack("layers", layer, self.depth[-1]),))


@SUPERNETS.register("patch_transformer")
class PatchTransformer(ElasticNetwork):
    space: PatchTransformerSpace

    @cached_property
    def stages(self):
        def project(params, inputs, context):
            x = layer_norm(inputs[0], params["norm"], share=context.shares.get("width"))
            q, k, v = (dense(x, params[name]) for name in ("q", "k", "v"))
            q, k, v = (y.reshape(*y.shape[:2], -1, self.space.head_dim).swapaxes(1, 2) for y in (q, k, v))
            return q[:, :, None], k, v  # one query for each key

        def mix(params, inputs, context):
            return inputs[0] + dense(mixed(*inputs[1:]).reshape(*inputs[0].shape[:2], -1), params["out"])

        def up(params, inputs, context):
            return dense(layer_norm(inputs[0], params["norm"], share=context.shares.get("width")), params["up"])

        def down(params, inputs, context):
            return inputs[0] + dense(jax.nn.gelu(inputs[1]), params["down"])

        return {"attention": (Stage(project), attend(), Stage(mix)), "mlp": (Stage(up), Stage(down))}

    def embed(self, params, x, context):
        (b, h, w, c), p = x.shape, self.space.patch
        patches = x.reshape(b, h // p, p, w // p, p, c).swapaxes(2, 3).reshape(b, self.space.tokens, p * p * c)
        return dense(patches, params["patch"]) + params["position"]

    def head(self, params, x, context):
        return dense(jnp.mean(layer_norm(x, params["norm"], share=context.shares.get("width")), axis=1), params["head"])
