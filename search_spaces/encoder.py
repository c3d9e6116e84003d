"""Encoder spaces: BERT-like networks whose layers are alike, and which read a text or imitate a teacher's attention.

References:
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805.
    Xu et al. Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language Models. NeurIPS 2022
    (AutoDistil: what varies, the sizes of the presets, alternate layers of the teacher, the leftmost heads and
    channels).
    Ganesan et al. SuperShaper: Task-Agnostic Super Pre-training of BERT Models with Variable Hidden Dimensions. 2021,
    arXiv:2110.04711 (bottlenecks around each layer; the MLP's units follow the stream's width). Differs:
    a segment embedding is part of the positions, as a text has one segment; a text is classified by the mean of its
    tokens; SuperShaper trains on masked tokens.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from search_spaces.architecture import Architecture
from search_spaces.choice import Choice
from search_spaces.errors import UserError
from search_spaces.families import FAMILIES
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import IDENTITY, Axis, Part, Product, linear, norm, table
from search_spaces.space import SearchSpace
from search_spaces.template import Template

_AUTODISTIL = {"head_size": 64, "layers": 12, "vocabulary": 30522, "context": 128, "max_positions": 512}


@FAMILIES.register("encoder")
@dataclass(frozen=True, kw_only=True)
class EncoderSpace(SearchSpace):
    """Encoders as BERT's: LayerNorm behind each sublayer, GELU, learned positions, biases in every projection.

    All layers of a network are alike, but for their `bottleneck`. With `classes`, a network classifies texts; without,
    its outputs are the queries, keys and values of its last layer, shared out to `relation_heads`.

    Args:
        width: Widths of the stream in channels.
        depth: Numbers of layers. Layer i of a network with L layers is layer floor(i * layers / L) of all.
        heads: Numbers of attention heads; the first ones are kept.
        mlp_ratio: Ratios of MLP width to stream width.
        head_size: Size of a head in channels, independent of the stream.
        layers: Number of layers that networks keep theirs from, such as those of a teacher; 0 for the largest depth.
        vocabulary: Number of different tokens; taken from the data.
        context: Number of tokens of a training sequence, for which costs are counted too; taken from the data.
        max_positions: Number of tokens of the longest sequence; 0 for `context`.
        pad: Number of the token that fills sequences up, which no other token sees; taken from the data.
        classes: Number of classes of a text; 0 for a network that imitates attention; taken from the data.
        relation_heads: Number of heads that the outputs of a network without classes are shared out to; taken from the
            data.
        norm_epsilon: Number added to the variance.
        bottleneck: Widths of a layer in channels, chosen for each layer, at most the smallest `width`: a linear
            projection leads from the stream into the layer, another one back. Null for layers of the stream's width.

    Raises:
        UserError: Sizes that cannot work.
    """

    family = "encoder"
    inputs = ("labelled_text", "relations")
    template = Template(
        space="""\
  # Any field of the family can be set here, and then overrides the preset:
  # depth: [2, 3, 4]
""",
        budgets="""\
  full: {macs: 100%}
  half: {macs: 50%}
