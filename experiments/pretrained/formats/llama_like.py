"""Common form of Llama and similar model types: pre-norm, RoPE, RMSNorm, SwiGLU, grouped queries."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.pretrained.formats.model_type import (
    SILU,
    ModelType,
    Sizes,
    activation,
    grouped,
    head_size_of,
    rope,
    written_rope,
)  # fmt: skip
from experiments.pretrained.formats.precedence import THETA
from experiments.pretrained.formats.settings import FormFields, Settings
from experiments.pretrained.formats.tensors import ROTARY_BUFFERS, Row, linear, norm
from experiments.records.plain import JsonObject
from search_spaces import LanguageForm

_DEFAULTS = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip


def llama_like(
    architecture: str,
    biases: Callable[[Settings], dict[str, bool]],
    write_biases: Callable[[LanguageForm], JsonObject],
    defaults: Mapping[str, Any],
    window: Callable[[Settings], int | None] = lambda settings: None,
    heads_divide_width: bool = False,
    **form: Any,
) -> ModelType:
    """Returns a model type similar to Llama.

    Args:
        architecture: The class that loads it.
        biases: Biases that it has, from its settings; fields of the form.
        write_biases: Settings that say the same, and others that only this model type has.
        defaults: Values that its class fills in, beside those that all of them do.
        window: Tokens that attention sees back, from its settings; up to so many it is full attention.
        heads_divide_width: Whether its class refuses other sizes.
        form: Form that all networks of the type share; fields of the form.
    """

    def read(settings: Settings) -> tuple[FormFields, Sizes]:
        if settings.of("rope_parameters").values.get("rope_type") == "llama3":
            settings.of("rope_parameters").only("partial_rotary_factor", (None, 1.0))
        width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
        given = settings.values.get("head_dim")
        if given is None or heads_divide_width:
            head_size_of(settings, width, heads)
        positions = settings.size("max_position_embeddings")
        return {
            "vocabulary": settings.size("vocab_size"),
            "head_size": settings.size("head_dim") if given is not None else width // heads,
            "max_positions": min(positions, window(settings) or positions),
            "norm": "rms",
            "norm_epsilon": settings.number("rms_norm_eps", 1e-6),
            "activation": activation(settings, "hidden_act", SILU),
            "tied": settings.flag("tie_word_embeddings", False),
            **rope(settings),
            **biases(settings),
            **form,
        }, Sizes(width, settings.size("num_hidden_layers"), *grouped(settings), settings.size("intermediate_size"))

    def write(form: LanguageForm, sizes: Sizes) -> JsonObject:
        return {
            "vocab_size": form.vocabulary,
            "hidden_size": sizes.width,
            "num_hidden_layers": sizes.depth,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "head_dim": form.head_size,
            "intermediate_size": sizes.mlp_width,
            "hidden_act": "silu",
            "max_position_embeddings": form.length,
            "rms_norm_eps": form.norm_epsilon,
            **written_rope(form),
            "tie_word_embeddings": form.tied,
            **write_biases(form),
        }

    def rows(form: LanguageForm) -> list[Row]:
        layer, ours = "model.layers.{i}", "layers.{i}"
        attention, mlp = f"{layer}.self_attn", f"{layer}.mlp"
        units = ("gate", "up", "down")
        normed = ("q_norm", "k_norm") if form.qk_norm else ()
        return [
            Row("model.embed_tokens.weight", ("embedding",)),
            *norm(f"{layer}.input_layernorm", f"{ours}.attention.norm"),
            *(row for p in "qkv" for row in linear(f"{attention}.{p}_proj", f"{ours}.attention.{p}", form.qkv_bias)),
            *(row for p in normed for row in norm(f"{attention}.{p}", f"{ours}.attention.{p}")),
            *linear(f"{attention}.o_proj", f"{ours}.attention.out", form.out_bias),
            *norm(f"{layer}.post_attention_layernorm", f"{ours}.mlp.norm"),
            *(row for p in units for row in linear(f"{mlp}.{p}_proj", f"{ours}.mlp.{p}", form.mlp_bias)),
            *norm("model.norm", "norm"),
            *([] if form.tied else [Row("lm_head.weight", ("head",))]),
        ]

    return ModelType(
        architecture, "model.", read, write, rows, (ROTARY_BUFFERS, r"lm_head\.weight"), {**_DEFAULTS, **defaults},
        rotation=THETA, free_head_size=True, heads_divide_width=heads_divide_width,
    )  # fmt: skip
