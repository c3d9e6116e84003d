"""LanguageForm: what all networks of a language space have in common, and what its plain networks are built from.

References:
    Touvron et al. LLaMA: Open and Efficient Foundation Language Models. 2023, arXiv:2302.13971 (RMSNorm, SwiGLU, RoPE).
    Su et al. RoFormer: Enhanced Transformer with Rotary Position Embedding. 2021, arXiv:2104.09864.
    Black et al. GPT-NeoX-20B: An Open-Source Autoregressive Language Model. 2022, arXiv:2204.06745 (parallel residual).
    Grattafiori et al. The Llama 3 Herd of Models. 2024, arXiv:2407.21783 (scaled positions).
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from search_spaces.errors import UserError, did_you_mean
from search_spaces.sealed_json import JsonObject

_NAMES = {
    "positions": ("rope", "learned"),
    "norm": ("rms", "layer"),
    "activation": ("swiglu", "gelu", "gelu_tanh"),
}


@dataclass(frozen=True, kw_only=True)
class LanguageForm:
    """Settings that all networks of a language space share.

    Args:
        vocabulary: Number of different tokens; taken from the data.
        context: Number of tokens of a training sequence, for which costs are counted too; taken from the data.
        head_size: Size of a head in channels; queries are `head_size * heads` wide, independent of the stream.
        max_positions: Number of tokens of the longest sequence, and of rows of learned positions; 0 for `context`.
        causal: Let a token attend only to itself and earlier tokens; otherwise to the whole sequence (an encoder).
        positions: Form of positions: `rope` or `learned`.
        rope_theta: Base of the rotation's wavelengths (a number).
        rope_scaling: Stretching of wavelengths for sequences longer than trained on, as in Llama 3: factor, low and
            high frequency factor, and length trained on in tokens. None when empty.
        rotary: Share of each head that rotates, from its start.
        norm: Normalisation: `rms` or `layer`.
        norm_epsilon: Number added to the variance.
        post_norm: Normalise the stream after each sublayer, and after the embedding, instead of each sublayer's input.
        activation: Activation: `swiglu` (gated), `gelu` (exact), or `gelu_tanh` (its approximation).
        qkv_bias: Add biases to queries, keys and values.
        out_bias: Add a bias to the output projection of attention.
        mlp_bias: Add biases in the MLP.
        qk_norm: Normalise each query and key over its head by RMSNorm, before rotation.
        parallel: Let attention and MLP both read the layer's input, and add both to it.
        tied: Use the embedding as the output projection.
        token_types: Number of rows of a segment embedding, whose first row is added to every token; 0 for none.
        head_transform: Put a dense layer, activation and norm before the output projection, which then has a bias.

    Raises:
        UserError: Sizes or names that cannot work.
    """

    vocabulary: int
    context: int
    head_size: int
    max_positions: int = 0
    causal: bool = True
    positions: str = "rope"
    rope_theta: float = 10000.0
    rope_scaling: tuple[float, ...] = ()
    rotary: float = 1.0
    norm: str = "rms"
    norm_epsilon: float = 1e-6
    post_norm: bool = False
    activation: str = "swiglu"
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    parallel: bool = False
    tied: bool = True
    token_types: int = 0
    head_transform: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rope_scaling", tuple(self.rope_scaling))  # a list where it comes from JSON
        for name in ("vocabulary", "context", "head_size"):
            if getattr(self, name) < 1:
                raise UserError(f"space.{name}: {getattr(self, name)} is less than 1. Give a positive size.")
        for name in ("max_positions", "token_types"):
            if getattr(self, name) < 0:
                raise UserError(f"space.{name}: {getattr(self, name)} is negative. Give 0 for none.")
        for name, known in _NAMES.items():
            given = getattr(self, name)
            if given not in known:
                raise UserError(
                    f"space.{name}: {getattr(self, name)!r} is not known.{did_you_mean(getattr(self, name), known)}"
                )
        for name in ("rope_theta", "norm_epsilon"):
            if getattr(self, name) <= 0:
                raise UserError(f"space.{name}: {getattr(self, name)} is not positive. Give a positive number.")
        if len(self.rope_scaling) not in (0, 4) or min(self.rope_scaling, default=1) <= 0:
            raise UserError(
                f"space.rope_scaling: {list(self.rope_scaling)} is not four positive numbers. Give factor, low and "
                "high frequency factor, and length; or leave it out."
            )
        if self.length < self.context:
            raise UserError(
                f"space.context: {self.context} is longer than max_positions {self.max_positions}. Give at most that."
            )
        if not 0 < self.rotary <= 1:
            raise UserError(f"space.rotary: {self.rotary} is not in 0..1. Give the share of a head that rotates.")
        if self.positions == "rope" and (self.rotated % 2 or not self.rotated):
            raise UserError(
                f"space.rotary: {self.rotated} of head_size {self.head_size} would rotate, which is no positive "
                "even number. Change one of them."
            )
        if self.parallel and self.post_norm:
            raise UserError("space.parallel: not together with post_norm. Set one of them to false.")

    @property
    def form(self) -> JsonObject:
        """The fields of this class by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(LanguageForm)}

    @property
    def length(self) -> int:
        """Longest sequence."""
        return self.max_positions or self.context

    @property
    def rotated(self) -> int:
        """Entries of a head that rotate."""
        return int(self.head_size * self.rotary)

    @property
    def frequencies(self) -> Float32[np.ndarray, " n"]:
        """Radians a position by which the pairs of a head turn, the fastest first."""
        half = self.rotated // 2
        found = self.rope_theta ** (-np.arange(half) / half)
        if self.rope_scaling:
            factor, low, high, length = self.rope_scaling
            # The share that stays: all of a wave that fits often into the length, nothing of one that hardly fits.
            kept = np.clip((length * found / (2 * np.pi) - low) / (high - low), 0, 1)
            found = found * (kept + (1 - kept) / factor)
        return found.astype(np.float32)
