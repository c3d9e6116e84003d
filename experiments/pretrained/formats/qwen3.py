"""Model type `qwen3`: Llama whose queries and keys are normalised, and whose heads need not divide the width.

References:
    Yang et al. Qwen3 Technical Report. 2025, arXiv:2505.09388.
    Differs: sequences are at most as long as the window, where it is full attention.
"""

from experiments.pretrained.formats.llama_like import llama_like
from experiments.pretrained.formats.model_type import MODEL_TYPES
from experiments.pretrained.formats.qwen2 import DEFAULTS, WITHOUT_WINDOW, window
from experiments.pretrained.formats.settings import Settings
from search_spaces import LanguageForm


def _biases(settings: Settings) -> dict[str, bool]:
    attention = settings.flag("attention_bias", False)
    return {"qkv_bias": attention, "out_bias": attention}


def _written(form: LanguageForm) -> dict:
    return {"attention_bias": form.qkv_bias, **WITHOUT_WINDOW}


MODEL_TYPES.register("qwen3")(
    llama_like("Qwen3ForCausalLM", _biases, _written, {**DEFAULTS, "head_dim": 128}, window=window, qk_norm=True)
)
