"""Model type `qwen2`: Llama with biases of queries, keys and values.

References:
    Yang et al. Qwen2 Technical Report. 2024, arXiv:2407.10671.
    Differs: sequences are at most as long as the window, where it is full attention.
"""

from experiments.pretrained.formats.llama_like import llama_like
from experiments.pretrained.formats.model_type import MODEL_TYPES
from experiments.pretrained.formats.settings import Settings

DEFAULTS = {
    "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768, "use_sliding_window": False,
    "sliding_window": 4096, "max_window_layers": 28,
}  # fmt: skip
_KINDS = ("full_attention", "sliding_attention")
WITHOUT_WINDOW = {"use_sliding_window": False, "sliding_window": None}


def window(settings: Settings) -> int | None:
    """Returns how many tokens the layers with a window see back; None where no layer has one.

    Raises:
        UserError: The layers' kinds are unknown, not one a layer, or need a window that is not given.
    """
    used = settings.flag("use_sliding_window", False) and settings.values["sliding_window"] is not None
    size = settings.size("sliding_window") if used else None
    layers = settings.size("num_hidden_layers")
    kinds = settings.values.get("layer_types")
    if kinds is None:
        first = settings.values["max_window_layers"]
        if not isinstance(first, int) or isinstance(first, bool):
            raise settings.error("max_window_layers", "is no whole number. The file is damaged")
        return size if first < layers else None
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in _KINDS for kind in kinds):
        raise settings.error("layer_types", f"is not {layers} of {' or '.join(_KINDS)}. Use a checkpoint with those")
    if "sliding_attention" in kinds and size is None:
        raise settings.error("layer_types", "has layers with a window, but there is none (use_sliding_window)")
    return size if "sliding_attention" in kinds else None


MODEL_TYPES.register("qwen2")(
    llama_like(
        "Qwen2ForCausalLM", lambda settings: {"qkv_bias": True}, lambda form: WITHOUT_WINDOW, DEFAULTS, window=window
    )
)
