"""Task `relations`: texts on which a network imitates the attention of a teacher's last layer; there are no labels.

Queries, keys and values of a layer are each shared out to relation heads: equal parts of all their channels together,
whatever heads the layer has. A relation is what the tokens' products with each other are within such a head, so that
teacher and student are compared whatever their sizes.

References:
    Wang et al. MiniLMv2: Multi-Head Self-Attention Relation Distillation for Compressing Pretrained Transformers.
    Findings of ACL 2021, arXiv:2012.15828 (relation heads).
    Xu et al. Few-shot Task-agnostic Neural Architecture Search for Distilling Large Language Models. NeurIPS 2022
    (AutoDistil: squared error of relations instead of a divergence; channels that are left over are not compared).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from search_spaces import UserError
from search_spaces.sealed_json import JsonObject
from supernet.tasks.answers import ExampleAnswer, Figures
from supernet.tasks.outputs import Compared, Measures
from supernet.tasks.task import TASKS
from supernet.tasks.tokens import Tokens, TokenSequences

if TYPE_CHECKING:
    pass

COMPARED = ("probabilities", "scores")


def relation_heads(projected: tuple[Float[Array, "b t c"], ...], heads: int, size: int = 0) -> Float[Array, "b t r"]:
    """Shares queries, keys and values out to relation heads, scaled so that relations are plain products.

    Args:
        projected: Queries, keys and values, with the channels of all heads.
        heads: Number of relation heads.
        size: Channels that each of them is filled up to with zeros, which change no product; none are added when 0.

    Returns:
        Channels of all relation heads of the queries, then of the keys and of the values.
    """
    shared = []
    for a in projected:
        own = a.shape[-1] // heads
        parts = a[..., : own * heads].reshape(*a.shape[:-1], heads, own) * own**-0.25
        shared.append(jnp.pad(parts, [(0, 0)] * (parts.ndim - 1) + [(0, max(size - own, 0))]))
    joined = jnp.stack(shared, axis=-3)
    return joined.reshape(*joined.shape[:-3], math.prod(joined.shape[-3:]))


@dataclass(frozen=True)
class Relations(Compared):
    """Outputs that are relation heads; targets are those of a teacher, of any size, NaN for none.

    The loss of an example is the squared error of each relation, its mean over pairs of tokens and heads, added up over
    queries, keys and values.

    Args:
        heads: Number of relation heads.
        compared: Form of the relations: `probabilities`, their softmax over tokens, as in the paper, or `scores`, the
            products themselves, as in its code.
    """

    figure = "relation_loss"
    objective = "relation_loss"
    said = "relations are compared by squared error"

    heads: int
    compared: str = COMPARED[0]

    def relations(self, outputs: Float[Array, "b t c"]) -> Float[Array, "b 3 h t t"]:
        """Computes the relations of the tokens from relation heads."""
        b, t, _ = outputs.shape
        heads = outputs.reshape(b, t, 3, self.heads, -1).transpose(0, 2, 3, 1, 4)
        scores = heads @ heads.swapaxes(-1, -2)
        return scores if self.compared == "scores" else jax.nn.softmax(scores)

    def encode(self, labels: Float[np.ndarray, "n t c"]) -> Float[np.ndarray, "n t c"]:
        """See `Outputs.encode`: as they are."""
        return labels.astype(np.float32)

    def counted(self, targets: Float[Array, "b t c"]) -> Bool[Array, " b"]:
        """See `Outputs.counted`."""
        return ~jnp.isnan(targets[:, 0, 0])

    def losses(self, logits: Float[Array, "b t c"], targets: Float[Array, "b t d"]) -> Float[Array, " b"]:
        """See `Outputs.losses`."""
        wrong = jnp.square(self.relations(logits) - self.relations(targets))
        return jnp.sum(jnp.mean(wrong, axis=(2, 3, 4)), axis=1)

    def figure_of(self, mean: Any) -> Any:
        """See `Outputs.figure_of`: the loss itself."""
        return mean

    def gradient_norms(self, logits: Float[Array, "b t c"], targets: Float[Array, "b t d"]) -> Float[Array, " b"]:
        """See `Outputs.gradient_norms`."""
        gradients = jax.grad(lambda logits: jnp.sum(self.losses(logits, targets)))(logits)
        return jnp.where(self.counted(targets), jnp.linalg.norm(gradients.reshape(len(logits), -1), axis=1), 0.0)

    def answers(self, served: Float[np.ndarray, "n c"], names: tuple[str, ...], top: int) -> list[ExampleAnswer]:
        """See `Outputs.answers`.

        Raises:
            UserError: Always: relations answer nothing.
        """
        raise UserError("the network has no task yet, so it answers nothing. Train it on one: supernest finetune.")

    def measures(self, names: tuple[str, ...]) -> Measures:
        """See `Outputs.measures`."""
        return _Losses(self)

    def as_dict(self) -> JsonObject:
        """See `Outputs.as_dict`."""
        return {"type": "relations", "heads": self.heads, "compared": self.compared}


class _Losses(Measures):
    """Mean loss over examples: `relation_loss`."""

    def __init__(self, outputs: Relations) -> None:
        self._losses, self._sum, self._count = jax.jit(outputs.losses), 0.0, 0

    def add(self, served: np.ndarray, labels: np.ndarray) -> None:
        """See `Measures.add`."""
        self._sum += float(np.asarray(self._losses(served, labels), np.float64).sum())
        self._count += len(served)

    def figures(self) -> Figures:
        """See `Measures.figures`."""
        return {"relation_loss": self._sum / max(self._count, 1)}


@dataclass(frozen=True)
class UnlabelledTokens(Tokens):
    """Tokens of texts without labels."""

    task = "relations"


@TASKS.register("relations")
class ImitatedRelations(TokenSequences):
    """Texts; outputs are relation heads, which a teacher has others of."""

    read_by = UnlabelledTokens

    @classmethod
    def read_outputs(cls, config: Mapping[str, Any]) -> Relations:
        """See `Task.read_outputs`."""
        return Relations(config["outputs"]["heads"], config["outputs"]["compared"])
