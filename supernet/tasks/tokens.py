"""Task `tokens`: sequences of tokens, of which each next one, or hidden ones, are predicted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Integer, Shaped

from search_spaces import Architecture, UserError
from search_spaces.sealed_json import JsonObject
from supernet.tasks.classes import Classes
from supernet.tasks.inputs import Input
from supernet.tasks.outputs import Outputs
from supernet.tasks.task import TASKS, Task

OUTPUTS = Classes("loss")
"""An output is a distribution over tokens, of which several may be right: its loss says more than the likeliest one."""


@dataclass(frozen=True)
class Tokens(Input):
    """Tokens, of which a network takes any number up to its longest sequence.

    Attributes:
        vocabulary: Number of different tokens.
        length: Longest sequence.
    """

    task = "tokens"
    dtype = "int32"

    vocabulary: int
    length: int

    def __call__(self, given: Integer[Array, "b t"]) -> Int32[Array, "b t"]:
        """int[b, t] to int32[b, t]."""
        return given.astype(jnp.int32)

    def check(self, given: Shaped[np.ndarray, "n ..."], shape: Sequence[int]) -> None:
        """See `Input.check`."""
        if given.dtype.kind not in "iu" or given.ndim != 2 or not 0 < given.shape[1] <= self.length:
            raise UserError(
                f"tokens: {given.dtype} of shape {given.shape}, expected integers [n, t] with t in 1..{self.length}. "
                "Cut longer texts."
            )
        if given.size and not 0 <= given.min() <= given.max() < self.vocabulary:
            raise UserError(
                f"tokens: {given.min()} to {given.max()}, outside 0..{self.vocabulary - 1}. Use the tokenizer that the "
                "network was trained with."
            )

    def traced(self, shape: Sequence[int]) -> jax.ShapeDtypeStruct:
        """See `Input.traced`; sequences of any length up to the longest, which the program then insists on."""
        symbols = jax.export.symbolic_shape("b, t", constraints=(f"t <= {self.length}",))
        return jax.ShapeDtypeStruct(symbols, jnp.int32)

    def guarded(self, given: Integer[Array, "b t"], logits: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        """See `Input.guarded`: of each sequence that holds a token outside the vocabulary."""
        known = jnp.all((given >= 0) & (given < self.vocabulary), axis=1)
        return jnp.where(known[:, None, None], logits, jnp.nan)

    def as_dict(self) -> JsonObject:
        """See `Input.as_dict`."""
        return asdict(self)


@TASKS.register("tokens")
class TokenSequences(Task):
    """Sequences of tokens; each output is one of them.

    Attributes:
        read_by: Input of an exported network.
    """

    unit = "sequences"
    read_by: ClassVar[type[Tokens]] = Tokens

    @classmethod
    def example(cls, space: Any, architecture: Architecture) -> jax.ShapeDtypeStruct:
        """See `Task.example`: `context` tokens."""
        return jax.ShapeDtypeStruct((space.context,), np.int32)

    @classmethod
    def read_input(cls, config: Mapping[str, Any]) -> Tokens:
        """See `Task.read_input`."""
        given = config["preprocessing"]
        return cls.read_by(given["vocabulary"], given["length"])

    @classmethod
    def read_outputs(cls, config: Mapping[str, Any]) -> Outputs:
        """See `Task.read_outputs`."""
        return OUTPUTS
