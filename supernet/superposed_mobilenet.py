"""The superposed MobileNet: one pass at full size for a mixture of kernels, expansions and depths.

A resolution changes the shape of every map, which no mask expresses: each resolution has its own pass, and their logits
are mixed. A step costs as many passes as the space has resolutions.

References:
    Sukthanker, Krishnakumar, Safari, Hutter. Weight-Entanglement Meets Gradient-Based Neural Architecture Search.
    AutoML-Conf 2024, arXiv:2312.10440. See `supernet.superposed` for what differs.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from supernet.bottleneck import Size
from supernet.mobilenet import MobileNetSupernet
from supernet.resolution import resize
from supernet.supernet import Params
from supernet.superposed import SUPERPOSED, Relaxed, SuperposedSupernet, masked, prefixes, stopping_points
from supernet.switch import Context, run


@SUPERPOSED.register("mobilenet")
class SuperposedMobileNet(MobileNetSupernet, SuperposedSupernet):
    """Expansion masks a block's inner axes, the kernel its edges. With these in the weights, the largest block computes
    the mixture: a channel that no expansion has is 0 after its batch norm, whose scale and bias are masked as well."""

    def superpose(self, params: Params, relaxed: Relaxed) -> Params:
        """See `SuperposedSupernet.superpose`."""
        by_choice = self.by_choice(relaxed)
        effective = dict(params)
        for stage in range(self.space.stages):
            kernel, expand = (self._of_stage(by_choice[name], stage) for name in ("kernel", "expand"))
            name = f"stage_{stage}"
            entry = self._superpose_block(params[name]["entry"], kernel[0], expand[0], self._sizes(stage, 0))
            effective[name] = {"entry": entry}
            if "rest" in params[name]:
                sizes = self._sizes(stage, 1)
                effective[name]["rest"] = jax.vmap(lambda w, k, e, sizes=sizes: self._superpose_block(w, k, e, sizes))(
                    params[name]["rest"], kernel[1:], expand[1:]
                )
        return effective

    def apply_superposed(self, params: Params, relaxed: Relaxed, x: jax.Array) -> jax.Array:
        """See `SuperposedSupernet.apply_superposed`."""
        by_choice = self.by_choice(relaxed)
        params = self.superpose(params, relaxed)
        logits = [
            weight * self._at_full_size(params, by_choice["depth"], resize(x, resolution))
            for weight, resolution in zip(by_choice["resolution"], self.space.resolution, strict=True)
        ]
        return jnp.stack(logits).sum(axis=0)

    def _at_full_size(self, params: Params, depths: jax.Array, x: jax.Array) -> jax.Array:
        """Logits at the resolution of x; each stage hands on a mixture of where it may stop."""
        space, context = self.space, Context()
        x = self._stem(params, x, context)
        fixed, size = self._fixed
        x = run(fixed.stages, params["first"], x, size, context)
        for stage in range(space.stages):
            blocks = params[f"stage_{stage}"]
            stops = stopping_points(self._of_stage(depths, stage), space.depth)
            size = self._size(stage, 0, space.expand[-1], space.kernel[-1])
            x = run(self._block(stage, 0).stages, blocks["entry"], x, size, context)
            if "rest" not in blocks:
                continue  # the only block there is
            stages, size = self._block(stage, 1).stages, self._size(stage, 1, space.expand[-1], space.kernel[-1])

            def block(carry: tuple, inputs: tuple, stages: tuple = stages, size: Size = size) -> tuple[tuple, None]:
                (x, stopped), (weights, stop) = carry, inputs
                x = run(stages, weights, x, size, context)
                return (x, stopped + stop * x), None

            (_, x), _ = jax.lax.scan(block, (x, stops[0] * x), (blocks["rest"], stops[1:]))
        return self._classify(params, x, context)

    def _of_stage(self, weights: jax.Array, stage: int) -> jax.Array:
        """The part of a choice's weights that belongs to a stage; a space of one stage has no axis of stages."""
        return weights if self.space.stages == 1 else weights[stage]

    def _superpose_block(self, weights: Params, kernel: jax.Array, expand: jax.Array, sizes: Sequence[Size]) -> Params:
        """One block's weights, from the weights of its kernel's and of its expansion's values."""
        hiddens = prefixes([size.hidden for size in sizes], sizes[-1].hidden)
        hidden = expand @ hiddens
        effective = {name: masked(weights[name], hidden) for name in ("expand", "expand_norm", "depthwise_norm")}
        crop = jnp.einsum("k,kij->ij", kernel, _crops(self.space.kernel))
        effective["depthwise"] = masked(weights["depthwise"], crop[..., None], hidden)
        effective["project"] = masked(weights["project"], hidden[:, None])
        effective["project_norm"] = weights["project_norm"]
        if "squeeze_excite" in weights:
            reduce, widen = weights["squeeze_excite"]["reduce"], weights["squeeze_excite"]["widen"]
            squeezeds = prefixes([size.squeezed for size in sizes], sizes[-1].squeezed)
            both = jnp.einsum("e,eh,es->hs", expand, hiddens, squeezeds)
            effective["squeeze_excite"] = {
                "reduce": {"kernel": reduce["kernel"] * both, "bias": reduce["bias"] * (expand @ squeezeds)},
                "widen": {"kernel": widen["kernel"] * both.T, "bias": widen["bias"] * hidden},
            }
        return effective


def _crops(kernels: Sequence[int]) -> np.ndarray:
    """1 within the middle [k, k] of the largest kernel, for each size."""
    offset = np.abs(np.arange(kernels[-1]) - kernels[-1] // 2)
    inside = offset <= np.array(kernels)[:, None] // 2
    return (inside[:, :, None] & inside[:, None, :]).astype(np.float32)
