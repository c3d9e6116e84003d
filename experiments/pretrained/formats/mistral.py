"""Model type `mistral`: Llama without biases, with attention that may see a window only.

References:
    Jiang et al. Mistral 7B. 2023, arXiv:2310.06825.
    Differs: sequences are at most as long as the window, where it is full attention.
"""

from experiments.pretrained.formats.llama_like import llama_like
from experiments.pretrained.formats.model_type import MODEL_TYPES
from experiments.pretrained.formats.settings import Settings

_DEFAULTS = {
    "vocab_size": 32000, "intermediate_size": 14336, "max_position_embeddings": 131072, "num_key_value_heads": 8,
    "sliding_window": 4096,
}  # fmt: skip


def _window(settings: Settings) -> int | None:
    return None if settings.values["sliding_window"] is None else settings.size("sliding_window")


MODEL_TYPES.register("mistral")(
    llama_like(
        "MistralForCausalLM", lambda settings: {}, lambda form: {"sliding_window": None}, _DEFAULTS, window=_window
    )
)
