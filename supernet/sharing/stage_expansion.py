"""Stage expansion (SWS): the layers of a stage all have the weights of one block.

References:
    Xia et al. Exploring Learngene via Stage-wise Weight Sharing for Initializing Variable-sized Models. IJCAI 2024,
    arXiv:2404.16897.
    Differs: fresh blocks are drawn as the family draws its layers; the depth may be elastic, and each network then has
    all stages.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Int, Key

from search_spaces import SearchSpace, UserError
from supernet.sharing import SHARING
from supernet.sharing.expansion import LayerExpansion

_KEY = "supernet.stages"
_MOST = 5  # stages by default, the published number


@SHARING.register("stage_expansion")
class StageExpansion(LayerExpansion):
    """A block for each stage, which all layers of the stage share; stages follow one another.

    Args:
        space: The space.
        stages: Number of layers of each stage of the deepest network. By default there are five stages, or fewer so
            that each has two layers or more and the shallowest network has all; they have equally many layers, those
            in the middle one more where that is not possible: 3-3-4-3-3 for 16 layers, as published.

    Raises:
        UserError: The family does not fit, or the stages do not.
    """

    name = "stage_expansion"

    def __init__(self, space: SearchSpace, stages: Sequence[int] = ()) -> None:
        super().__init__(space)
        shallowest = int(self._on.sum(axis=1).min())
        self.stages = tuple(stages) or _equal(self.depth, max(1, min(_MOST, self.depth // 2, shallowest)))
        given = list(self.stages)
        if min(given) < 1 or sum(given) != self.depth:
            raise UserError(
                f"{_KEY}: {given} are not the {self.depth} layers of the deepest network. Give a positive number of "
                f"layers for each stage, such as {list(_equal(self.depth, min(self.depth, len(given))))}."
            )
        self.check_depth(shallowest, f"space.{self.stack.depth}")

    @property
    def blocks(self) -> int:
        """See `LayerExpansion.blocks`: one for each stage."""
        return len(self.stages)

    def terms(self, depth: int) -> Int[np.ndarray, " l"]:
        """See `LayerExpansion.terms`: the stage of each layer.

        At the largest depth stages have the layers that `stages` says. At others they have equally many, the first ones
        one more where that is not possible, as published for 12 layers (3-3-2-2-2).
        """
        each, more = divmod(depth, self.blocks)
        sizes = self.stages if depth == self.depth else [each + (stage < more) for stage in range(self.blocks)]
        return np.repeat(np.arange(self.blocks, dtype=np.int32), sizes)

    def layers(self, blocks: Float[Array, "b ..."], terms: Int[Array, " l"]) -> Float[Array, "l ..."]:
        """See `LayerExpansion.layers`."""
        return blocks[terms]

    def fresh(self, layers: Float[Array, "l ..."], drawn: bool, key: Key[Array, ""]) -> Float[Array, "b ..."]:
        """See `LayerExpansion.fresh`: the first layer of each stage."""
        del drawn, key
        return layers[np.cumsum((0, *self.stages[:-1]))]

    def check_depth(self, depth: int, where: str) -> None:
        """See `LayerExpansion.check_depth`: each stage needs a layer."""
        super().check_depth(depth, where)
        if depth < self.blocks:
            raise UserError(
                f"{where}: {depth} is less than the {self.blocks} stages of stage_expansion, each of which has a layer "
                f"or more. Give {self.blocks} or more layers."
            )


def _equal(layers: int, stages: int) -> tuple[int, ...]:
    """Layers of each of some stages; where layers are left over, the stages in the middle have one more."""
    each, more = divmod(layers, stages)
    first = (stages - more) // 2
    return tuple(each + (first <= stage < first + more) for stage in range(stages))
