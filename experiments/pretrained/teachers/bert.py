"""Teacher of relations: an imported BERT, of which the queries, keys and values of the last layer are imitated."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int

from experiments.data.relations import RELATION_TEACHERS, Projections, RelationTeacher
from experiments.data.tokenizer import BYTES, may_be_bytes
from experiments.pretrained.directory import ImportedDirectory
from experiments.pretrained.encoders import check_bert
from search_spaces import UserError


@RELATION_TEACHERS.register("bert")
def load(path: Path) -> RelationTeacher:
    """Loads the teacher from a directory that `supernest import` wrote.

    Raises:
        UserError: The directory is none, holds another type of model or no tokenizer, or was altered.
    """
    imported = ImportedDirectory(path)
    if not imported.manifest.is_file():
        raise UserError(
            f"data.teacher: {path} is no directory that supernest import wrote. Import a BERT: supernest import --help"
        )
    check_bert("data.teacher", imported)
    vocabulary, tokenizer = imported.space["vocabulary"], imported.tokenizer
    if tokenizer is None and not may_be_bytes(vocabulary):
        raise UserError(
            f"data.teacher: {path} has no tokenizer, and its {vocabulary} tokens are not bytes. Import it with its own."
        )
    module: Any = imported.module()
    graph, state = nnx.split(module)
    of_state = jax.jit(lambda state, tokens: last_projections(nnx.merge(graph, state), tokens))
    return RelationTeacher(
        project=lambda tokens: of_state(state, tokens),
        vocabulary=vocabulary,
        length=imported.space["max_positions"],
        channels=module.layers[-1].attention.q.kernel.shape[-1],
        tokenizer=BYTES if tokenizer is None else str(tokenizer),
        fingerprint=hashlib.sha256(imported.manifest.read_bytes()).hexdigest(),
    )


def last_projections(model: Any, tokens: Int[Array, "b t"]) -> Projections:
    """Computes the queries, keys and values of the last layer, with the channels of all heads: [b, t, c] each.

    Args:
        model: A `supernet.standalone.language.LanguageModel` whose norms stand behind the sublayers.
        tokens: int32[b, t].
    """
    positions = jnp.arange(tokens.shape[1])
    parts = [model.embedding[...][tokens]]
    parts += [] if model.position is None else [model.position[...][positions]]
    parts += [] if model.token_type is None else [model.token_type[...][0]]
    x = model.norm(sum(parts[1:], parts[0]))
    *layers, last = model.layers
    for layer in layers:
        x, _ = layer(x, positions, None)
    return last.attention.q(x), last.attention.k(x), last.attention.v(x)
