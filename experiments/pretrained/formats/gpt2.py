"""Model type `gpt2`.

References:
    Radford et al. Language Models are Unsupervised Multitask Learners. 2019.
"""

from experiments.pretrained.formats.model_type import GELU, MODEL_TYPES, ModelType, Sizes, activation, head_size_of
from experiments.pretrained.formats.settings import FormFields, Settings
from experiments.pretrained.formats.tensors import SAME, SIDE_BY_SIDE, Row, fused, linear, norm
from experiments.records.plain import JsonObject
from search_spaces import LanguageForm

_DEFAULTS = {
    "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False, "tie_word_embeddings": True,
}  # fmt: skip


def _read(settings: Settings) -> tuple[FormFields, Sizes]:
    for key, wanted in {
        "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False,
    }.items():  # fmt: skip
        settings.only(key, (wanted,), wanted)
    width, heads = settings.size("n_embd"), settings.size("n_head")
    return {
        "vocabulary": settings.size("vocab_size"),
        "head_size": head_size_of(settings, width, heads),
        "max_positions": settings.size("n_positions"),
        "positions": "learned",
        "norm": "layer",
        "norm_epsilon": settings.number("layer_norm_epsilon", 1e-5),
        "activation": activation(settings, "activation_function", GELU),
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "tied": settings.flag("tie_word_embeddings", True),
    }, Sizes(width, settings.size("n_layer"), heads, 1, settings.size("n_inner", 4 * width))


def _write(form: LanguageForm, sizes: Sizes) -> JsonObject:
    return {
        "vocab_size": form.vocabulary,
        "n_embd": sizes.width,
        "n_layer": sizes.depth,
        "n_head": sizes.heads,
        "n_inner": sizes.mlp_width,
        "n_positions": form.length,
        "n_ctx": form.length,
        "activation_function": "gelu_new" if form.activation == "gelu_tanh" else form.activation,
        "layer_norm_epsilon": form.norm_epsilon,
        "tie_word_embeddings": form.tied,
    }


def _rows(form: LanguageForm) -> list[Row]:
    layer, ours = "transformer.h.{i}", "layers.{i}"
    return [
        Row("transformer.wte.weight", ("embedding",)),
        Row("transformer.wpe.weight", ("position",)),
        *norm(f"{layer}.ln_1", f"{ours}.attention.norm", bias=True),
        *fused(f"{layer}.attn.c_attn", f"{ours}.attention", True, SIDE_BY_SIDE),
        # Its class stores linear layers [in, out].
        *linear(f"{layer}.attn.c_proj", f"{ours}.attention.out", True, SAME),
        *norm(f"{layer}.ln_2", f"{ours}.mlp.norm", bias=True),
        *linear(f"{layer}.mlp.c_fc", f"{ours}.mlp.up", True, SAME),
        *linear(f"{layer}.mlp.c_proj", f"{ours}.mlp.down", True, SAME),
        *norm("transformer.ln_f", "norm", bias=True),
        *([] if form.tied else [Row("lm_head.weight", ("head",))]),
    ]


MODEL_TYPES.register("gpt2")(
    ModelType(
        "GPT2LMHeadModel", "transformer.", _read, _write, _rows,
        ignored=(r".*\.(cross)?attn\.(masked_)?bias", r"lm_head\.weight"), defaults=_DEFAULTS,
        names={
            "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
            "n_positions": "max_position_embeddings",
        },
    )
)  # fmt: skip
