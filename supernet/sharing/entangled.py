"""Weight entanglement: a choice uses the leading part of one shared weight, so subnets are nested prefixes.

References:
    Chen et al. AutoFormer: Searching Transformers for Visual Recognition. ICCV 2021, arXiv:2107.00651.
"""

from jaxtyping import Array, Int, Key

from supernet.sharing import SHARING, Params, WeightSharing


@SHARING.register("entangled")
class Entangled(WeightSharing):
    """The shared weights themselves, whatever the architecture."""

    def init(self, plain: Params, key: Key[Array, ""]) -> Params:
        """See `WeightSharing.init`."""
        del key
        return plain

    def effective(self, params: Params, genes: Int[Array, " g"]) -> Params:
        """See `WeightSharing.effective`."""
        del genes
        return params
