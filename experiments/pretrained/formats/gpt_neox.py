"""Model type `gpt_neox` (Pythia).

References:
    Black et al. GPT-NeoX-20B: An Open-Source Autoregressive Language Model. 2022, arXiv:2204.06745.
    Biderman et al. Pythia: A Suite for Analyzing Large Language Models. ICML 2023, arXiv:2304.01373.
"""

from experiments.pretrained.formats.model_type import (
    GELU,
    MODEL_TYPES,
    ModelType,
    Sizes,
    activation,
    head_size_of,
    rope,
    written_rope,
)  # fmt: skip
from experiments.pretrained.formats.settings import FormFields, Settings
from experiments.pretrained.formats.tensors import ROTARY_BUFFERS, Row, fused, head_by_head, linear, norm
from experiments.records.plain import JsonObject
from search_spaces import LanguageForm

_DEFAULTS = {
    "vocab_size": 50432, "hidden_size": 6144, "num_hidden_layers": 44, "num_attention_heads": 64,
    "intermediate_size": 24576, "hidden_act": "gelu", "max_position_embeddings": 2048, "layer_norm_eps": 1e-5,
    "tie_word_embeddings": False, "use_parallel_residual": True, "attention_bias": True,
}  # fmt: skip


def _read(settings: Settings) -> tuple[FormFields, Sizes]:
    width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
    bias = settings.flag("attention_bias", True)
    return {
        "vocabulary": settings.size("vocab_size"),
        "head_size": head_size_of(settings, width, heads),
        "max_positions": settings.size("max_position_embeddings"),
        "rotary": settings.of("rope_parameters").number("partial_rotary_factor", 0.25),
        "norm": "layer",
        "norm_epsilon": settings.number("layer_norm_eps", 1e-5),
        "activation": activation(settings, "hidden_act", GELU),
        "qkv_bias": bias,
        "out_bias": bias,
        "mlp_bias": True,
        "parallel": settings.flag("use_parallel_residual", True),
        "tied": settings.flag("tie_word_embeddings", False),
        **rope(settings),
    }, Sizes(width, settings.size("num_hidden_layers"), heads, 1, settings.size("intermediate_size"))


def _write(form: LanguageForm, sizes: Sizes) -> JsonObject:
    return {
        "vocab_size": form.vocabulary,
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.mlp_width,
        "hidden_act": "gelu_new" if form.activation == "gelu_tanh" else form.activation,
        "max_position_embeddings": form.length,
        "layer_norm_eps": form.norm_epsilon,
        "rotary_pct": form.rotary,
        "rotary_emb_base": form.rope_theta,
        **written_rope(form),
        "attention_bias": form.qkv_bias,
        "use_parallel_residual": form.parallel,
        "tie_word_embeddings": form.tied,
    }


def _rows(form: LanguageForm) -> list[Row]:
    layer, ours = "gpt_neox.layers.{i}", "layers.{i}"
    heads = head_by_head(form.head_size)
    return [
        Row("gpt_neox.embed_in.weight", ("embedding",)),
        *norm(f"{layer}.input_layernorm", f"{ours}.attention.norm", bias=True),
        *fused(f"{layer}.attention.query_key_value", f"{ours}.attention", form.qkv_bias, heads),
        *linear(f"{layer}.attention.dense", f"{ours}.attention.out", form.out_bias),
        *norm(f"{layer}.post_attention_layernorm", f"{ours}.mlp.norm", bias=True),
        *linear(f"{layer}.mlp.dense_h_to_4h", f"{ours}.mlp.up", True),
        *linear(f"{layer}.mlp.dense_4h_to_h", f"{ours}.mlp.down", True),
        *norm("gpt_neox.final_layer_norm", "norm", bias=True),
        *([] if form.tied else [Row("embed_out.weight", ("head",))]),
    ]


MODEL_TYPES.register("gpt_neox")(
    ModelType(
        "GPTNeoXForCausalLM", "gpt_neox.", _read, _write, _rows,
        ignored=(r".*\.attention\.(masked_)?bias", ROTARY_BUFFERS, r"embed_out\.weight"),
        defaults=_DEFAULTS,
        rotation={"rope_theta": ("rotary_emb_base", 10000.0), "partial_rotary_factor": ("rotary_pct", 0.25)},
    )
)  # fmt: skip
