"""Model type `llama`.

References:
    Touvron et al. LLaMA: Open and Efficient Foundation Language Models. 2023, arXiv:2302.13971.
    Grattafiori et al. The Llama 3 Herd of Models. 2024, arXiv:2407.21783 (scaled positions).
"""

from experiments.pretrained.formats.llama_like import llama_like
from experiments.pretrained.formats.model_type import MODEL_TYPES
from experiments.pretrained.formats.settings import Settings
from search_spaces import LanguageForm

_DEFAULTS = {
    "vocab_size": 32000,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "num_key_value_heads": None,
}


def _biases(settings: Settings) -> dict[str, bool]:
    attention = settings.flag("attention_bias", False)
    return {"qkv_bias": attention, "out_bias": attention, "mlp_bias": settings.flag("mlp_bias", False)}


def _written(form: LanguageForm) -> dict[str, bool]:
    return {"attention_bias": form.qkv_bias, "mlp_bias": form.mlp_bias}


MODEL_TYPES.register("llama")(llama_like("LlamaForCausalLM", _biases, _written, _DEFAULTS, heads_divide_width=True))
