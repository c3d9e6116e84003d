"""Language spaces: one stream width; key-value groups, queries a group and MLP width of each layer; which layers.

References:
    Ainslie et al. GQA: Training Generalized Multi-Query Transformer Models. EMNLP 2023, arXiv:2305.13245.
    Taghibakhshi et al. Nemotron Elastic: Towards Efficient Many-in-One Reasoning LLMs. 2025, arXiv:2511.16664
    (what varies; layers kept by importance). Differs: transformers only; the queries of a group vary too.
    Zhang et al. POA: Pre-training Once for Models of All Sizes. ECCV 2024, arXiv:2408.01031 (equidistant layers).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from search_spaces.choice import Choice
from search_spaces.cost import Cost
from search_spaces.errors import UserError, did_you_mean
from search_spaces.families import FAMILIES
from search_spaces.language_form import LanguageForm
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Axis, Extent, Part, Product, Shape, linear, norm, table
from search_spaces.space import SearchSpace
from search_spaces.template import SHARES, Template

KEEP_RULES = ("first", "equidistant", "ranked")


class LanguageCost(NamedTuple):
    """Costs of a piece of a language model.

    Attributes:
        params: Number of trainable parameters.
        macs: Number of multiply-adds a token, in a sequence of `context` tokens.
        activation_bytes: Bytes of the outputs of products in fp32, for one sequence of `context` tokens.
        kv_cache_bytes: Bytes of the keys and values of `cache_context` tokens in fp32; 0 for an encoder.
        inference_bytes: Bytes of the parameters and of the key-value cache in fp32, which generation needs.
    """

    params: int = 0
    macs: int = 0
    activation_bytes: int = 0
    kv_cache_bytes: int = 0
    inference_bytes: int = 0


@FAMILIES.register("language")
@dataclass(frozen=True, kw_only=True)
class LanguageSpace(LanguageForm, SearchSpace):
    """Transformer language models: decoders, and masked encoders (`causal: false`).

    Args:
        width: Widths of the residual stream in channels; one for the whole network.
        depth: Numbers of layers.
        kv_heads: Numbers of key-value heads; without grouped queries, the numbers of heads.
        heads_follow_width: Leave out the choice of key-value heads: each width has its own number of them, in the order
            given. Needed by model types whose head size is the width divided by the number of heads.
        queries: Numbers of query heads that share a key-value head.
        mlp_width: Widths of the MLP in units.
        uniform: Make one choice of heads and MLP for all layers, as other runtimes require; otherwise one per layer.
        keep: Layers that a shallower network keeps: the `first`, `equidistant` ones (first and last included), or
            `ranked`: those that come first in `layer_order`.
        layer_order: Indices of all layers, the most important first; for `ranked`.
        cache_context: Number of tokens for which the key-value cache is counted; null for `context`.
        adapter_rank: Ranks of the adapters of frozen weights, for sharing `elastic_rank`; null for no adapters. An
            exported network holds the sums, so that its costs do not depend on the rank.

    Raises:
        UserError: Sizes that are not positive, an order that is not one of all layers, or a cache for more tokens than
            the network takes.
    """

    family = "language"
    divisible = True
    inputs = "tokens"
    template = Template(
        space="""\
  # Any field of the family can be set here, and then overrides the preset:
  # depth: [3, 4, 5, 6]
  # uniform: true          # all layers alike, as transformers can load them
""",
        train="""\
  optimizer: {type: adamw, learning_rate: 1.0e-3, weight_decay: 0.1, warmup_steps: 200, clip_norm: 1.0}