""",
    )
    presets = {
        "small": {
            "width": (64, 80, 96, 128), "depth": (1, 2, 3, 4), "heads": (1, 2, 3, 4), "mlp_ratio": (2.0, 2.5, 3.0, 4.0),
            "head_size": 32, "vocabulary": 259, "context": 64, "classes": 2, "relation_heads": 4,
        },
        "autodistil_tiny": {
            **_AUTODISTIL, "width": (128, 160, 192, 224), "depth": (4, 5, 6, 7), "heads": (7, 8, 9, 10),
            "mlp_ratio": (2.0, 2.5, 3.0, 3.5),
        },
        "autodistil_small": {
            **_AUTODISTIL, "width": (256, 288, 320, 352), "depth": (9, 10, 11, 12), "heads": (7, 8, 9, 10),
            "mlp_ratio": (2.5, 3.0, 3.5, 4.0),
        },
        "autodistil_base": {
            **_AUTODISTIL, "width": (544, 576, 608, 640), "depth": (9, 10, 11, 12), "heads": (9, 10, 11, 12),
            "mlp_ratio": (2.5, 3.0, 3.5, 4.0),
        },
    }  # fmt: skip

    width: tuple[int, ...]
    depth: tuple[int, ...]
    heads: tuple[int, ...]
    mlp_ratio: tuple[float, ...]
    head_size: int
    layers: int = 0
    vocabulary: int
    context: int
    max_positions: int = 0
    pad: int = 0
    classes: int = 0
    relation_heads: int = 12
    norm_epsilon: float = 1e-12
    bottleneck: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.check_positive()
        for name, least in (("head_size", 1), ("vocabulary", 1), ("context", 1), ("classes", 0), ("relation_heads", 1)):
            if getattr(self, name) < least:
                raise UserError(f"space.{name}: {getattr(self, name)} is less than {least}. Give at least that.")
        if self.norm_epsilon <= 0:
            raise UserError(f"space.norm_epsilon: {self.norm_epsilon} is not positive. BERT has 1.0e-12.")
        if self.layers and self.layers < self.depth[-1]:
            raise UserError(
                f"space.layers: {self.layers} is less than the depth {self.depth[-1]}. Give at least that, or 0."
            )
        if self.length < self.context:
            raise UserError(
                f"space.max_positions: {self.max_positions} is less than the {self.context} tokens of a sequence. Give "
                "at least that, or 0."
            )
        if not 0 <= self.pad < self.vocabulary:
            raise UserError(f"space.pad: {self.pad} is none of the {self.vocabulary} tokens. Give one of them.")
        if not self.classes and self.head_size * self.heads[0] < self.relation_heads:
            raise UserError(
                f"space.relation_heads: {self.relation_heads} are more than the {self.head_size * self.heads[0]} "
                "channels of all heads of the smallest network. Give fewer, or more heads."
            )
        if self.bottleneck and self.bottleneck[-1] > self.width[0]:
            raise UserError(
                f"space.bottleneck: {self.bottleneck[-1]} is more than the width {self.width[0]}. Give at most that."
            )
        super().__post_init__()

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        narrow = () if self.bottleneck is None else (Choice("bottleneck", self.bottleneck, gate="depth"),)
        return (
            Choice("width", self.width, selects_program=True),
            Choice("depth", self.depth),
            Choice("heads", self.heads),
            Choice("mlp_ratio", self.mlp_ratio),
            *narrow,
        )

    @property
    def length(self) -> int:
        """Number of tokens of the longest sequence."""
        return self.max_positions or self.context

    @property
    def relation_size(self) -> int:
        """Channels of a relation head of the network with the most heads."""
        return self.head_size * self.heads[-1] // self.relation_heads

    def kept(self, depth: int) -> list[int]:
        """Returns the layers that a network of a depth keeps, among `layers`."""
        return [i * (self.layers or self.depth[-1]) // depth for i in range(depth)]

    @cached_property
    def used(self) -> list[int]:
        """Layers that any network keeps, among `layers`, ascending."""
        return sorted({layer for depth in self.depth for layer in self.kept(depth)})

    @property
    def covering(self) -> list[Architecture]:
        """See `SearchSpace.covering`: the largest network, and that of each depth that keeps other layers."""
        found, rest = [], set(self.used)
        for number in reversed(range(len(self.depth))):
            layers = set(self.kept(self.depth[number]))
            if layers & rest:
                genes = self.cardinalities - 1
                genes[self.column("depth")] = number
                found.append(self.architecture(genes))
                rest -= layers
        return found

    @property
    def _positions(self) -> Int[np.ndarray, "n l"]:
        """The position of each layer in a network of each depth; -1 where it has no such layer."""
        positions = np.full((len(self.depth), len(self.used)), -1, np.int32)
        for row, depth in zip(positions, self.depth, strict=True):
            row[np.searchsorted(self.used, self.kept(depth))] = np.arange(depth)
        return positions

    @cached_property
    def network(self) -> Network:
        t, size, width, heads = self.context, self.head_size, Axis("width"), Axis("heads")
        inner = width if self.bottleneck is None else Axis("bottleneck")
        hidden = Axis("hidden", ("width", "mlp_ratio"), lambda width, ratio: round(width * ratio))
        outside = {"embedding": table(self.vocabulary, width), "position": table(self.length, width)}
        outside["norm"] = norm(width)
        if self.classes:
            outside["head"] = linear(width, self.classes)
        attention = {
            "norm": norm(inner),
            **{
                name: Part(
                    {"kernel": (inner, (heads, size)), "bias": ((heads, size),)},
                    (Product(t, (inner,), (heads, size)),),
                )
                for name in ("q", "k", "v")
            },
            "out": Part({"kernel": ((heads, size), inner), "bias": (inner,)}, (Product(t, (heads, size), (inner,)),)),
        }
        scores = Product(t, (size,), (t, heads)), Product(t, (t,), (heads, size))
        mlp = {"norm": norm(inner), "up": linear(inner, hidden, t), "down": linear(hidden, inner, t)}
        layer = (
            Sublayer("attention", attention, scores, "attention"),
            Sublayer("mlp", mlp, path="mlp", feed_forward=("up", "down")),
        )
        if self.bottleneck is not None:
            into, back = linear(width, inner, t, init=IDENTITY), linear(inner, width, t, init=IDENTITY)
            layer = (Sublayer("narrow", {"narrow": into}), *layer, Sublayer("widen", {"widen": back}))
        handed_on = () if self.classes else ("relations",)
        stack = Stack("layers", layer, len(self.used), positions=self._positions, handed_on=handed_on)
        return Network(Sublayer("outside_layers", outside), (stack,), head=("head",) if self.classes else ())
