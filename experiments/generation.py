"""Text from an exported language model: prompt to tokens, tokens to those that follow, and back to text."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.data.tokenizer import BYTES, load_tokenizer
from search_spaces import UserError
from supernet.generate import generate
from supernet.standalone.language import LanguageModel
from supernet.subnet import load_subnet


def continued(directory: Path, prompt: str, count: int, temperature: float, seed: int) -> dict[str, Any]:
    """What a model writes after a prompt, up to the end of a text.

    Args:
        directory: An exported subnet, with its tokenizer.
        prompt: At least one token.
        count: The most tokens that follow.
        temperature: 0 takes the likeliest token each time.
        seed: Of what is drawn at other temperatures.

    Returns:
        For JSON: `prompt`, the `text` that follows it, and its `tokens`.

    Raises:
        UserError: It is no such subnet, or the sequence is empty or too long for it.
    """
    subnet = load_subnet(directory)
    if not isinstance(subnet.module, LanguageModel):
        raise UserError(
            f"{directory}: a network of family {subnet.config['family']}, which writes no text. Give a language model."
        )
    name = subnet.config.get("tokenizer", BYTES)
    tokenizer = load_tokenizer(name if name == BYTES else str(directory / name))
    given = tokenizer.encode(prompt.encode("utf-8", "surrogateescape"))
    if given.size and given.max() >= subnet.module.form.vocabulary:
        raise UserError(
            f"{directory}: token {given.max()} of the prompt is none of the {subnet.module.form.vocabulary} that the "
            f"model knows. Export it with its own tokenizer: data.tokenizer."
        )
    key = jax.random.key(seed)
    found = generate(subnet.module, jnp.asarray(given, jnp.int32)[None], count, temperature, key)[0].tolist()
    following = found[: found.index(tokenizer.end)] if tokenizer.end in found else found
    # Decoded together, as a token's text may depend on what is before it.
    before = tokenizer.decode(given.tolist())
    text = tokenizer.decode([*given.tolist(), *following]).removeprefix(before)
    return {"prompt": prompt, "text": text, "tokens": following}