""",
        budgets=SHARES,
    )
    metrics = LanguageCost._fields
    presets = {
        "small": {
            "width": (128, 192, 256), "depth": (3, 4, 5, 6), "kv_heads": (2, 3, 4), "mlp_width": (256, 512, 768),
            "vocabulary": 259, "context": 128, "head_size": 64,
        },
        "language_step": {
            "width": (128, 192, 256), "depth": (4, 6, 8), "kv_heads": (4, 6, 8), "mlp_width": (512, 768, 1024),
            "uniform": True, "vocabulary": 512, "context": 128, "head_size": 32, "rotary": 0.25, "norm": "layer",
            "norm_epsilon": 1e-5, "activation": "gelu", "qkv_bias": True, "out_bias": True, "mlp_bias": True,
            "parallel": True, "tied": False,
        },
    }  # fmt: skip

    width: tuple[int, ...]
    depth: tuple[int, ...]
    kv_heads: tuple[int, ...]
    heads_follow_width: bool = False
    queries: tuple[int, ...] = (1,)
    mlp_width: tuple[int, ...]
    uniform: bool = False
    keep: str = "first"
    layer_order: tuple[int, ...] = ()
    cache_context: int | None = None
    adapter_rank: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for choice in (*self.choices, self._kv_heads):
            if min(choice.values) <= 0:  # type: ignore[type-var]
                raise UserError(f"space.{choice.name}: {list(choice.values)} has values that are not positive.")
        if self.heads_follow_width and len(self.kv_heads) != len(self.width):
            raise UserError(
                f"space.kv_heads: {list(self.kv_heads)} are not as many as the widths {list(self.width)}, which they "
                "follow. Give one for each width, or set heads_follow_width to false."
            )
        if self.keep not in KEEP_RULES:
            raise UserError(f"space.keep: {self.keep!r} is not known.{did_you_mean(self.keep, KEEP_RULES)}")
        wanted = list(range(self.max_depth)) if self.keep == "ranked" else []
        if sorted(self.layer_order) != wanted:
            raise UserError(
                f"space.layer_order: {list(self.layer_order)} does not hold each of {wanted} once, as keep: "
                f"{self.keep} needs it. Give all layers for ranked, and none otherwise."
            )

        if not 0 < self.cached <= self.length:
            raise UserError(
                f"space.cache_context: {self.cached} is not in 1..{self.length}, the tokens that networks take. Give "
                "fewer, or a larger max_positions."
            )
        SearchSpace.__post_init__(self)

    @property
    def cached(self) -> int:
        """Tokens that the key-value cache is counted for."""
        return self.context if self.cache_context is None else self.cache_context

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        return (
            Choice("width", self.width, selects_program=True),
            Choice("depth", self.depth),
            *([] if self.heads_follow_width else [self._kv_heads]),
            Choice("queries", self.queries, gate=self._gate),
            Choice("mlp_width", self.mlp_width, gate=self._gate),
            *([] if self.adapter_rank is None else [Choice("adapter_rank", self.adapter_rank)]),
        )

    @property
    def _gate(self) -> str | None:
        return None if self.uniform else "depth"

    @property
    def _kv_heads(self) -> Choice:
        return Choice("kv_heads", self.kv_heads, gate=self._gate)

    @property
    def reference_error(self) -> float:
        """See `SearchSpace.reference_error`: here errors are losses, and this is that of guessing."""
        return math.log(self.vocabulary)

    # ---------------------------------------------------------------- layers

    @property
    def max_depth(self) -> int:
        """Layers of the deepest network."""
        return self.depth[-1]

    def layers(self, depth: int) -> list[int]:
        """Returns the layer at each position of a network; position i belongs to the i-th gene of a layer's choices.

        A network runs its layers in ascending order, whatever their positions. Ranked layers keep their position in
        every depth that has them.
        """
        if self.keep == "ranked":
            return list(self.layer_order[:depth])
        if self.keep == "first" or depth == 1:
            return list(range(depth))
        return [i * (self.max_depth - 1) // (depth - 1) for i in range(depth)]

    @property
    def _positions(self) -> Int[np.ndarray, "n l"]:
        """The position of each layer in a network of each depth; -1 where it has no such layer."""
        table = np.full((len(self.depth), self.max_depth), -1, np.int32)
        for row, depth in zip(table, self.depth, strict=True):
            row[self.layers(depth)] = np.arange(depth)
        return table

    def heads_of(self, width: int) -> int:
        """Returns the number of key-value heads of a width."""
        return self.kv_heads[self.width.index(width)]

    # ---------------------------------------------------------------- description

    @cached_property
    def network(self) -> Network:
        t, size = self.context, self.head_size
        width, queries, hidden = Axis("width"), Axis("queries"), Axis("mlp_width")
        heads = Axis("kv_heads", ("width",), self.heads_of) if self.heads_follow_width else Axis("kv_heads")
        normed, read = norm(width, bias=self.norm == "layer"), Product(t, (width,), (self.vocabulary,))
        outside = {"embedding": Part({"": (self.vocabulary, width)}, (read,) if self.tied else ()), "norm": normed}
        if not self.tied:
            outside["head"] = Part({"": (self.vocabulary, width)}, (read,))
        if self.positions == "learned":
            outside["position"] = table(self.length, width)
        if self.token_types:
            outside["token_type"] = table(self.token_types, width)
        if self.head_transform:
            outside |= {"transform/dense": linear(width, width, t), "transform/norm": normed}
            outside["head_bias"] = table(self.vocabulary)

        def projection(*writes: Extent) -> Part:
            bias: dict[str, Shape] = {"bias": (writes,)} if self.qkv_bias else {}
            return Part({"kernel": (width, writes), **bias}, (Product(t, (width,), writes),))

        inner, keys = (heads, queries, size), (heads, size)
        out: dict[str, Shape] = {"kernel": (inner, width), **({"bias": (width,)} if self.out_bias else {})}
        attention = {
            "norm": normed, "q": projection(*inner), "k": projection(*keys), "v": projection(*keys),
            "out": Part(out, (Product(t, inner, (width,)),)),
            **({f"{name}_norm": norm(size, bias=False) for name in ("q", "k")} if self.qk_norm else {}),
        }  # fmt: skip
        scores = Product(t, (size,), (t, heads, queries)), Product(t, (t,), inner)
        mlp = {name: linear(width, hidden, t, self.mlp_bias) for name in ("gate", "up")[self.activation != "swiglu" :]}
        mlp |= {"norm": normed, "down": linear(hidden, width, t, self.mlp_bias)}
        matrices = tuple(name for name in mlp if name != "norm")
        layer = (
            Sublayer("attention", attention, scores, "attention"),
            Sublayer("mlp", mlp, path="mlp", feed_forward=matrices),
        )
        positions = None if self.keep == "first" else self._positions
        stack = Stack("layers", layer, self.max_depth, positions=positions, parallel=self.parallel)
        return Network(Sublayer("outside_layers", outside), (stack,))

    def price(self, cost: Cost, sizes: Mapping[str, int]) -> LanguageCost:
        """See `SearchSpace.price`: multiply-adds a token, and the cache of keys and values."""
        keys = sizes["kv_heads"] * self.head_size if "kv_heads" in sizes else 0
        cache = 4 * 2 * keys * self.cached * self.causal
        return LanguageCost(
            cost.params, cost.macs // self.context, cost.activation_bytes, cache, 4 * cost.params + cache
        )
