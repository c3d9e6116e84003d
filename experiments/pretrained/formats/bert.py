"""Model type `bert`, with its masked-language-model head.

References:
    Devlin et al. BERT: Pre-training of Deep Bidirectional Transformers. NAACL 2019, arXiv:1810.04805.
    Differs: all tokens are of the first type, and all are attended to.
"""

import numpy as np

from experiments.pretrained.formats.model_type import GELU, MODEL_TYPES, ModelType, Sizes, activation, head_size_of
from experiments.pretrained.formats.settings import FormFields, Settings
from experiments.pretrained.formats.tensors import Row, linear, norm
from experiments.records.plain import JsonObject
from search_spaces import LanguageForm
from search_spaces.randomness import Purpose, stream

_DEFAULTS = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "is_decoder": False, "tie_word_embeddings": True,
}  # fmt: skip


def _read(settings: Settings) -> tuple[FormFields, Sizes]:
    settings.only("position_embedding_type", ("absolute", None), "absolute")
    settings.only("is_decoder", (False,), False)
    width, heads = settings.size("hidden_size"), settings.size("num_attention_heads")
    return {
        "vocabulary": settings.size("vocab_size"),
        "head_size": head_size_of(settings, width, heads),
        "max_positions": settings.size("max_position_embeddings"),
        "causal": False,
        "positions": "learned",
        "norm": "layer",
        "norm_epsilon": settings.number("layer_norm_eps", 1e-12),
        "post_norm": True,
        "activation": activation(settings, "hidden_act", GELU),
        "qkv_bias": True,
        "out_bias": True,
        "mlp_bias": True,
        "token_types": settings.size("type_vocab_size", 2),
        "head_transform": True,
        "tied": settings.flag("tie_word_embeddings", True),
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
        "type_vocab_size": form.token_types,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": form.tied,
    }


def _rows(form: LanguageForm) -> list[Row]:
    embeddings, layer, ours = "bert.embeddings", "bert.encoder.layer.{i}", "layers.{i}"
    attention = f"{layer}.attention"
    names = {"q": "query", "k": "key", "v": "value"}
    bias = "cls.predictions.bias"  # the decoder's is the one that is added; files that have one of them mean both
    return [
        Row(f"{embeddings}.word_embeddings.weight", ("embedding",)),
        Row(f"{embeddings}.position_embeddings.weight", ("position",)),
        Row(f"{embeddings}.token_type_embeddings.weight", ("token_type",)),
        *norm(f"{embeddings}.LayerNorm", "norm", bias=True),
        *(row for p, n in names.items() for row in linear(f"{attention}.self.{n}", f"{ours}.attention.{p}", True)),
        *linear(f"{attention}.output.dense", f"{ours}.attention.out", True),
        *norm(f"{attention}.output.LayerNorm", f"{ours}.attention.norm", bias=True),
        *linear(f"{layer}.intermediate.dense", f"{ours}.mlp.up", True),
        *linear(f"{layer}.output.dense", f"{ours}.mlp.down", True),
        *norm(f"{layer}.output.LayerNorm", f"{ours}.mlp.norm", bias=True),
        *linear("cls.predictions.transform.dense", "transform.dense", True),
        *norm("cls.predictions.transform.LayerNorm", "transform.norm", bias=True),
        Row("cls.predictions.decoder.bias", ("head_bias",), also=bias),
        *([] if form.tied else [Row("cls.predictions.decoder.weight", ("head",))]),
    ]


def _new_head(form: LanguageForm, width: int) -> dict[str, np.ndarray]:
    """A head as `BertForMaskedLM` begins with: its dense layer drawn, its output matrix the embedding."""
    drawn = stream(0, Purpose.NEW_HEAD).normal(0.0, 0.02, (width, width)).astype(np.float32)
    zeros, ones = np.zeros(width, np.float32), np.ones(width, np.float32)
    return {
        "transform.dense.kernel": drawn,
        "transform.dense.bias": zeros,
        "transform.norm.scale": ones,
        "transform.norm.bias": zeros,
        "head_bias": np.zeros(form.vocabulary, np.float32),
    }


MODEL_TYPES.register("bert")(
    ModelType(
        "BertForMaskedLM", "bert.", _read, _write, _rows,
        ignored=(r"bert\.pooler\..*", r"cls\.(seq_relationship|predictions\.(decoder|bias)).*",
                 r".*\.(position|token_type)_ids"),
        defaults=_DEFAULTS, new_head=_new_head, other_heads=r"(classifier|qa_outputs|score)\..*",
        renamed={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
    )
)  # fmt: skip
