"""Task `pairs`: a sentence and its translation, of which each token is predicted from the sentence and those before."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Shaped

from search_spaces import Architecture, UserError
from search_spaces.sealed_json import JsonObject
from supernet.tasks.classes import Classes
from supernet.tasks.inputs import Input
from supernet.tasks.task import TASKS, Task

OUTPUTS = Classes("loss")
"""An output is a distribution over tokens, of which several may be right: its loss says more than the likeliest one."""


@dataclass(frozen=True)
class Pairs(Input):
    """Pairs of equally long rows: the tokens of a sentence, and the end token with what follows it of its translation.

    Attributes:
        vocabulary: Number of different tokens.
        length: Longest row.
        pad: Token that fills rows up.
        end: Token that ends a sentence, and that a translation begins with.
        tokenizer_sha256: Hash of the file that makes text tokens.
    """

    task = "pairs"
    dtype = "int32"

    vocabulary: int
    length: int
    pad: int
    end: int
    tokenizer_sha256: str

    def __call__(self, given: Integer[Array, "b 2 t"]) -> Int32[Array, "b 2 t"]:
        """int[b, 2, t] to int32[b, 2, t]."""
        return given.astype(jnp.int32)

    def check(self, given: Shaped[np.ndarray, "n ..."], shape: Sequence[int]) -> None:
        """See `Input.check`."""
        if (
            given.dtype.kind not in "iu"
            or given.ndim != 3
            or given.shape[1] != 2
            or not 0 < given.shape[2] <= self.length
        ):
            raise UserError(
                f"pairs: {given.dtype} of shape {given.shape}, expected integers [n, 2, t] with t in 1..{self.length}. "
                "Cut longer sentences."
            )
        if given.size and not 0 <= given.min() <= given.max() < self.vocabulary:
            raise UserError(
                f"pairs: tokens {given.min()} to {given.max()}, outside 0..{self.vocabulary - 1}. Use the vocabulary "
                "that the network was trained with."
            )

    def traced(self, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        """See `Input.traced`; rows of any length up to the longest, which the program then insists on."""
        batch, tokens = jax.export.symbolic_shape("b, t", constraints=(f"t <= {self.length}",))
        return jax.ShapeDtypeStruct((batch, 2, tokens), jnp.int32)

    def guarded(self, given: Integer[Array, "b 2 t"], logits: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """See `Input.guarded`: of each pair that holds a token outside the vocabulary."""
        known = jnp.all((given >= 0) & (given < self.vocabulary), axis=(1, 2))
        return jnp.where(known[:, None, None], logits, jnp.nan)

    def as_dict(self) -> JsonObject:
        """See `Input.as_dict`."""
        return asdict(self)


@TASKS.register("pairs")
class SentencePairs(Task):
    """Sentences with their translations; each output is a token of the translation."""

    unit = "pairs"

    @classmethod
    def example(cls, space: Any, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Task.example`: two rows of `context` tokens."""
        return jax.ShapeDtypeStruct((2, space.context), np.int32)

    @classmethod
    def read_input(cls, config: Mapping[str, Any]) -> Pairs:
        """See `Task.read_input`."""
        given = config["preprocessing"]
        return Pairs(**{name: given[name] for name in ("vocabulary", "length", "pad", "end", "tokenizer_sha256")})

    @classmethod
    def read_outputs(cls, config: Mapping[str, Any]) -> Classes:
        """See `Task.read_outputs`."""
        return OUTPUTS
