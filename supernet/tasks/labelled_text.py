"""Task `labelled_text`: texts as rows of tokens, filled up to one length, each with a class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from supernet.tasks.classes import CLASSES, Classes
from supernet.tasks.task import TASKS
from supernet.tasks.tokens import Tokens, TokenSequences


@dataclass(frozen=True)
class TextTokens(Tokens):
    """Tokens of a text, and behind them those that fill the row up, which the network does not see."""

    task = "labelled_text"

    def guarded(self, given: Integer[Array, "b t"], logits: Float[Array, "b c"]) -> Float[Array, "b c"]:
        """See `Input.guarded`: of each text that holds a token outside the vocabulary."""
        known = jnp.all((given >= 0) & (given < self.vocabulary), axis=1)
        return jnp.where(known[:, None], logits, jnp.nan)


@TASKS.register("labelled_text")
class LabelledText(TokenSequences):
    """Texts, of which each has one class."""

    unit = "texts"
    read_by = TextTokens

    @classmethod
    def read_outputs(cls, config: Mapping[str, Any]) -> Classes:
        """See `Task.read_outputs`."""
        return CLASSES
