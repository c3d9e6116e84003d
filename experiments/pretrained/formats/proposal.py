"""The space that is proposed for a checkpoint: fractions of each of its sizes that divide as they must."""

import math

from experiments.pretrained.formats.model_type import ModelType, Sizes
from search_spaces import LanguageForm, LanguageSpace

_FRACTIONS = (0.5, 0.75, 1.0)
_MULTIPLE = 64  # of widths, where it divides the full one: what matrix units like


def propose(form: LanguageForm, sizes: Sizes, model_type: ModelType) -> LanguageSpace:
    """Proposes a space of half to full size, equal in all layers, so that standard runtimes can load its networks.

    Where the size of a head is the width over the heads, a narrower stream has as many fewer heads: theirs must stay as
    large as the checkpoint's are.

    Args:
        form: Form that the networks share.
        sizes: Sizes of the largest.
        model_type: Model type that must load them.
    """
    kv_heads, queries = _fractions(sizes.kv_heads), _fractions(sizes.queries)
    width = tuple(groups * sizes.queries * form.head_size for groups in kv_heads)
    if model_type.free_head_size:
        step = _step(sizes.width)
        if model_type.heads_divide_width:
            kv_heads = tuple(groups for groups in kv_heads if sizes.width % (groups * sizes.queries) == 0)
            queries = tuple(n for n in queries if all(sizes.width % (groups * n) == 0 for groups in kv_heads))
            step = math.lcm(step, *(groups * n for groups in kv_heads for n in queries))
        width = _fractions(sizes.width, step)
    return LanguageSpace(
        **form.form,
        width=width,
        depth=_fractions(sizes.depth),
        kv_heads=kv_heads,
        heads_follow_width=not model_type.free_head_size,
        queries=queries,
        mlp_width=_fractions(sizes.mlp_width, _step(sizes.mlp_width)),
        uniform=True,
    )


def _step(full: int) -> int:
    """The power of two that widths are multiples of; small enough for several of them."""
    step = math.gcd(full, _MULTIPLE)
    while step > max(1, full // 4):
        step //= 2
    return step


def _fractions(full: int, step: int = 1) -> tuple[int, ...]:
    return tuple(sorted({max(1, round(full * share / step)) * step for share in _FRACTIONS}))
