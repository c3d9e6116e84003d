"""The elastic MobileNet: blocks as stages, a stem before them and a classifier behind.

A block's expansion is the size that its switch selects; its kernel is data inside (`elastic_depthwise`), so that the
variants of a block's other products are those of the expansion alone.

References:
    Cai, Gan, Wang, Zhang, Han. Once-for-All: Train One Network and Specialize it for Efficient Deployment. ICLR 2020,
    arXiv:1908.09791. Smaller kernels are plain centre crops; OFA's learned transforms are the sharing scheme
    `kernel_transform`.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import jax.numpy as jnp
from jaxtyping import Array, Float

from search_spaces import MobileNetSpace
from supernet.engine.elastic_network import ElasticNetwork
from supernet.engine.stages import Context, Stage
from supernet.engine.supernet import SUPERNETS, Params
from supernet.families.bottleneck import Bottleneck, measure, norm, pointwise
from supernet.layers.batch_norm import activate
from supernet.layers.linear import linear
from supernet.layers.resolution import resize
from supernet.standalone.mobilenet import patches_3x3


@SUPERNETS.register("mobilenet")
class MobileNetSupernet(ElasticNetwork):
    """Each stage has its first block, `entry`, and the others, `rest`, under one loop."""

    space: MobileNetSpace

    @cached_property
    def stages(self) -> Mapping[str, Sequence[Stage]]:
        """See `ElasticNetwork.stages`."""
        s = self.space
        adds = s.first_stride == 1 and s.scaled(s.stem_width) == s.scaled(s.first_width)
        blocks = {"first": Bottleneck((3,), s.first_stride, "relu", adds, expands=False)}
        for stage, activation in enumerate(s.activations):
            for block, name in enumerate(("entry", "rest")):
                stride = s.stride(stage, block)
                adds = stride == 1 and s.in_width(stage, block) == s.out_width(stage)
                blocks[f"stage_{stage}/{name}"] = Bottleneck(s.kernel, stride, activation, adds)
        return {name: block.stages for name, block in blocks.items()}

    def embed(self, params: Params, x: Float[Array, "b h w c"], context: Context) -> Float[Array, "b i j d"]:
        """See `ElasticNetwork.embed`."""
        x = patches_3x3(resize(x, context.values["resolution"]), self.space.stem_stride)
        return norm("stem_norm", measure("stem_norm", pointwise(x, params["stem"]), context), params, _ENDS, context)

    def head(self, params: Params, x: Float[Array, "b h w d"], context: Context) -> Float[Array, "b c"]:
        """See `ElasticNetwork.head`."""
        x = norm("final_norm", measure("final_norm", pointwise(x, params["final"]), context), params, _ENDS, context)
        return linear(activate(linear(jnp.mean(x, axis=(1, 2)), params["feature"]), _ENDS), params["classifier"])


_ENDS = "hard_swish"
"""Activation outside the blocks."""
