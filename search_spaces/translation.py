"""Translation spaces: encoder-decoder transformers whose decoder layers may attend to several encoder layers.

References:
    Vaswani et al. Attention Is All You Need. NeurIPS 2017, arXiv:1706.03762.
    Wang et al. HAT: Hardware-Aware Transformers for Efficient Natural Language Processing. ACL 2020, arXiv:2005.14187
    (what varies; choice lists of the presets). Differs: where norms come first, the one behind the encoder is applied
    to each output that is attended to, not to the last alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from search_spaces.choice import Choice
from search_spaces.cost import Cost
from search_spaces.errors import UserError
from search_spaces.families import FAMILIES
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, Extent, Init, Part, Product, linear, norm
from search_spaces.space import SearchSpace
from search_spaces.template import Template

_HAT = {
    "encoder_width": (512, 640), "decoder_width": (512, 640), "encoder_depth": (6,),
    "decoder_depth": (1, 2, 3, 4, 5, 6), "memories": (1, 2, 3), "query_size": 512, "post_norm": True,
}  # fmt: skip


@FAMILIES.register("translation")
@dataclass(frozen=True, kw_only=True)
class TranslationSpace(SearchSpace):
    """Encoder-decoder transformers: LayerNorm, ReLU, fixed sinusoidal positions, biases in every projection.

    Args:
        encoder_width: Widths of the encoder's stream in channels.
        decoder_width: Widths of the decoder's stream in channels.
        encoder_depth: Numbers of encoder layers; the first ones are kept.
        decoder_depth: Numbers of decoder layers; the first ones are kept.
        encoder_mlp_width: Widths of the MLP of an encoder layer in units.
        encoder_heads: Numbers of attention heads of an encoder layer; they divide `query_size`, so more heads are
            smaller.
        decoder_mlp_width: Widths of the MLP of a decoder layer in units.
        decoder_heads: Numbers of heads of a decoder layer's attention to the target.
        cross_heads: Numbers of heads of a decoder layer's attention to the source.
        memories: Numbers of last encoder layers whose outputs, concatenated over tokens, a decoder layer attends to;
            the embeddings count as a layer.
        query_size: Size of queries, keys and values of all heads together, independent of the stream.
        vocabulary: Number of different tokens of both languages together; taken from the data.
        length: Number of tokens of the longest sentence, including its end token; taken from the data.
        context: Number of tokens of source and of target for which costs are counted.
        pad: Number of the padding token of source sentences, which attention ignores; taken from the data.
        post_norm: Normalise the stream after each sublayer instead of each sublayer's input.
        shared_embeddings: Use one embedding table for source, target and output; otherwise one each.

    Raises:
        UserError: Sizes that are not positive, heads that do not share out the queries, more memories than encoder
            layers, a context longer than sentences may be, or a padding token that is none.
    """

    family = "translation"
    inputs = "pairs"
    template = Template(
        space="""\
  # Any field of the family can be set here, and then overrides the preset:
  # decoder_depth: [1, 2, 3, 4]
  # memories: [1]          # decoder layers attend to the last encoder layer alone
""",
        train="""\
  optimizer: {type: adamw, learning_rate: 2.0e-3, weight_decay: 0.01, warmup_steps: 300, clip_norm: 1.0}
  label_smoothing: 0.1
""",
        budgets="""\
  full: {macs: 100%}
  middle: {macs: 70%}      # of a network with few subwords, half and less can be had, too
