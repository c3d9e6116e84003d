"""Model type `qwen2`: Llama with biases of queries, keys and values.

References:
    Yang et al. Qwen2 Technical Report. 2024, arXiv:2407.10671.
    Differs: sequences are at most as long as the window, where it is full attention.
"""

from experiments.checkpoint_import.llama_like import llama_like
from experiments.checkpoint_import.model_type import MODEL_TYPES
from experiments.checkpoint_import.settings import Settings

WITHOUT_WINDOW = {"use_sliding_window": False, "sliding_window": None, "layer_types": None}


def window(settings: Settings) -> int | None:
    """Tokens that the layers with a window see back."""
    return settings.size("sliding_window", 4096) if settings.flag("use_sliding_window", False) else None


MODEL_TYPES.register("qwen2")(
    llama_like("Qwen2ForCausalLM", lambda settings: {"qkv_bias": True}, lambda form: WITHOUT_WINDOW, window=window)
)
