"""Model type `mistral`: Llama without biases, with attention that may see a window only.

References:
    Jiang et al. Mistral 7B. 2023, arXiv:2310.06825.
    Differs: sequences are at most as long as the window, where it is full attention.
"""

from experiments.checkpoint_import.llama_like import llama_like
from experiments.checkpoint_import.model_type import MODEL_TYPES
from experiments.checkpoint_import.settings import Settings


def _window(settings: Settings) -> int | None:
    # The class has a window of 4096 where a file does not say that there is none.
    return None if settings.values.get("sliding_window", 4096) is None else settings.size("sliding_window", 4096)


MODEL_TYPES.register("mistral")(
    llama_like("MistralForCausalLM", lambda settings: {}, lambda form: {"sliding_window": None}, window=_window)
)
