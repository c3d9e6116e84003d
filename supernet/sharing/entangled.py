"""Weight entanglement: a choice uses the leading part of one shared weight, so subnets are nested prefixes.

References:
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651.
"""

from typing import Any

import jax

from supernet.sharing import SHARING


@SHARING.register("entangled")
def entangled(params: Any, genes: jax.Array) -> Any:
    """The shared weights themselves, whatever the architecture."""
    del genes
    return params