""",
    )
    presets = {
        "small": {
            "encoder_width": (128, 192), "decoder_width": (128, 192), "encoder_depth": (3,), "decoder_depth": (1, 2, 3),
            "encoder_mlp_width": (256, 384, 512), "encoder_heads": (2, 4), "decoder_mlp_width": (256, 384, 512),
            "decoder_heads": (2, 4), "cross_heads": (2, 4), "memories": (1, 2, 3), "query_size": 128,
            "vocabulary": 8000, "length": 64,
        },
        "hat_wmt": {
            **_HAT, "encoder_mlp_width": (1024, 2048, 3072), "encoder_heads": (4, 8),
            "decoder_mlp_width": (1024, 2048, 3072), "decoder_heads": (4, 8), "cross_heads": (4, 8),
            "vocabulary": 32768, "length": 256,
        },
        "hat_iwslt": {
            **_HAT, "encoder_mlp_width": (512, 1024, 2048), "encoder_heads": (2, 4),
            "decoder_mlp_width": (512, 1024, 2048), "decoder_heads": (2, 4), "cross_heads": (2, 4),
            "vocabulary": 10000, "length": 256, "shared_embeddings": False,
        },
    }  # fmt: skip

    encoder_width: tuple[int, ...]
    decoder_width: tuple[int, ...]
    encoder_depth: tuple[int, ...]
    decoder_depth: tuple[int, ...]
    encoder_mlp_width: tuple[int, ...]
    encoder_heads: tuple[int, ...]
    decoder_mlp_width: tuple[int, ...]
    decoder_heads: tuple[int, ...]
    cross_heads: tuple[int, ...]
    memories: tuple[int, ...] = (1,)
    query_size: int
    vocabulary: int
    length: int
    context: int = 30
    pad: int = 0
    post_norm: bool = False
    shared_embeddings: bool = True

    def __post_init__(self) -> None:
        self.check_positive()
        for name in ("query_size", "vocabulary", "length", "context"):
            if getattr(self, name) < 1:
                raise UserError(f"space.{name}: {getattr(self, name)} is less than 1. Give a positive size.")
        for name in ("encoder_heads", "decoder_heads", "cross_heads"):
            for heads in getattr(self, name):
                if self.query_size % heads:
                    raise UserError(
                        f"space.{name}: {heads} heads do not share out query_size {self.query_size}. Give divisors of "
                        "it, or another query_size."
                    )
        if self.memories[-1] > self.encoder_depth[0] + 1:
            raise UserError(
                f"space.memories: {self.memories[-1]} outputs to attend to, and an encoder_depth of "
                f"{self.encoder_depth[0]} has {self.encoder_depth[0] + 1}, embeddings included. Give at most that."
            )
        if self.context > self.length:
            raise UserError(
                f"space.context: {self.context} is longer than sentences may be, {self.length}. Give at most that."
            )
        if not 0 <= self.pad < self.vocabulary:
            raise UserError(
                f"space.pad: {self.pad} is none of the {self.vocabulary} tokens, 0 to {self.vocabulary - 1}. Give one."
            )
        super().__post_init__()

    @property
    def reference_error(self) -> float:
        """See `SearchSpace.reference_error`: here errors are losses, and this is that of guessing."""
        return math.log(self.vocabulary)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        def each(name: str, gate: str) -> Choice:
            return Choice(name, getattr(self, name), gate=gate)

        return (
            Choice("encoder_width", self.encoder_width, selects_program=True),
            Choice("decoder_width", self.decoder_width, selects_program=True),
            Choice("encoder_depth", self.encoder_depth),
            Choice("decoder_depth", self.decoder_depth),
            *(each(name, "encoder_depth") for name in ("encoder_mlp_width", "encoder_heads")),
            *(
                each(name, "decoder_depth")
                for name in ("decoder_mlp_width", "decoder_heads", "cross_heads", "memories")
            ),
        )

    @property
    def earlier(self) -> int:
        """Encoder layers before the last one whose output a decoder layer may attend to."""
        return self.memories[-1] - 1

    @property
    def largest_width(self) -> int:
        """The wider of the streams of the largest network."""
        return max(self.encoder_width[-1], self.decoder_width[-1])

    @cached_property
    def network(self) -> Network:
        t, source, target = self.context, Axis("encoder_width"), Axis("decoder_width")
        remembered = Axis("remembered", ("memories",), lambda layers: layers * t)

        def attention(name: str, stream: Axis, memory: Axis, seen: Extent, path: str) -> Sublayer:
            """Attention from the tokens of a stream to those of a memory."""
            heads, size = Axis(f"{name}_heads"), self.query_size
            head = Axis(f"{name}_head_size", (heads.name,), lambda heads: size // heads)
            parts = {"norm": norm(stream), "q": linear(stream, size, t), "out": linear(size, stream, t)}
            parts |= {one: linear(memory, size, seen) for one in ("k", "v")}
            scores = Product(t, (head,), (seen, heads)), Product(t, (seen,), (size,))
            return Sublayer(f"{name}_attention", parts, scores, path)

        def mlp(name: str, stream: Axis) -> Sublayer:
            hidden = Axis(f"{name}_mlp_width")
            parts = {"norm": norm(stream), "up": linear(stream, hidden, t), "down": linear(hidden, stream, t)}
            return Sublayer(f"{name}_mlp", parts, path="mlp", feed_forward=("up", "down"))

        encoder = attention("encoder", source, source, t, "attention"), mlp("encoder", source)
        decoder = (
            attention("decoder", target, target, t, "attention"),
            attention("cross", target, source, remembered, "cross"),
            mlp("decoder", target),
        )
        memory = ("source", "earlier") if self.earlier else ("source",)
        stacks = (
            Stack(
                "encoder/layers", encoder, self.encoder_depth[-1], depth="encoder_depth",
                handed_on=("target", *memory[1:]),
            ),
            *([] if self.post_norm else [Stack("encoder", (Sublayer("encoder_norm", {"norm": norm(source)}),))]),
            Stack("decoder/layers", decoder, self.decoder_depth[-1], depth="decoder_depth", handed_on=memory),
        )  # fmt: skip
        return Network(self._outside(source, target), stacks)

    def _outside(self, source: Axis, target: Axis) -> Sublayer:
        fresh, tables = (
            Init(self.largest_width**-0.5),
            {"embedding": Axis("embedding", (source.name, target.name), max)},
        )
        if not self.shared_embeddings:
            tables = {"source_embedding": source, "target_embedding": target, "head": target}
        parts = {name: Part({"": (self.vocabulary, axis)}, inits={"": fresh}) for name, axis in tables.items()}
        if not self.post_norm:
            parts["decoder/norm"] = norm(target)
        return Sublayer("outside_layers", parts, (Product(self.context, (target,), (self.vocabulary,)),))

    def price(self, cost: Cost, sizes: Mapping[str, int]) -> Cost:
        """See `SearchSpace.price`: multiply-adds a target token, of a pair of `context` tokens each."""
        del sizes
        return cost._replace(macs=cost.macs // self.context)
