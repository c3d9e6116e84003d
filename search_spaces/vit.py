"""ViT spaces: one stream width, and heads and MLP width a layer, over a first-n-layers depth.

References:
    Chen, Peng, Fu, Ling. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651
    (choice lists of the presets). Differs: no relative position tables; absolute positions only.
"""

from dataclasses import dataclass
from functools import cached_property

from search_spaces.choice import Choice
from search_spaces.errors import UserError
from search_spaces.families import FAMILIES
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, Part, Product, Shape, linear, norm, table
from search_spaces.space import SearchSpace
from search_spaces.template import SHARES, Template


@FAMILIES.register("vit")
@dataclass(frozen=True)
class ViTSpace(SearchSpace):
    """Vision transformers: pre-norm blocks, GELU, learned positions, class token or mean pooling.

    Args:
        width: Widths of the residual stream in channels; one for the whole network.
        depth: Numbers of layers; the first ones are kept.
        heads: Numbers of attention heads of a layer; queries, keys and values are `head_dim * heads` wide.
        mlp_ratio: Ratios of a layer's MLP width to the stream width.
        head_dim: Size of a head in channels.
        patch_size: Side of a patch in pixels.
        image_size: Side of the input in pixels; taken from the data.
        channels: Number of channels of the input; taken from the data.
        classes: Number of classes; taken from the data.
        class_token: Classify from an additional token; otherwise from the mean of the patches.

    Raises:
        UserError: Sizes that are not positive, or a patch that does not divide the image.
    """

    family = "vit"
    divisible = True
    template = Template(
        space="""\
  # Any field of the family can be set here, and then overrides the preset:
  # depth: [3, 4, 5, 6]
  # mlp_ratio: [1.0, 2.0, 3.0]
""",
        train="""\
  optimizer: {type: adamw, learning_rate: 2.0e-3, weight_decay: 0.05, warmup_steps: 200, clip_norm: 1.0}
  label_smoothing: 0.05
""",
        budgets=SHARES,
    )
    presets = {
        "small": {
            "width": (32, 48, 64), "depth": (3, 4, 5, 6), "heads": (2, 3, 4), "mlp_ratio": (1.0, 2.0, 3.0),
            "head_dim": 16, "patch_size": 2, "image_size": 8, "channels": 1, "classes": 10, "class_token": False,
        },
        "autoformer_tiny": {
            "width": (192, 216, 240), "depth": (12, 13, 14), "heads": (3, 4), "mlp_ratio": (3.5, 4.0),
        },
        "autoformer_small": {
            "width": (320, 384, 448), "depth": (12, 13, 14), "heads": (5, 6, 7), "mlp_ratio": (3.0, 3.5, 4.0),
        },
        "autoformer_base": {
            "width": (528, 576, 624), "depth": (14, 15, 16), "heads": (9, 10), "mlp_ratio": (3.0, 3.5, 4.0),
        },
    }  # fmt: skip

    width: tuple[int, ...]
    depth: tuple[int, ...]
    heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...]
    head_dim: int = 64
    patch_size: int = 16
    image_size: int = 224
    channels: int = 3
    classes: int = 1000
    class_token: bool = True

    def __post_init__(self) -> None:
        for name in ("head_dim", "patch_size", "image_size", "channels", "classes"):
            if getattr(self, name) < 1:
                raise UserError(f"space.{name}: {getattr(self, name)} is less than 1. Give a positive size.")
        if self.image_size % self.patch_size:
            raise UserError(
                f"space.patch_size: {self.patch_size} does not divide the image size {self.image_size}. "
                f"Give a divisor of {self.image_size}."
            )
        super().__post_init__()

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("width", self.width, selects_program=True),
            Choice("depth", self.depth),
            Choice("heads", self.heads, gate="depth"),
            Choice("mlp_ratio", self.mlp_ratio, gate="depth"),
        )

    @property
    def max_depth(self) -> int:
        """Layers of the deepest network."""
        return self.depth[-1]

    @property
    def tokens(self) -> int:
        """Length of the sequence, the class token included."""
        return (self.image_size // self.patch_size) ** 2 + self.class_token

    @property
    def patch_dim(self) -> int:
        """Numbers in a patch."""
        return self.patch_size**2 * self.channels

    @staticmethod
    def hidden(width: int, ratio: float) -> int:
        """Returns the width of an MLP."""
        return int(width * ratio)

    @cached_property
    def network(self) -> Network:
        tokens, patches = self.tokens, self.tokens - self.class_token
        width, heads = Axis("width"), Axis("heads")
        inner = Axis("inner", ("heads",), lambda heads: heads * self.head_dim)
        hidden = Axis("hidden", ("width", "mlp_ratio"), self.hidden)
        qkv: Shape = (width, (3, inner))
        outside = {
            "patch": linear(self.patch_dim, width, patches),
            "position": table(tokens, width),
            **({"class_token": table(width)} if self.class_token else {}),
            "norm": norm(width),
            "head": linear(width, self.classes),
        }
        attention = {
            "norm1": norm(width),
            "attention/qkv": Part({"kernel": qkv, "bias": qkv[1:]}, (Product(tokens, (width,), (3, inner)),)),
            "attention/out": linear(inner, width, tokens),
        }
        scores = Product(tokens, (self.head_dim,), (tokens, heads)), Product(tokens, (tokens,), (inner,))
        mlp = {"norm2": norm(width), "fc1": linear(width, hidden, tokens), "fc2": linear(hidden, width, tokens)}
        layer = Sublayer("attention", attention, scores), Sublayer("mlp", mlp, feed_forward=("fc1", "fc2"))
        return Network(Sublayer("outside_layers", outside), (Stack("layers", layer, self.max_depth),), ("norm", "head"))
